"""The networks of the EMANet paper's table of costs, and what it prints.

Table 1: ResNet-101 with output stride 8, 513 × 513 pixels, no classifier; of a
head what it adds. Each has a rule of its own:

* ResNet-101: the backbone alone, all by torchstat's rules; memory in MiB.
* EMANet: the 3×3 convolution and the EMA unit, with the products of EM's three
  rounds and the bases, without the layers behind them; memory not by
  torchstat's rule, but as millions of elements of all arrays that are made.
* DeepLabV3: the head of 256 channels, projected by 1×1, without its classifier.
* PSANet: the official form, with the convolutions that make its masks (here
  products, 'offsets') but not the attention by them; and as if its
  last 3×3 convolution read the 2048 attended channels and not the backbone's
  4096 concatenated ones.
"""

import dataclasses
from typing import Any

from emanet_jax.tools.model_table.counting import Cost, total

LEFT_OUT = (
  'EMANet (256) prints 0.6 % more multiply-adds than by the rule that fits '
  'EMANet (512). Left out is DeepLabV3+: what is printed of it, 84.1 G and '
  '16.3 M, fits no form that was tried; the nearest is the plain decoder with '
  '85.1 G and 16.8 M.'
)
_PIXELS = 65 * 65  # of the features


@dataclasses.dataclass(frozen=True)
class Printed:
  """A row of the table.

  Attributes:
    title: Of the network.
    part: What is counted: 'backbone' or 'head'.
    options: Of `model.head`, its name among them.
    shares: Of modules that count only in part, by their paths.
    products: Modules whose products count that are no convolution's.
    multiply_adds: As printed, in 10⁹.
    parameters: As printed, in 10⁶.
    memory: As printed, in 10⁶; None where it is not known here.
  """

  title: str
  part: str
  options: dict[str, Any]
  shares: dict[str, float]
  products: tuple[str, ...]
  multiply_adds: float
  parameters: float
  memory: float | None = None


def _emanet(channels: int, *figures: float) -> Printed:
  return Printed(
    f'EMANet ({channels})',
    'head',
    {'name': 'ema', 'channels': channels},
    {'head/conv_out': 0.0, 'head/classifier': 0.0},
    ('head/ema_unit',),
    *figures,
  )


ROWS = (
  Printed(
    'ResNet-101', 'backbone', {'name': 'fcn'}, {}, (), 190.6, 42.6, 2603.0
  ),
  _emanet(256, 21.1, 4.87, 12.3),
  _emanet(512, 43.1, 10.0, 22.1),
  Printed(
    'DeepLabV3',
    'head',
    {'name': 'deeplabv3', 'channels': 256, 'projection_size': 1},
    {'head/classifier': 0.0},
    (),
    *(63.4, 15.5),
  ),
  Printed(
    'PSANet',
    'head',
    {'name': 'psa'},
    {'head/classifier': 0.0, 'head/conv_cat': 0.5},
    ('head/collect/offsets', 'head/distribute/offsets'),
    *(56.3, 18.5),
  ),
)


def counted(printed: Printed, cost: Cost) -> dict[str, float]:
  """A row by the paper's rules, in the units of `Printed`."""

  def sum_of(counts):
    return total(counts, printed.part, printed.shares)

  multiply_adds = sum_of(cost.convolutions)
  for module in printed.products:
    multiply_adds += total(cost.products, module)
  found = {
    'multiply_adds': (multiply_adds + sum_of(cost.layers)) / 1e9,
    'parameters': sum_of(cost.parameters) / 1e6,
  }
  if printed.part == 'backbone':
    found['memory'] = 4 * sum_of(cost.outputs) / 2**20
  elif printed.options['name'] == 'ema':
    found['memory'] = emanet_elements(printed.options['channels']) / 1e6
  return found


def emanet_elements(channels: int, bases: int = 64, rounds: int = 3) -> int:
  """Elements of all arrays that EMANet adds, which the paper calls memory.

  Nine maps of the channels: convolution, normalisation and ReLU before the
  unit, its first convolution, the re-estimate and its ReLU, the second
  convolution, its normalisation, and the last ReLU, which takes the sum with
  it. Each round makes three maps of the bases (affinities, responsibilities and
  those divided by their sums), and the bases twice (sums, and normalised ones).
  It is found, not told: 22.10 and 12.27 millions for the printed 22.1 and 12.3.
  """
  maps = 9 * _PIXELS * channels
  return maps + rounds * (3 * _PIXELS * bases + 2 * channels * bases)
