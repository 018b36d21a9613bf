"""Photos to label maps, overlays, attention maps and submissions."""
