"""A split to scores, and the report on them."""
