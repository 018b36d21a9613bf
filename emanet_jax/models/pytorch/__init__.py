"""Names and tensors of PyTorch networks, both ways."""
