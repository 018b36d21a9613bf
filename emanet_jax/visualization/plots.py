"""Draws figures of numbers: confusion matrices and training curves."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from emanet_jax.visualization.figures import (
  BLUE,
  FAINT,
  GREEN,
  GREY,
  INK,
  ORANGE,
  save_png,
  style,
)

_SCORES = ('mIoU', 'pAcc')
# More numbers than this make a matrix unreadable; its colours still tell.
_MOST_ANNOTATED = 25


def confusion_png(
  path: str | os.PathLike[str],
  hist: Integer[np.ndarray, 'classes classes'],
  class_names: Sequence[str],
  title: str = '',
) -> None:
  """Draws a confusion matrix: which share of a class is taken for which.

  Args:
    path: the PNG file.
    hist: pixel counts, rows = label, columns = prediction; each row is divided
      by its sum, and a row without pixels is left grey. Colours follow the
      square root of the share, so that a few per cent still show.
    class_names: C names, in the order of the classes.
    title: Printed above, such as the scores.
  """
  count = len(hist)
  font = float(np.interp(count, [25, 60, 171], [9, 7, 5.5]))
  # Inches: a cell holds a number or, beyond that, its name's line of text.
  cell = 0.36 if count <= _MOST_ANNOTATED else 1.3 * font / 72
  side = max(cell * count, 3.4)
  names = 0.58 * font / 72 * max(map(len, class_names)) + 0.45
  width, height = names + side + 0.85, names + side + 0.6
  figure = Figure(figsize=(width, height))
  box = (names / width, names / height, side / width, side / height)
  axes = figure.add_axes(box)
  image = _draw_matrix(axes, hist, class_names, font)
  right = (names + side + 0.15) / width
  bar = figure.add_axes((right, box[1], 0.12 / width, box[3]))
  figure.colorbar(image, cax=bar, format='%d %%')
  bar.tick_params(length=0, labelsize=8, labelcolor=INK)
  bar.spines[:].set_visible(False)
  axes.set_title(title, {'fontsize': 10, 'color': INK}, loc='left', pad=10)
  save_png(path, figure)


def curves_png(
  path: str | os.PathLike[str], records: Sequence[Mapping[str, Any]]
) -> None:
  """Draws how a run went: loss, learning rate and the scores seen on the way.

  Args:
    path: the PNG file.
    records: as `metric_writer.read_metrics` gives them; read are 'loss' and
      'learning_rate' of the split 'train', and 'mIoU' and 'pAcc' (fractions)
      of the split 'eval'. What no record gives a finite value gets no panel.
  """
  panels = [
    (3.0, _draw_loss, [_series(records, 'train', 'loss')]),
    (0.9, _draw_rate, [_series(records, 'train', 'learning_rate')]),
    (2.4, _draw_scores, [_series(records, 'eval', n) for n in _SCORES]),
  ]
  panels = [p for p in panels if np.isfinite(np.vstack(p[2])[:, 1]).any()]
  heights = [height for height, _, _ in panels] or [2.0]
  figure = Figure(figsize=(7.2, 0.6 + sum(heights)), layout='constrained')
  grid = figure.subplots(
    len(heights), sharex=True, squeeze=False, height_ratios=heights
  )[:, 0]
  for axes, (_, draw, series) in zip(grid, panels, strict=False):
    _style(axes)
    draw(axes, *series)
  if panels:
    grid[-1].set_xlabel('training step', color=INK)
    figure.align_ylabels(grid)
  else:
    grid[0].set_axis_off()
    grid[0].text(0.5, 0.5, 'nothing recorded', color=GREY, ha='center')
  save_png(path, figure)


def _draw_matrix(
  axes: Axes, hist: np.ndarray, class_names: Sequence[str], font: float
) -> AxesImage:
  labelled = hist.sum(axis=1, keepdims=True)
  percent = np.full(hist.shape, np.nan)
  np.divide(100 * hist, labelled, out=percent, where=labelled > 0)
  image = axes.imshow(percent, cmap='Blues', norm=PowerNorm(0.5, 0, 100))
  axes.set_facecolor(FAINT)  # Shows where a row has no pixels.
  axes.spines[:].set_visible(False)
  for axis, title in ((axes.xaxis, 'prediction'), (axes.yaxis, 'label')):
    axis.set_ticks(range(len(hist)), class_names, fontsize=font, color=INK)
    axis.set_ticks(np.arange(len(hist) - 1) + 0.5, minor=True)
    axis.set_label_text(title, color=GREY)
  axes.tick_params(axis='x', labelrotation=90)
  axes.tick_params(which='both', length=0)
  axes.grid(which='minor', color='white', linewidth=font / 12)
  if len(hist) <= _MOST_ANNOTATED:
    _annotate(axes, percent)
  return image


def _annotate(axes: Axes, percent: np.ndarray) -> None:
  for row, column in zip(*np.nonzero(percent >= 0.5), strict=True):
    value = percent[row, column]
    axes.text(
      column,
      row,
      f'{value:.0f}',
      ha='center',
      va='center',
      fontsize=8,
      color='white' if value > 35 else INK,
    )


def _series(
  records: Sequence[Mapping[str, Any]], split: str, name: str
) -> Float[np.ndarray, 'points 2']:
  """Collects (step, value) in the order of steps; nan for a null value."""
  points = [
    (r['step'], np.nan if r[name] is None else r[name])
    for r in records
    if r['split'] == split and name in r
  ]
  return np.array(sorted(points, key=lambda p: p[0]), float).reshape(-1, 2)


def _smooth(values: np.ndarray) -> np.ndarray:
  """Averages over a centred window of 1/25 of the points, leaving out nan."""
  index = np.arange(len(values))
  # Near the start no window looks further ahead than back: a steep fall there
  # would come out flat.
  half = np.minimum(len(values) // 50, index)
  first, last = index - half, np.minimum(index + half + 1, len(values))
  known = np.isfinite(values)
  total = np.cumsum(np.append(0.0, np.where(known, values, 0)))
  count = np.cumsum(np.append(0, known))
  with np.errstate(invalid='ignore'):
    return (total[last] - total[first]) / (count[last] - count[first])


def _style(axes: Axes) -> None:
  style(axes)
  axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
  axes.xaxis.set_major_formatter(StrMethodFormatter('{x:,.0f}'))


def _draw_loss(axes: Axes, loss: np.ndarray) -> None:
  # A lone point has no line to be seen by.
  marker = 'o' if len(loss) == 1 else None
  axes.plot(*loss.T, color=BLUE, alpha=0.3, linewidth=0.8)
  smooth = _smooth(loss[:, 1])
  axes.plot(loss[:, 0], smooth, color=BLUE, linewidth=1.8, marker=marker)
  axes.set_ylabel('training loss', color=INK)
  # A lone spike would flatten all the rest.
  top = np.nanquantile(loss[:, 1], 0.998)
  axes.set_ylim(0, max(1.1 * top, 1e-3))


def _draw_rate(axes: Axes, rate: np.ndarray) -> None:
  marker = 'o' if len(rate) == 1 else None
  axes.plot(*rate.T, color=ORANGE, linewidth=1.4, marker=marker)
  axes.fill_between(*rate.T, color=ORANGE, alpha=0.12, linewidth=0)
  axes.set_ylim(bottom=0)
  axes.yaxis.set_major_locator(MaxNLocator(2))
  axes.set_ylabel('learning\nrate', color=INK)


def _draw_scores(axes: Axes, miou: np.ndarray, pacc: np.ndarray) -> None:
  for name, series, color in (('mIoU', miou, GREEN), ('pAcc', pacc, GREY)):
    if not np.isfinite(series[:, 1]).any():
      continue
    step, percent = series[:, 0], 100 * series[:, 1]
    best = np.nanargmax(percent)
    axes.plot(
      step,
      percent,
      color=color,
      marker='o',
      markersize=4,
      linewidth=1.4,
      label=f'{name}, best {percent[best]:.2f} at {step[best]:,.0f}',
    )
  axes.set_ylabel('evaluation, %', color=INK)
  axes.margins(y=0.15)
  axes.legend(loc='best', frameon=False, fontsize=8, labelcolor=INK)
