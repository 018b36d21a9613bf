"""Blocks that look at the whole image, which several heads share.

Every block takes features [b, h, w, c] and, where images are smaller than the
batch, their `extent` (`models/layers.py`): what lies outside of an image is
neither averaged nor attended to, so that each gets what it gets alone. Below,
n = h·w is the number of positions; costs are multiply-adds an image.
"""
