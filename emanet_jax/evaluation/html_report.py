"""An evaluation as one HTML page that needs nothing beside itself.

The numbers are prepared here and the pictures in `html_pictures`; `templates/`
says how they look.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from flax import traverse_util
from jaxtyping import Integer

from emanet_jax.config import as_plain_dict, default_config
from emanet_jax.data.spec import DatasetSpec
from emanet_jax.evaluation.html_pictures import create_figure
from emanet_jax.evaluation.scores import Scores

# More numbers than this make a matrix unreadable; its colours still tell.
_MOST_NUMBERS = 25
_MOST_CONFUSIONS = 12


def render(
  confusion: Integer[np.ndarray, 'classes classes'],
  scores: Scores,
  spec: DatasetSpec,
  pictures: Mapping[str, Sequence[Mapping[str, Any]]],
  facts: Mapping[str, Any],
  config: Mapping[str, Any],
) -> str:
  """Lays an evaluation out as HTML.

  Args:
    confusion: Pixel counts, rows are labels.
    scores: Of it.
    spec: Of the data set.
    pictures: Headings to pictures as `report.Evaluation` has them, with
      `miou` and `accuracy` if they are known.
    facts: What else there is to know, by name.
    config: The configuration, as plain dicts; {} leaves it out.

  Returns:
    The page.
  """
  name, value = next(iter(scores.summary.items()))
  template = _environment().get_template('report.html')
  return template.render(
    title=f'{spec.name}: {name} {_percent(value)}',
    name=spec.name,
    facts=facts,
    summary=scores.summary,
    columns=scores.per_class,
    classes=zip(
      spec.classes,
      spec.palette,
      zip(*scores.per_class.values(), strict=True),
      scores.share,
      strict=True,
    ),
    matrix=_matrix(confusion, spec.classes),
    has_numbers=spec.num_classes <= _MOST_NUMBERS,
    confusions=_confusions(confusion, spec.classes),
    sections={
      heading: [create_figure(picture, spec) for picture in members]
      for heading, members in pictures.items()
      if members
    },
    settings=_settings(config),
  )


def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name('templates')),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['percent'] = _percent
  return environment


def _percent(fraction: float, digits: int = 2) -> str:
  return '–' if np.isnan(fraction) else f'{100 * fraction:.{digits}f}'


def _matrix(
  confusion: np.ndarray, names: Sequence[str]
) -> list[tuple[str, int, list[tuple[int, float]]]]:
  """Rows of name, labelled pixels, and (pixels, share of them) per cell."""
  labelled = confusion.sum(axis=1)
  shares = confusion / np.maximum(labelled, 1)[:, None]
  return [
    (name, total, list(zip(counts, share, strict=True)))
    for name, total, counts, share in zip(
      *(names, labelled.tolist(), confusion.tolist(), shares.tolist()),
      strict=True,
    )
  ]


def _confusions(
  confusion: np.ndarray, names: Sequence[str]
) -> list[tuple[str, str, int, float]]:
  """Label, prediction, pixels, share of the label's; most pixels first."""
  wrong = confusion * (1 - np.eye(len(names), dtype=confusion.dtype))
  order = np.argsort(-wrong, axis=None, kind='stable')[:_MOST_CONFUSIONS]
  cells = zip(*np.unravel_index(order, wrong.shape), strict=True)
  return [
    (names[i], names[j], int(wrong[i, j]), wrong[i, j] / confusion[i].sum())
    for i, j in cells
    if wrong[i, j]
  ]


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
  """Key, value, and whether it is not the default, of every leaf."""
  usual = traverse_util.flatten_dict(as_plain_dict(default_config()), sep='.')
  return [
    (key, str(value), key not in usual or usual[key] != value)
    for key, value in traverse_util.flatten_dict(dict(config), sep='.').items()
  ]
