"""What a run of predictions leaves: files of each photo, and a report."""

import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError
from emanet_jax.prediction.attention_maps import Attention
from emanet_jax.prediction.photos import as_stored, encode_png
from emanet_jax.prediction.segment import Result
from emanet_jax.prediction.submission import Format
from emanet_jax.runtime.atomic import write
from emanet_jax.runtime.places import AnyPath
from emanet_jax.state.compatibility import model_of_today
from emanet_jax.visualization.overlays import overlay

Writer = Callable[[AnyPath, Result, Attention | None], None]


@dataclasses.dataclass(frozen=True)
class Writers:
  """What is written of each photo.

  Attributes:
    output: Folder of all results.
    by_path: What writes a file, by its path in there; {} stands for the photo's
      name.
  """

  output: AnyPath
  by_path: Mapping[str, Writer]

  def all_exist(self, name: str) -> bool:
    """Whether nothing is left to do for a photo of this name."""
    return all(self._path(path, name).exists() for path in self.by_path)

  def write(
    self, result: Result, attention: Attention | None, overwrite: bool
  ) -> None:
    """Writes what does not exist yet, or everything."""
    for template, write_file in self.by_path.items():
      path = self._path(template, result.photo.name)
      if overwrite or not path.exists():
        write_file(path, result, attention)

  def _path(self, template: str, name: str) -> AnyPath:
    return self.output / template.replace('{}', name)


def create_writers(
  output: AnyPath,
  spec: DatasetSpec,
  form: Format | None,
  probabilities: bool,
  pages: Mapping[str, Callable[[AnyPath, Attention, str], None]],
) -> Writers:
  """What to write.

  Args:
    output: Folder of all results.
    spec: Classes and palette.
    form: Of a test server, which replaces label maps and overlays.
    probabilities: Whether they are written.
    pages: Of attention, from `attention.create_pages`.
  """
  palette = np.array(spec.palette, np.uint8)

  def write_label(path, result, _):
    label = as_stored(result.label, result.orientation)
    write(path, encode_png(label, spec.palette))

  def write_overlay(path, result, _):
    write(path, encode_png(overlay(result.image, result.label, palette)))

  def write_submission(path, result, _):
    label = as_stored(result.label, result.orientation)
    write(path, form.encode(label, spec))

  def write_probabilities(path, result, _):
    content = io.BytesIO()
    stored = as_stored(result.probabilities, result.orientation)
    np.savez_compressed(content, probabilities=stored)
    write(path, content.getvalue())

  def write_page(draw):
    return lambda path, result, seen: draw(path, seen, result.photo.name)

  writers = {'labels/{}.png': write_label, 'overlays/{}.png': write_overlay}
  if form:
    writers = {f'submission/{form.path}': write_submission}
  if probabilities:
    writers['probabilities/{}.npz'] = write_probabilities
  for name, draw in pages.items():
    writers[f'attention/{{}}/{name}.png'] = write_page(draw)
  return Writers(output, writers)


@dataclasses.dataclass(frozen=True)
class Report:
  """What came of the photos.

  Attributes:
    predicted: Number of photos.
    skipped: Number of photos whose results all existed.
    failed: Where a photo lies, and what is wrong with it.
  """

  predicted: int
  skipped: int
  failed: Mapping[str, str]

  @property
  def total(self) -> int:
    """All photos."""
    return self.predicted + self.skipped + len(self.failed)


def check_provenance(
  output: AnyPath, origin: Mapping[str, Any], keeping: bool
) -> None:
  """Writes down what results come from, so that others do not mix with them.

  Args:
    output: Folder of all results.
    origin: What they come from, as JSON holds it.
    keeping: Whether some that exist are going to stay.

  Raises:
    UserError: Those have another origin.
  """
  path = output / 'origin.json'
  if keeping and path.is_file():
    then = json.loads(path.read_text())
    if _same_model(then, origin):
      then['model'] = origin['model']
    differing = [key for key in origin if then.get(key) != origin[key]]
    if differing:
      raise UserError(
        f'{output} holds results of another {" and ".join(differing)} (see '
        f'{path}). Give another --config.predict.output, or replace them with '
        '--config.predict.overwrite=True.'
      )
  write(path, json.dumps(origin, indent=2).encode() + b'\n')


def _same_model(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
  """Whether both networks are one, with options that were not there then."""
  if not (then.get('model') and now.get('model')):
    return False
  return model_of_today(then['model']) == model_of_today(now['model'])


def tell(report: Report, output: AnyPath) -> None:
  """Logs the report; raises a UserError when photos failed."""
  logging.info(
    'photos predicted: %d, skipped as their results exist: %d, failed: %d; %s',
    *(report.predicted, report.skipped, len(report.failed), output),
  )
  if report.failed:
    raise UserError(
      f'{len(report.failed)} of {report.total} photos failed; the others are '
      'done:\n  ' + '\n  '.join(report.failed.values())
    )
