"""Photos to label maps, overlays, attention pages and test-server archives.

Results lie below `predict.output` (W/predict): `labels/NAME.png`, whose values
are classes and whose palette is the data set's; `overlays/NAME.png`; on demand
`probabilities/NAME.npz` and `attention/NAME/*.png`. NAME is the photo's path
below the input folder. Label maps and probabilities lie on the photo's pixels
as stored, pictures are upright (see `photos`).
"""

import collections
import concurrent.futures
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

import jax
import ml_collections
from absl import logging

from emanet_jax.config import as_plain_dict
from emanet_jax.data import datasets
from emanet_jax.data.preparation.prepare import prepared_directory
from emanet_jax.data.prepared import load_dataset
from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError
from emanet_jax.evaluation import settings
from emanet_jax.models.segmenter import create_model
from emanet_jax.prediction.attention_maps import create_attend
from emanet_jax.prediction.attention_pages import create_pages
from emanet_jax.prediction.outputs import (
  Report,
  Writers,
  check_provenance,
  create_writers,
  tell,
)
from emanet_jax.prediction.photos import Photo, find_photos, split_photos
from emanet_jax.prediction.segment import Failures, segment_photos
from emanet_jax.prediction.submission import get_format, pack
from emanet_jax.runtime import places
from emanet_jax.runtime.ownership import own
from emanet_jax.runtime.places import AnyPath
from emanet_jax.runtime.progress import Progress
from emanet_jax.state.inference_weights import (
  Trained,
  open_for_inference,
  restore_for_inference,
)

_AHEAD = 16  # results waiting to be written, at most


def predict(
  config: ml_collections.ConfigDict, workdir: str, step: int | None = None
) -> Report:
  """Predicts the photos that `config.predict` names; see the module.

  Args:
    config: See `emanet_jax.config`.
    workdir: Folder of the run.
    step: Of the checkpoint; None: the latest.

  Raises:
    UserError: What it needs is not there, which shows before anything is
      compiled; or, when all else is done, some photos failed.
  """
  _check(config)
  trained = open_for_inference(config, workdir, step)
  config = trained.config
  options = config.predict
  output = places.as_path(options.output or places.as_path(workdir) / 'predict')
  output = output.expanduser()
  places.check_folder(output)
  spec = get_spec(config.data.name, config.data.data_dir)
  form = None
  if options.submission:
    form = get_format(options.submission, spec.num_classes)
  given = _photos(config, spec, output)
  variables = restore_for_inference(trained, spec)
  attend, pages = None, {}
  if options.attention:
    models = _models_by_stage(config.model, spec.num_classes)
    chosen = options.bases, options.pixel
    attend, has_bases = create_attend(models, variables, *chosen)
    pages = create_pages(*chosen, has_bases)
  writers = create_writers(output, spec, form, options.probabilities, pages)
  # What a killed or repeated run has done already is not done again.
  waiting = [
    photo
    for photo in given
    if options.overwrite or not writers.all_exist(photo.name)
  ]
  with own(output):
    _check_provenance(trained, output, keeping=len(waiting) < len(given))
    failed = _run(config, spec, variables, waiting, writers, attend)
    predicted, skipped = len(waiting) - len(failed), len(given) - len(waiting)
    report = Report(predicted, skipped, failed)
    tell(report, output)
    if form:
      name = f'{options.submission}_{options.split or "photos"}{form.suffix}'
      archive = output / name
      pack(archive, output / 'submission', form, [p.name for p in given])
      logging.info('%s holds %d predictions', archive, len(given))
  return report


def _check(config: ml_collections.ConfigDict) -> None:
  """Raises a UserError for options that cannot be."""
  settings.check(config)
  settings.check_devices(config)
  options = config.predict
  if bool(options.input) == bool(options.split):
    raise UserError(
      f'predict.input is {options.input!r} and predict.split '
      f'{options.split!r}; give one: a photo, folder or pattern, or a split of '
      'a prepared data set'
    )
  if options.bases and min(options.bases) < 0:
    raise UserError(f'predict.bases is {options.bases}; they count from 0')
  if len(options.pixel) not in (0, 2) or min((*options.pixel, 0)) < 0:
    raise UserError(
      f'predict.pixel is {options.pixel}; give row and column, as (120, 64)'
    )
  if (options.bases or options.pixel) and not options.attention:
    raise UserError(
      'predict.bases and predict.pixel choose what attention pages show; ask '
      'for these with --config.predict.attention=True'
    )
  if jax.process_count() > 1:
    raise UserError(
      'predict runs as one process, with all of its devices; start one for '
      'each part of the photos instead of --distributed'
    )


