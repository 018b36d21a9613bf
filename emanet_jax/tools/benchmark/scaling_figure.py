"""Draws how time and memory grow with each side of the problem, log-log."""

import os
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from emanet_jax.figures import FAINT, GREY, INK, save_png, style

_AXES = {
  'N': 'feature pixels N',
  'K': 'bases K',
  'T': 'rounds T',
}
_MEASURES = {
  'seconds': ('seconds a forward pass', 1.0),
  'planned_bytes': ('planned memory, GB', 1e9),
}
_COLORS = {
  'EM attention': '#1f5f99',
  'non-local attention': '#d9622b',
  'EM attention unit': '#2b8a5c',
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
  title = f'One image on {result["device"]}; the power each curve grows with'
  figure.suptitle(title, color=INK, fontsize=11, x=0.01, ha='left')
  save_png(path, figure)


def _draw(axes: Axes, curves: list, over: str, measure: str) -> None:
  style(axes)
  axes.grid(axis='x', color=FAINT, linewidth=0.8)
  axes.set_xscale('log')
  axes.set_yscale('log')
  _, unit = _MEASURES[measure]
  dashes: dict[str, list] = {}
  for curve in curves:
    subject = curve['name'].partition(',')[0]
    color = _COLORS[subject]
    seen = dashes.setdefault(subject, ['-', '--', ':', '-.'])
    run = [p for p in curve['points'] if p['seconds']]
    values = [
      (p[measure][0] if measure == 'seconds' else p[measure]) / unit
      for p in run
    ]
    slope = curve['slopes'][measure]
    power = '' if slope is None else f': {over}^{slope:.2f}'
    axes.plot(
      [p['value'] for p in run],
      values,
      linestyle=seen.pop(0),
      marker='o',
      markersize=3.5,
      linewidth=1.4,
      color=color,
      label=curve['name'] + power,
    )
    for point in curve['points']:
      if measure == 'planned_bytes' and not point['seconds'] and point[measure]:
        place = point['value'], point[measure] / unit
        axes.plot(*place, 'o', markerfacecolor='white', color=color)
  ticks = sorted({p['value'] for c in curves for p in c['points']})
  axes.set_xticks(ticks, [f'{tick:,}' for tick in ticks])
  axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=20))
  axes.yaxis.set_major_formatter('{x:g}')
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_minor_locator(NullLocator())
  axes.legend(
    loc='upper left',
    bbox_to_anchor=(0, 1.0),
    frameon=False,
    fontsize=7.5,
    labelcolor=INK,
  )
  low, high = axes.get_ylim()  # room for the legend
  axes.set_ylim(low, high * (high / low) ** (0.07 * (1 + len(curves))))
