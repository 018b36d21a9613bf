"""What makes convolutions fast on CPUs, GPUs and TPUs."""
