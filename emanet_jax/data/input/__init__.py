"""Records to augmented training batches, and to images for evaluation."""
