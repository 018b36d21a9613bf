"""Decode heads, one file each; a file's name is its name in the config.

A head file holds `create(num_classes, norm_momentum, **options) -> nn.Module`;
the module turns the backbone's stage features into logits, and its
`frozen_params()` names the parameters that no gradient ever reaches.
"""
