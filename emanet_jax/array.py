"""What public functions take for an array: JAX's, and NumPy's on its way in."""

import jax
import numpy as np

Array = jax.Array | np.ndarray
