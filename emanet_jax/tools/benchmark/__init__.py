"""Measurements, one file a subject; `tools.benchmark` runs them."""
