"""Images to probabilities, many sizes in few shapes."""
