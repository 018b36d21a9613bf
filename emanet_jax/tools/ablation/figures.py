"""A grid's scores as a picture: a heat map, or a bar for each row."""

import math
import os
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emanet_jax.tools.ablation.costs import Cost
from emanet_jax.tools.ablation.grids import Cell, Grid
from emanet_jax.tools.ablation.tables import Summary
from emanet_jax.visualization.figures import (
  BLUE,
  FAINT,
  GREY,
  INK,
  save_png,
  style,
)

_CELL = 0.95, 0.62  # inches, width and height


def draw(
  path: str | os.PathLike[str],
  grid: Grid,
  cells: Mapping[Cell, Summary],
  costs: Mapping[str, Cost],
  legend: str,
) -> None:
  """Draws a heat map, or bars where there is one column.

  Args:
    path: The PNG file.
    grid: Of the cells.
    cells: From `tables.summarize`.
    costs: By row, beside its bar.
    legend: What the numbers are.
  """
  rows, columns = len(grid.rows), len(grid.columns)
  bars = columns == 1
  width = 7.5 if bars else 2.4 + _CELL[0] * columns
  height = 1.4 + (0.34 if bars else _CELL[1]) * rows
  figure = Figure(figsize=(max(width, 6.5), height), layout='constrained')
  axes = figure.subplots()
  if bars:
    _draw_bars(axes, grid, cells, costs)
  else:
    _draw_map(axes, grid, cells)
  axes.set_title(grid.title, {'fontsize': 11, 'color': INK}, loc='left', pad=8)
  figure.supxlabel(legend, color=GREY, fontsize=7, x=0.01, ha='left', wrap=True)
  save_png(path, figure)


def _draw_map(axes: Axes, grid: Grid, cells: Mapping[Cell, Summary]) -> None:
  shape = len(grid.rows), len(grid.columns)
  means = 100 * np.array([x.mean for x in cells.values()]).reshape(shape)
  # A single value, or none at all, is drawn in the middle of the colours.
  low, high = (0, 1) if np.isnan(means).all() else _limits(means)
  axes.imshow(means, cmap='Blues', vmin=low, vmax=high, aspect='auto')
  axes.set_facecolor(FAINT)  # of what has no score
  axes.spines[:].set_visible(False)
  axes.tick_params(length=0, labelsize=9, labelcolor=INK)
  axes.set_yticks(range(shape[0]), grid.rows)
  axes.set_xticks(range(shape[1]), grid.columns)
  axes.set_ylabel(grid.corner[0], color=GREY)
  axes.set_xlabel(grid.corner[1], color=GREY)
  for (row, column), summary in zip(
    np.ndindex(*shape), cells.values(), strict=True
  ):
    dark = summary.mean * 100 > low + 0.6 * (high - low)
    axes.text(
      *(column, row, _annotation(summary)),
      ha='center',
      va='center',
      fontsize=9,
      color='white' if dark else INK,
    )


def _limits(means: np.ndarray) -> tuple[float, float]:
  low, high = np.nanmin(means), np.nanmax(means)
  return (low, high) if high > low else (low - 1, high + 1)


def _annotation(summary: Summary) -> str:
  if not summary.scores:
    return '✗' if summary.reasons else ''
  text = f'{100 * summary.mean:.2f}'
  if math.isnan(summary.spread):
    return text
  return f'{text}\n±{100 * summary.spread:.2f}'


def _draw_bars(
  axes: Axes,
  grid: Grid,
  cells: Mapping[Cell, Summary],
  costs: Mapping[str, Cost],
) -> None:
  style(axes)
  axes.grid(axis='y', visible=False)
  axes.grid(axis='x', color=FAINT, linewidth=0.8)
  axes.set_yticks(range(len(grid.rows)), grid.rows)
  axes.set_ylim(len(grid.rows) - 0.4, -0.6)
  ends = []
  for place, (row, summary) in enumerate(
    zip(grid.rows, cells.values(), strict=True)
  ):
    mean, spread = (
      0 if math.isnan(x) else 100 * x for x in (summary.mean, summary.spread)
    )
    axes.barh(place, mean, 0.6, xerr=spread or None, color=BLUE, ecolor=INK)
    ends.append(mean + spread)
    note = _annotation(summary).replace('\n', ' ')
    if row in costs:
      note += '  {} M, {} G'.format(*costs[row].millions())
    axes.annotate(
      note,
      (ends[-1], place),
      (4, 0),
      textcoords='offset points',
      va='center',
      fontsize=7.5,
      color=INK,
    )
  axes.set_xlabel('mIoU, %', color=INK)
  axes.set_xlim(0, 1.5 * max(*ends, 10))  # with room for the notes
