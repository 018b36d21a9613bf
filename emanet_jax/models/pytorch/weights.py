"""PyTorch's tensors to our network's variables, and back.

The kind of network is recognised by its tensors' names, its depth, widths and
classes by their shapes. Every tensor is accounted for: one that is unknown,
missing or of another shape than the network's is an error that lists both
sides.
"""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import traverse_util

from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.models.pytorch.layouts import LAYOUTS, Layout, Path
from emanet_jax.models.pytorch.options import options, width
from emanet_jax.models.pytorch.resnets import find_blocks
from emanet_jax.models.pytorch.tensors import reorder, to_flax, to_torch
from emanet_jax.models.segmenter import create_model

_COUNTER = 'num_batches_tracked'  # of each normalisation; we have none
_TOLD = 20  # tensors, of one problem
_CLASSIFIER = ('fc.', 'head.fc.')  # of ImageNet, after a ResNet's backbone


def variables_from_torch(state_dict: dict[str, np.ndarray]) -> dict:
  """The Flax variables that a PyTorch state dict holds.

  Args:
    state_dict: Name → array, in PyTorch's layout, of one of
      `layouts.LAYOUTS`. A leading `module.`, and a ResNet's `backbone.`,
      are dropped; `num_batches_tracked` counters and the ImageNet classifier
      `fc` have no counterpart.

  Returns:
    For a whole network `{'params', 'batch_stats'}` of `create_model`, and of
    EMANet `bases`; for a ResNet `{'params', 'batch_stats'}` of the backbone
    alone. float32 NumPy arrays.

  Raises:
    UserError: An unknown source, or any tensor unknown, missing or misshaped.
  """
  return network_from_torch(state_dict)[0]


def network_from_torch(
  state_dict: dict[str, np.ndarray],
) -> tuple[dict, ml_collections.ConfigDict]:
  """As `variables_from_torch`; and the `model` part of its configuration."""
  tensors = {
    name.removeprefix('module.'): np.asarray(value)
    for name, value in state_dict.items()
    if not name.endswith(_COUNTER)
  }
  layout, tensors = _recognise(tensors)
  names = layout.names(find_blocks(tensors))
  _refuse(
    {
      'the network has no place for': [
        f'{name} {tensors[name].shape}' for name in tensors.keys() - names
      ],
      'the file lacks': [
        f'{name} ({"/".join(names[name])})' for name in names.keys() - tensors
      ],
      'nothing is in': [
        f'{name} {value.shape}'
        for name, value in tensors.items()
        if not value.size
      ],
    }
  )
  found = {path: to_flax(tensors[name], path) for name, path in names.items()}
  for path, order in layout.orders.items():
    found[path] = reorder(found[path], order)
  model_config = default_config().model
  model_config.update_from_flattened_dict(options(layout, found))
  expected = _expected_shapes(model_config, width(found, 'head/classifier'))
  _refuse(
    {
      'shapes differ (in Flax layout) at': [
        f'{name}: file {found[path].shape}, network {expected[path]}'
        for name, path in names.items()
        if found[path].shape != expected[path]
      ]
    }
  )
  return traverse_util.unflatten_dict(found), model_config


def torch_from_variables(
  variables: dict, steps: int
) -> tuple[dict[str, np.ndarray], Layout]:
  """The state dict of the first layout that has just these tensors.

  Args:
    variables: Of an EMANet as the authors' or mmsegmentation's, of another of
      the latter's or torchvision's networks, or of a ResNet alone.
    steps: Updates behind it, for the `num_batches_tracked` that strict loading
      asks for.

  Returns:
    Name → array in PyTorch's layout, and the names' kind.

  Raises:
    UserError: No layout has all of these tensors.
  """
  found = traverse_util.flatten_dict(variables)
  blocks = find_blocks(
    f'{path[2].replace("_", ".")}.{path[3]}'
    for path in found
    if path[1] == 'backbone'
  )
  for layout in LAYOUTS:
    names = layout.names(blocks)
    if set(names.values()) == found.keys():
      break
  else:
    raise UserError(
      'no PyTorch network has just these tensors; known are: '
      + ', '.join(_titles())
    )
  for path, order in layout.orders.items():
    found[path] = reorder(found[path], np.argsort(order).tolist())
  tensors = {}
  for name, path in names.items():
    tensors[name] = to_torch(np.asarray(found[path]), path)
    if path[-1] == 'var':
      module = name.removesuffix('running_var')
      tensors[module + _COUNTER] = np.array(steps, np.int64)
  for copy, module in layout.copies.items():
    for name in [x for x in tensors if x.startswith(f'{module}.')]:
      tensors[copy + name.removeprefix(module)] = tensors[name].copy()
  return tensors, layout


def _without_copies(
  tensors: dict[str, np.ndarray], layout: Layout
) -> dict[str, np.ndarray]:
  """Without the layout's copies. Raises for one that is none."""
  copies = {name: layout.original(name) for name in tensors}
  _refuse(
    {
      'the network has one tensor for what differs here': [
        f'{name} and {original}'
        for name, original in copies.items()
        if name != original
        and original in tensors
        and not np.array_equal(tensors[name], tensors[original])
      ]
    }
  )
  return {k: v for k, v in tensors.items() if copies[k] == k}


def _recognise(
  tensors: dict[str, np.ndarray],
) -> tuple[Layout, dict[str, np.ndarray]]:
  """The layout; and the tensors without an ImageNet network's trimmings."""
  bare = {
    name.removeprefix('backbone.'): value
    for name, value in tensors.items()
    if not name.startswith(_CLASSIFIER)
  }
  for layout in LAYOUTS:
    given = tensors if layout.head else bare
    if all(mark in given for mark in layout.marks):
      return layout, _without_copies(given, layout)
  raise UserError(
    'not a known network: its tensors are called like '
    f'{sorted(tensors)[:5]}; known are ' + ', '.join(_titles())
  )


def _titles() -> list[str]:
  """Of the networks that are known, their forms apart."""
  titles = [layout.title.partition(',')[0] for layout in LAYOUTS]
  return list(dict.fromkeys(titles))


def _expected_shapes(
  model_config: ml_collections.ConfigDict, classes: int
) -> dict[Path, tuple]:
  model = create_model(model_config, classes)
  model = model.clone(convolution='flax')  # as many, in half of the time
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 65, 65, 3))
  )
  flat = traverse_util.flatten_dict(shapes)
  return {path: leaf.shape for path, leaf in flat.items()}


def _refuse(problems: dict[str, list[str]]) -> None:
  """Raises if any problem has instances, listing the first `_TOLD` of each."""
  lines = [
    f'{title}: ' + ', '.join(sorted(instances)[:_TOLD]) + _rest(instances)
    for title, instances in problems.items()
    if instances
  ]
  if lines:
    raise UserError('these weights do not fit:\n' + '\n'.join(lines))


def _rest(instances: list[str]) -> str:
  more = len(instances) - _TOLD
  return f' and {more} more' if more > 0 else ''
