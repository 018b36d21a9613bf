"""Leaf programs, each `python -m emanet_jax.tools.NAME`."""
