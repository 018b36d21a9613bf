"""What all figures share: colours, a page of picture rows, a safe way to save.

Everything uses matplotlib's object interface: no global figure, no display,
safe beside other threads.
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from emanet_jax.runtime import atomic

INK, GREY, FAINT = '#1f2933', '#7b8794', '#e4e7eb'
BLUE, ORANGE, GREEN = '#1f5f99', '#d9622b', '#2b8a5c'

# A page's measures in inches.
_MARGIN, _GAP, _CAPTION, _TITLE, _HEADER = 0.15, 0.06, 0.27, 0.4, 0.2
_LEGEND_LINE, _LEGEND_ENTRY = 0.22, 1.3
_TALLEST = 2.0  # height of a picture over its column's width
_LEAST = 0.05  # inches of a picture's side


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
  """One picture of a page.

  Attributes:
    image: RGB, 0…255.
    note: short text in the picture's corner.
    frame: colour of its frame.
  """

  image: UInt8[np.ndarray, 'h w 3']
  note: str = ''
  frame: str | tuple[float, float, float] = FAINT


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
  """One line of pictures of a page.

  Attributes:
    name: printed at its upper left.
    note: printed at its upper right.
    panels: the pictures, all of one size.
  """

  name: str
  note: str
  panels: Sequence[Panel]


def save_png(
  path: str | os.PathLike[str], figure: Figure, dpi: int = 200
) -> None:
  """Writes a figure so that a reader never sees half of it.

  Args:
    path: the PNG file; its folder is made when absent.
    figure: what to draw.
    dpi: pixels per inch.
  """
  FigureCanvasAgg(figure)
  with atomic.replacing(path) as temporary:
    figure.savefig(temporary, format='png', dpi=dpi, facecolor='white')


def style(axes: Axes) -> None:
  """Gives a plot of numbers its lines and colours."""
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color(GREY)
  axes.tick_params(colors=GREY, labelcolor=INK, labelsize=8)
  axes.grid(axis='y', color=FAINT, linewidth=0.8)
  axes.set_axisbelow(True)


def page(
  rows: Sequence[Row],
  headers: Sequence[str],
  panel_width: float,
  title: str = '',
  legend: Sequence[tuple[str, tuple[float, float, float]]] = (),
) -> Figure:
  """Lays rows of pictures out under common headers.

  Sizes are reckoned in inches here rather than left to a layout engine, so
  that pictures of any shape stand close together, undistorted.

  Args:
    rows: at least one.
    headers: one a column, printed above the first row.
    panel_width: inches.
    title: above all else; may be empty.
    legend: names and RGB in [0, 1], printed below.

  Returns:
    The figure.

  Raises:
    ValueError: there are no rows.
  """
  if not rows:
    raise ValueError('a page needs at least one example, got none')
  columns = len(headers)
  width = 2 * _MARGIN + columns * panel_width + (columns - 1) * _GAP
  sizes = [_fitted(row.panels[0].image, panel_width) for row in rows]
  heights = [height for _, height in sizes]
  per_line = max(1, int((width - 2 * _MARGIN) / _LEGEND_ENTRY))
  legend_height = -(-len(legend) // per_line) * _LEGEND_LINE
  height = 2 * _MARGIN + sum(heights) + len(rows) * _CAPTION + _HEADER
  height += (_TITLE if title else 0) + (legend_height if legend else 0)
  figure = Figure(figsize=(width, height))
  top = height - _MARGIN
  if title:
    _text(figure, _MARGIN, top, title, fontsize=12.0, weight='bold', va='top')
    top -= _TITLE
  for column, header in enumerate(headers):
    middle = _MARGIN + column * (panel_width + _GAP) + panel_width / 2
    _text(figure, middle, top, header, ha='center', va='top')
  top -= _HEADER
  for row, size in zip(rows, sizes, strict=True):
    top -= _CAPTION + size[1]
    _draw_row(figure, row, top, panel_width, size)
  if legend:
    _draw_legend(figure, legend, per_line, _MARGIN / width)
  return figure


def _fitted(image: np.ndarray, width: float) -> tuple[float, float]:
  """Inches of a picture: so wide, or narrower where it would be too tall."""
  rows, columns = image.shape[:2]
  height = min(width * rows / columns, _TALLEST * width)
  return max(height * columns / rows, _LEAST), max(height, _LEAST)


def _draw_row(
  figure: Figure,
  row: Row,
  bottom: float,
  column_width: float,
  size: tuple[float, float],
) -> None:
  """Draws a row; its bottom, a column's width and pictures are in inches."""
  width, height = size
  page_width, page_height = figure.get_size_inches()
  caption = bottom + height + 0.08
  _text(figure, _MARGIN, caption, row.name, weight='bold')
  _text(figure, page_width - _MARGIN, caption, row.note, GREY, ha='right')
  for column, panel in enumerate(row.panels):
    left = _MARGIN + column * (column_width + _GAP)
    left += (column_width - width) / 2
    box = np.array([left, bottom, width, height])
    _draw_panel(figure, box / np.tile([page_width, page_height], 2), panel)


def _text(
  figure: Figure,
  left: float,
  bottom: float,
  text: str,
  color: str = INK,
  fontsize: float = 9.0,
  **how: str,
) -> None:
  """Prints text at a place given in inches."""
  width, height = figure.get_size_inches()
  figure.text(
    left / width,
    bottom / height,
    text,
    color=color,
    fontsize=fontsize,
    parse_math=False,  # A file's name may hold a '$'.
    **how,
  )


def _draw_panel(figure: Figure, box: np.ndarray, panel: Panel) -> None:
  axes = figure.add_axes(tuple(box))
  # 'auto': the box has the picture's shape, but for rounding.
  axes.imshow(panel.image, aspect='auto')
  axes.set_xticks([])
  axes.set_yticks([])
  axes.spines[:].set_color(panel.frame)
  axes.spines[:].set_linewidth(0.8 if panel.frame == FAINT else 2.0)
  if panel.note:
    axes.text(
      0.03,
      0.04,
      panel.note,
      transform=axes.transAxes,
      color='white',
      fontsize=7,
      bbox={'color': 'black', 'alpha': 0.6, 'linewidth': 0, 'pad': 1.5},
    )


def _draw_legend(
  figure: Figure,
  legend: Sequence[tuple[str, tuple[float, float, float]]],
  per_line: int,
  left: float,
) -> None:
  entries = [
    Patch(facecolor=color, edgecolor=GREY, linewidth=0.4, label=name)
    for name, color in legend
  ]
  drawn = figure.legend(
    handles=entries,
    loc='lower left',
    bbox_to_anchor=(left, 0.0),
    ncols=min(per_line, len(entries)),
    frameon=False,
    fontsize=8,
    handlelength=1.2,
    handleheight=0.9,
    borderaxespad=0.5,
    borderpad=0,
    labelcolor=INK,
  )
  for text in drawn.get_texts():
    text.set_parse_math(False)
