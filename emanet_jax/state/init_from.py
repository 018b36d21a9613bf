"""Weights to start from, taken from elsewhere as far as they fit."""

from absl import logging
from flax import traverse_util

from emanet_jax.errors import UserError
from emanet_jax.state.train_state import TrainState


def take_weights(
  state: TrainState, source: dict, name: str, backbone_only: bool = False
) -> TrainState:
  """The state with every weight of `source` that fits; logs what did not.

  Args:
    state: A fresh state.
    source: Variables, of a whole network or its backbone.
    name: What to call the source in messages.
    backbone_only: Take no head, even where it fits.

  Raises:
    UserError: The backbone is another one, or nothing fits.
  """
  own = traverse_util.flatten_dict(state.variables)
  given = traverse_util.flatten_dict(source)
  if backbone_only:
    given = {path: v for path, v in given.items() if path[1] == 'backbone'}
  taken = {
    path: value
    for path, value in given.items()
    if path in own and own[path].shape == value.shape
  }
  unlike = (own.keys() | given.keys()) - taken.keys()
  unlike = sorted(unlike, key=lambda path: path[1:])
  backbone = [path for path in unlike if path[1] == 'backbone']
  if backbone:
    raise UserError(
      f'init_from: {name} has another backbone than the configured network; '
      f'{len(backbone)} tensors differ, first\n'
      + '\n'.join(f'  {_story(path, given, own)}' for path in backbone[:5])
      + '\nSet config.model.backbone as in the checkpoint.'
    )
  logging.info(
    'init_from %s:\n%s', name, '\n'.join(_report(own, given, unlike))
  )
  variables = traverse_util.unflatten_dict({**own, **taken})
  params = variables.pop('params')
  return state.replace(params=params, model_state=variables)


def _story(path, given, own) -> str:
  """What the checkpoint and the network have at a path, in words."""
  name = '/'.join(path[1:])
  if path not in given:
    return f'{name}: not in the checkpoint'
  if path not in own:
    return f'{name}: only in the checkpoint'
  return f'{name}: checkpoint {given[path].shape}, model {own[path].shape}'


def _report(own, given, unlike) -> list[str]:
  """A line a part of the network: tensors taken, and the story of the rest."""
  lines = []
  for part in sorted({path[1] for path in own.keys() | given.keys()}):
    mine, theirs = (sum(p[1] == part for p in tree) for tree in (own, given))
    if not (mine and theirs):
      lines.append(
        f'  {part}: 0 of {mine} tensors taken: not in the checkpoint'
        if mine
        else f'  {part}: {theirs} tensors only in the checkpoint'
      )
      continue
    modules = {}
    for path in unlike:
      if path[1] == part:
        modules.setdefault(path[1:3], []).append(path)
    left = sum(path in own for paths in modules.values() for path in paths)
    line = f'  {part}: {mine - left} of {mine} tensors taken'
    for first, *others in modules.values():
      line += f'; left: {_story(first, given, own)}'
      line += f' (and {len(others)} more)' if others else ''
    lines.append(line)
  return lines
