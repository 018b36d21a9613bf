"""Backbones, one file each; a file's name is its name in the config.

A backbone file holds `create(norm_momentum, *, option=default, …)`, which
returns a module. That turns an image into its stages' features, finest first,
and has an `output_stride`, that of the last of them, and `out_extents`.
"""
