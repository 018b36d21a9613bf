"""The state of training, its checkpoints, and weights taken from elsewhere."""
