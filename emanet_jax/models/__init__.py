"""Backbones, heads and the EM attention unit."""
