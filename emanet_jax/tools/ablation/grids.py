"""Which runs a grid is made of, and which cell of its table each fills."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from emanet_jax import parts
from emanet_jax.errors import UserError
from emanet_jax.models import ema_unit
from emanet_jax.models.em_attention import BASIS_NORMS
from emanet_jax.models.segmenter import create_model

GRIDS = ('stages', 'bases', 'heads')
STAGES = tuple(range(1, 9))

# What the defaults of the heads' options are made for, see `_fitted`.
_SIDE = 65

Cell = tuple[str, str]  # of a table: its row, its column


@dataclasses.dataclass(frozen=True)
class Run:
  """One training, and what is scored of it.

  Attributes:
    name: Of its workdir, below the grid's folder.
    seed: Of initialisation, dropout, shuffling and augmentation.
    changes: Dotted keys of the configuration, but for the seed, to values.
    evaluations: Cell to what changes for its evaluation only.
  """

  name: str
  seed: int
  changes: Mapping[str, Any]
  evaluations: Mapping[Cell, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Grid:
  """Runs that make a table together.

  Attributes:
    name: Of its folder and files.
    title: What it compares.
    corner: What its rows are, what its columns are.
    rows: Names, in order.
    columns: Names, in order.
    runs: In the order in which they are made: a seed after the other.
  """

  name: str
  title: str
  corner: tuple[str, str]
  rows: Sequence[str]
  columns: Sequence[str]
  runs: Sequence[Run]


def create(
  what: str,
  config: ml_collections.ConfigDict,
  seeds: Sequence[str],
  names: Sequence[str] = (),
) -> Grid:
  """A grid as the flags say it.

  Args:
    what: One of GRIDS.
    config: Of all runs.
    seeds: Whole numbers.
    names: Of heads, for that grid alone.

  Raises:
    UserError: Seeds that are none; or heads that are not known, are given twice
      or are for another grid.
  """
  numbers = [int(seed) for seed in seeds if seed.strip().isdecimal()]
  if not numbers or len(set(numbers)) < len(seeds):
    raise UserError(
      f'--seeds={",".join(seeds)}: give whole numbers ≥ 0, each once, as '
      '--seeds=0,1,2'
    )
  if what == 'heads':
    return heads(config, numbers, names)
  if names:
    raise UserError(f'--heads is for the grid of heads, not for {what}')
  return stages(config, numbers) if what == 'stages' else bases(config, numbers)


def stages(config: ml_collections.ConfigDict, seeds: Sequence[int]) -> Grid:
  """Rounds of EM in training against those in evaluation (paper, section 4).

  One training for each number; evaluated with all numbers.

  Args:
    config: Of all runs; its head must be `ema`.
    seeds: Of the runs, each.
  """
  _check_ema(config, 'stages')
  rows = [str(count) for count in STAGES]
  runs = [
    Run(
      f'T{count}_seed{seed}',
      seed,
      {'model.head.num_stages': count},
      {
        (str(count), str(evaluated)): {'model.head.eval_stages': evaluated}
        for evaluated in STAGES
      },
    )
    for seed in seeds
    for count in STAGES
  ]
  title = 'rounds of EM in training × in evaluation'
  return Grid('stages', title, ('T_train', 'T_eval'), rows, rows, runs)


def bases(config: ml_collections.ConfigDict, seeds: Sequence[int]) -> Grid:
  """How μ⁰ is kept against how bases are normalised (paper, section 4).

  Bases that are learnt need gradients through EM: they alone are trained with
  `gradient='full'`, the others as the configuration says.

  Args:
    config: Of all runs; its head must be `ema`.
    seeds: Of the runs, each.
  """
  _check_ema(config, 'bases')
  runs = []
  rows, columns = ema_unit.MAINTENANCES[::-1], BASIS_NORMS[::-1]
  for seed, row, column in itertools.product(seeds, rows, columns):
    changes = {'model.head.maintenance': row, 'model.head.basis_norm': column}
    if row == 'parameter':
      changes['model.head.gradient'] = 'full'
    name = f'{row}_{column}_seed{seed}'
    runs.append(Run(name, seed, changes, {(row, column): {}}))
  title = 'how μ⁰ is kept × how bases are normalised'
  corner = ('maintenance', 'basis_norm')
  return Grid('bases', title, corner, rows, columns, runs)


def heads(
  config: ml_collections.ConfigDict,
  seeds: Sequence[int],
  names: Sequence[str] = (),
) -> Grid:
  """Heads beside one another: the same backbone, data, steps and batches.

  The configuration's own head stays as it is; of the others see `_fitted`.

  Args:
    config: Of all runs.
    seeds: Of the runs, each.
    names: Of the heads; all that there are where it is empty.

  Raises:
    UserError: An unknown name, or one that is given twice.
  """
  names = list(names) or parts.HEADS.names()
  if len(set(names)) < len(names):
    raise UserError(f'--heads={",".join(names)}: give each head once')
  changes = {name: _fitted(name, config) for name in names}
  runs = [
    Run(f'{name}_seed{seed}', seed, changes[name], {(name, 'mIoU'): {}})
    for seed in seeds
    for name in names
  ]
  title = 'heads at equal backbone, data, steps and batch'
  return Grid('heads', title, ('head', ''), names, ['mIoU'], runs)


def configure(
  config: ml_collections.ConfigDict, run: Run
) -> ml_collections.ConfigDict:
  """A run's configuration, from that of all runs; it measures mIoU."""
  measured = {'eval.metrics.iou.enabled': True}
  return changed(config, {**measured, 'seed': run.seed, **run.changes})


def changed(
  config: ml_collections.ConfigDict, changes: Mapping[str, Any]
) -> ml_collections.ConfigDict:
  """A configuration with other values at dotted keys."""
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(dict(changes))
  return config


def _fitted(name: str, config: ml_collections.ConfigDict) -> dict[str, Any]:
  """A head's choice, as wide as the configuration's own, for its crops.

  Defaults are those of the papers' networks, 512 channels wide, with crops of
  513 at output stride 8. Widths (`…channels`) shrink or grow as that of the
  configuration's head does from its own default; dilations (`rates`) as the
  side of a crop's features does from 65; and `mask_size` is 2·n - 1 for n rows
  of such a crop, shrunk by half, as its authors have it. All else is default.
  """
  own = config.model.head
  options = parts.HEADS.options(name)
  if name == own.name:
    return {}
  usual = parts.HEADS.options(own.name).get('channels')
  width = own.channels / usual if usual else 1.0
  stride = create_model(config.model, num_classes=1).output_stride
  side = (config.data.crop_size - 1) // stride + 1
  fitted = {
    key: max(1, round(value * width))
    for key, value in options.items()
    if key.endswith('channels')
  }
  if 'rates' in options:
    rates = [max(1, round(rate * side / _SIDE)) for rate in options['rates']]
    fitted['rates'] = tuple(rates)
  if 'mask_size' in options:
    fitted['mask_size'] = 2 * ((side + 1) // 2) - 1
  found = {'name': name, **fitted}
  return {f'model.head.{key}': value for key, value in found.items()}


def _check_ema(config: ml_collections.ConfigDict, what: str) -> None:
  if config.model.head.name != 'ema':
    raise UserError(
      f'{what} is about EM attention, but model.head.name is '
      f"{config.model.head.name!r}; leave it at 'ema'"
    )
