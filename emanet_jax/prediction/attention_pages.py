"""Pages on the bases of EM attention, and on what a pixel attends to."""

import os
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from emanet_jax.prediction.attention_maps import Attention
from emanet_jax.runtime.places import AnyPath
from emanet_jax.visualization.figures import Panel, Row, page, save_png
from emanet_jax.visualization.overlays import (
  basis_colors,
  distinct_bases,
  heat_map,
  overlay,
)

_COLUMNS = 8
_NUM_BASES = 6  # drawn where nobody chose
_MARK = (255, 40, 40)


def create_pages(
  bases: Sequence[int], pixel: Sequence[int], has_bases: bool = True
) -> dict[str, Callable[[AnyPath, Attention, str], None]]:
  """What draws the pages of a photo, by the name of the page.

  Args:
    bases: To be drawn; none: those that differ most, in each photo.
    pixel: Row and column in the upright photo, or nothing.
    has_bases: Of the network; one without has the page of the pixel alone.

  Returns:
    Functions of (path of the PNG, attention, title).
  """
  pages = _pages_of_bases(bases) if has_bases else {}
  draw = pixel_page if has_bases else receiving_page
  if pixel:
    pages[f'pixel_{pixel[0]}_{pixel[1]}'] = lambda path, seen, title: draw(
      path, seen, (pixel[0], pixel[1]), title
    )
  return pages


def _pages_of_bases(bases: Sequence[int]) -> dict[str, Callable]:
  def chosen(attention):
    return list(bases) or distinct_bases(attention.stages[-1], _NUM_BASES)

  named = ''.join(f'_{basis}' for basis in bases)
  return {
    'all_bases': lambda path, seen, title: bases_page(
      path, seen, range(seen.stages.shape[-1]), title
    ),
    f'bases{named}': lambda path, seen, title: bases_page(
      path, seen, chosen(seen), title
    ),
    f'stages{named}': lambda path, seen, title: stages_page(
      path, seen, chosen(seen), title
    ),
  }


def bases_page(
  path: str | os.PathLike[str],
  attention: Attention,
  bases: Sequence[int],
  title: str,
) -> None:
  """Draws the photo, the strongest basis of each pixel, and single bases.

  Args:
    path: The PNG file.
    attention: Of the photo; Z of the last stage is drawn.
    bases: Their indices; with all of them this is a contact sheet.
    title: May be empty.
  """
  z = attention.stages[-1]
  maps = attention.drawn(z)
  panels = [Panel(attention.picture()), Panel(_strongest(attention, maps))]
  panels += [_basis_panel(attention, maps, z, basis) for basis in bases]
  columns = min(_COLUMNS, len(panels))
  headers = ['photo', 'strongest basis', 'responsibility of single bases']
  rows = [
    Row('', '', panels[i : i + columns]) for i in range(0, len(panels), columns)
  ]
  headers = (headers + columns * [''])[:columns]
  save_png(path, page(rows, headers, 1.9, title))


def stages_page(
  path: str | os.PathLike[str],
  attention: Attention,
  bases: Sequence[int],
  title: str,
) -> None:
  """Draws how bases find their places, a row for each stage of EM."""
  rows, before = [], None
  for stage, z in enumerate(attention.stages, start=1):
    maps = attention.drawn(z)
    strongest = z.argmax(axis=-1)
    note = ''
    if before is not None:
      changed = 100 * np.mean(strongest != before)
      note = f'{changed:.1f} % of pixels have changed their strongest basis'
    before = strongest
    panels = [Panel(_strongest(attention, maps))]
    panels += [_basis_panel(attention, maps, z, basis) for basis in bases]
    rows.append(Row(f'stage {stage}', note, panels))
  headers = ['strongest basis', *(f'basis {basis}' for basis in bases)]
  save_png(path, page(rows, headers, 1.9, title))


def pixel_page(
  path: str | os.PathLike[str],
  attention: Attention,
  pixel: tuple[int, int],
  title: str,
  num_bases: int = 4,
) -> None:
  """Draws which bases own a pixel, and where else these are.

  Args:
    path: The PNG file.
    attention: Of the photo.
    pixel: Row and column in the upright photo.
    title: May be empty.
    num_bases: How many owners are drawn.
  """
  z = attention.stages[-1]
  maps, row = attention.drawn(z), z[attention.at(pixel)]
  related = attention.drawn((z @ row)[..., None])[0]
  panels = [
    Panel(_marked(attention, pixel)),
    Panel(heat_map(attention.picture(), related)),
  ]
  for basis in np.argsort(-row)[:num_bases].tolist():
    note = f'basis {basis} owns {100 * row[basis]:.0f} %'
    panels.append(_basis_panel(attention, maps, z, basis, note))
  headers = ['pixel', 'where its bases are', 'the bases that own it']
  headers = (headers + len(panels) * [''])[: len(panels)]
  save_png(path, page([Row('', '', panels)], headers, 1.9, title))


def receiving_page(
  path: str | os.PathLike[str],
  attention: Attention,
  pixel: tuple[int, int],
  title: str,
) -> None:
  """Draws what a pixel attends to, by each attention that the head has.

  Args:
    path: The PNG file.
    attention: Of the photo and the pixel, from a head without bases.
    pixel: Row and column in the upright photo.
    title: May be empty.
  """
  panels = [Panel(_marked(attention, pixel))]
  maps = attention.drawn(np.stack([*attention.maps.values()], axis=-1))
  for drawn, weights in zip(maps, attention.maps.values(), strict=True):
    note = f'weights from {weights.min():.2g} to {weights.max():.2g}'
    panels.append(Panel(heat_map(attention.picture(), drawn), note))
  headers = ['pixel', *attention.maps]
  save_png(path, page([Row('', '', panels)], headers, 1.9, title))


def _marked(attention: Attention, pixel: tuple[int, int]) -> np.ndarray:
  """The photo with a mark on a pixel."""
  marked = attention.picture().copy()
  scale = attention.scale * marked.shape[0] / attention.image.shape[0]
  place = [round((n + 0.5) * scale - 0.5) for n in pixel[::-1]]
  radius = max(2, max(marked.shape) // 40)
  cv2.circle(marked, place, radius, (255, 255, 255), max(1, radius // 2))
  cv2.circle(marked, place, max(1, radius // 2), _MARK, -1)
  return marked


def _basis_panel(
  attention: Attention,
  maps: np.ndarray,
  z: np.ndarray,
  basis: int,
  note: str = '',
) -> Panel:
  """A basis as a heat map from its least to its greatest value."""
  note = note or f'basis {basis}, max {z[..., basis].max():.2f}'
  frame = tuple((basis_colors(z.shape[-1])[basis] / 255).tolist())
  return Panel(heat_map(attention.picture(), maps[basis]), note, frame)


def _strongest(attention: Attention, maps: np.ndarray) -> np.ndarray:
  """The photo, its pixels in the colour of their strongest basis."""
  colors = basis_colors(len(maps))
  return overlay(attention.picture(), maps.argmax(axis=0), colors, alpha=0.7)
