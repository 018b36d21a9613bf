"""Augmentations beyond the random crop, one file each."""
