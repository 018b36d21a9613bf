"""The names of the tensors of PyTorch's modules, and ours."""

Path = tuple[str, ...]

# Convolutions without a bias: a normalisation follows, or they score offsets.
_WITHOUT_BIAS = ('conv', 'offsets')
# PyTorch leaf → (our collection, our leaf) of a normalisation.
_NORM_LEAVES = {
  'weight': ('params', 'scale'),
  'bias': ('params', 'bias'),
  'running_mean': ('batch_stats', 'mean'),
  'running_var': ('batch_stats', 'var'),
}


def tensor_names(module: str, path: Path) -> dict[str, Path]:
  """PyTorch tensor name → our path, of a module; what it is its name says."""
  if path[-1] == 'norm':
    return {
      f'{module}.{leaf}': (collection, *path, our_leaf)
      for leaf, (collection, our_leaf) in _NORM_LEAVES.items()
    }
  # Over the channels of each pixel.
  if path[-1] == 'layer_norm' or path[-1].startswith('norm_'):
    return {
      f'{module}.weight': ('params', *path, 'scale'),
      f'{module}.bias': ('params', *path, 'bias'),
    }
  if path[-1] == 'codes':
    leaves = 'codewords', 'scale'
    return {f'{module}.{leaf}': ('params', *path, leaf) for leaf in leaves}
  if path[-1] == 'gamma':
    return {f'{module}.scale': ('params', *path)}
  if path[-1] == 'in_proj':
    return {
      f'{module}_weight': ('params', *path, 'kernel'),
      f'{module}_bias': ('params', *path, 'bias'),
    }
  names = {f'{module}.weight': ('params', *path, 'kernel')}
  if path[-1] not in _WITHOUT_BIAS:
    names[f'{module}.bias'] = ('params', *path, 'bias')
  return names