def get_spec(name: str, data_dir: str) -> DatasetSpec:
  """Classes and palette; only a user's own are read from prepared records."""
  spec = datasets.get_dataset(name).SPEC
  if spec.classes:
    return spec
  try:
    return load_dataset(prepared_directory(name, data_dir)).spec
  except UserError as error:
    raise UserError(
      f'the classes of data set {name!r} are in its prepared records: {error} '
      '(--config.data.data_dir says where it lies)'
    ) from error


def _photos(
  config: ml_collections.ConfigDict, spec: DatasetSpec, output: AnyPath
) -> list[Photo]:
  if config.predict.input:
    return find_photos(config.predict.input, output)
  name = config.predict.dataset or config.data.name
  dataset = load_dataset(prepared_directory(name, config.data.data_dir))
  if dataset.spec.classes != spec.classes:
    raise UserError(
      f'predict.dataset {name} has other classes than {spec.name}, which the '
      'checkpoint is of'
    )
  return split_photos(dataset, config.predict.split)


def _models_by_stage(config: ml_collections.ConfigDict, num_classes: int):
  """The network with 1, 2, … stages of EM, up to those of evaluation.

  A head without stages has one network, which shows what attention it has.
  """
  if 'num_stages' not in config.head:
    return [create_model(config, num_classes)]
  config = config.copy_and_resolve_references()
  stages = config.head.eval_stages or config.head.num_stages
  models = []
  for stage in range(1, stages + 1):
    config.head.eval_stages = stage
    models.append(create_model(config, num_classes))
  return models


def _check_provenance(
  trained: Trained, output: AnyPath, *, keeping: bool
) -> None:
  """Keeps results of other weights, networks and protocols apart."""
  origin = {
    'checkpoint': str(trained.path),
    'model': as_plain_dict(trained.config)['model'],
    'protocol': dataclasses.asdict(settings.get_protocol(trained.config)),
  }
  check_provenance(output, json.loads(json.dumps(origin)), keeping)


def _run(
  config: ml_collections.ConfigDict,
  spec: DatasetSpec,
  variables: dict,
  waiting: Sequence[Photo],
  writers: Writers,
  attend,
) -> Mapping[str, str]:
  """Predicts and writes; returns what failed."""
  options = config.predict
  progress = Progress('predicting', len(waiting))
  failures = Failures(progress)
  results = segment_photos(
    create_model(config.model, spec.num_classes),
    variables,
    settings.get_protocol(config),
    waiting,
    failures,
    batch_size=settings.get_batch_size(config),
    shape_step=config.eval.shape_step,
    space=config.mesh.space,
    probabilities=options.probabilities,
    check=functools.partial(_check_pixel, options.pixel),
  )
  with concurrent.futures.ThreadPoolExecutor() as pool:
    # Files are compressed while the devices are at the next batch; bounded, so
    # that a slow disk does not fill the memory.
    writing = collections.deque()
    for result in results if waiting else ():
      seen = attend(result.image) if attend else None
      writing.append(
        pool.submit(writers.write, result, seen, options.overwrite)
      )
      if len(writing) > _AHEAD:
        writing.popleft().result()
        progress.tick()
    for job in writing:
      job.result()
      progress.tick()
  return failures.by_place


def _check_pixel(
  pixel: Sequence[int], photo: Photo, size: tuple[int, int]
) -> None:
  if any(place >= length for place, length in zip(pixel, size, strict=False)):
    raise UserError(
      f'{photo.where} is {size[0]}×{size[1]} (height × width): predict.pixel '
      f'{tuple(pixel)} lies outside'
    )
