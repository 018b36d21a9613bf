"""Arrays to PNG: figures, plots, overlays, previews."""
