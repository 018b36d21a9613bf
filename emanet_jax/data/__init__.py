"""From an archive or folder to augmented batches."""
