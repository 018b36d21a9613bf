"""Which parameters are decayed, and which are biases: masks for optax."""

from collections.abc import Callable, Sequence

import jax

Path = tuple[str, ...]


def decayed(frozen: Sequence[Path]) -> Callable:
  """Parameters → whether each is decayed: kernels of convolutions alone.

  Args:
    frozen: Paths of subtrees that no gradient reaches. They are not decayed
      either, hence never move: PyTorch's SGD skips parameters without
      gradient, and a plain decay would shrink them to nothing.
  """

  def rule(path, _):
    keys = tuple(key.key for key in path)
    below_frozen = any(keys[: len(f)] == tuple(f) for f in frozen)
    return keys[-1] == 'kernel' and not below_frozen

  return lambda params: jax.tree.map_with_path(rule, params)


def biases(params: dict) -> dict:
  """Whether each parameter is a bias, of a convolution or a normalisation."""
  return jax.tree.map_with_path(lambda path, _: path[-1].key == 'bias', params)
