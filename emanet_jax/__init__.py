"""EMANet: expectation-maximization attention for semantic segmentation."""
