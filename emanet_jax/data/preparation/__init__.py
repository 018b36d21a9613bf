"""Archives or a folder to records, once: checks, statistics, report."""
