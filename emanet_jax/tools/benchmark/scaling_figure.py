"""Draws how time and memory grow with each side of the problem, log-log."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

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

_AXES = {
  'N': 'feature pixels N',
  'K': 'bases K',
  'T': 'stages T',
}
_MEASURES = {
  'seconds': ('seconds a forward pass', 1.0),
  'planned_bytes': ('planned memory, GB', 1e9),
}
_COLORS = {
  'EM attention': BLUE,
  'non-local attention': ORANGE,
  'EM attention unit': GREEN,
  'whole network': GREY,
}


def scaling_png(
  path: str | os.PathLike[str], result: Mapping[str, Any]
) -> None:
  """Draws the curves of `scaling.measure`, each with its power in the legend.

  A hollow point is planned memory of what does not fit and was not run.

  Args:
    path: The PNG file.
    result: As `scaling.measure` returns it.
  """
  figure = Figure(figsize=(13, 8.5), layout='constrained')
  grid = figure.subplots(len(_MEASURES), len(_AXES), sharex='col')
  for row, measure in zip(grid, _MEASURES, strict=True):
    for axes, over in zip(row, _AXES, strict=True):
      curves = [c for c in result['curves'] if c['over'] == over]
      _draw(axes, curves, over, measure)
  for axes, label in zip(grid[-1], _AXES.values(), strict=True):
    axes.set_xlabel(label, color=INK)
  for axes, (label, _) in zip(grid[:, 0], _MEASURES.values(), strict=True):
    axes.set_ylabel(label, color=INK)
  title = (
    f'One image on {result["device"]} ({result["machine"]}); legends: the '
    'power each curve grows with; hollow: does not fit, or too slow'
  )
  figure.suptitle(title, color=INK, fontsize=11, x=0.01, ha='left')
  save_png(path, figure)


def _draw(
  axes: Axes, curves: Sequence[Mapping[str, Any]], over: str, measure: str
) -> None:
  style(axes)
  axes.grid(axis='x', color=FAINT, linewidth=0.8)
  axes.set_xscale('log')
  axes.set_yscale('log')
  widest = max((curve['channels'] for curve in curves), default=0)
  for curve in curves:
    slope = curve['slopes'][measure]
    power = '' if slope is None else f': {over}^{slope:.2f}'
    run = [point for point in curve['points'] if point['seconds']]
    left_out = [point for point in curve['points'] if not point['seconds']]
    line = {'color': _COLORS[curve['subject']], 'linewidth': 1.4}
    axes.plot(
      *_places(run, measure),
      marker='o',
      markersize=3.5,
      linestyle='-' if curve['channels'] == widest else '--',
      label=f'{curve["subject"]}, C = {curve["channels"]}{power}',
      **line,
    )
    if measure == 'planned_bytes':
      places = _places(left_out, measure)
      axes.plot(*places, 'o', markerfacecolor='white', **line)
  ticks = sorted({p['value'] for c in curves for p in c['points']})
  _mark(axes, ticks, len(curves))


def _places(
  points: Sequence[Mapping[str, Any]], measure: str
) -> tuple[list[int], list[float]]:
  _, unit = _MEASURES[measure]
  known = [point for point in points if point[measure]]
  values = [point[measure] for point in known]
  if measure == 'seconds':
    values = [median for median, _, _ in values]
  return [p['value'] for p in known], [value / unit for value in values]


def _mark(axes: Axes, ticks: Sequence[int], curves: int) -> None:
  axes.set_xticks(ticks, [f'{tick:,}' for tick in ticks])
  axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=20))
  axes.yaxis.set_major_formatter('{x:g}')
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_minor_locator(NullLocator())
  axes.legend(loc='upper left', frameon=False, fontsize=7.5, labelcolor=INK)
  low, high = axes.get_ylim()  # room for the legend
  axes.set_ylim(low, high * (high / low) ** (0.075 * (1 + curves)))
