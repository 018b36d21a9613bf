"""Grids of runs that compare stages, bases and heads; see `__main__`."""
