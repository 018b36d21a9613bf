"""Published files to training-ready records, or a look at such records.

  python -m emanet_jax.tools.prepare_data NAME --manual_dir D --data_dir R
  python -m emanet_jax.tools.prepare_data NAME --data_dir R --check
  python -m emanet_jax.tools.prepare_data NAME --data_dir R --preview

NAME is a file of emanet_jax/data/datasets. D holds the published archives, or
what they unpack to; `NAME --manual_dir=` without a value tells which. Training
then takes --config.data.data_dir=R.
"""

import sys

from absl import app, flags, logging

from emanet_jax.data.preparation import inspection, into_bucket, prepare
from emanet_jax.data.preparation.statistics import format_report
from emanet_jax.data.prepared import Dataset, load_dataset
from emanet_jax.errors import UserError
from emanet_jax.runtime import places
from emanet_jax.runtime.logs import log_own_progress
from emanet_jax.visualization import previews

_MANUAL_DIR = flags.DEFINE_string(
  'manual_dir', '', 'Folder of the published files, or one archive.'
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', 'data', 'Folder of prepared data sets.'
)
_ALLOW_PARTIAL = flags.DEFINE_bool(
  'allow_partial', False, 'Accept another number of images than published.'
)
_SKIP_BAD = flags.DEFINE_bool(
  'skip_bad', False, 'Leave damaged examples out and list them.'
)
_MAX_BAD_SHARE = flags.DEFINE_float(
  'max_bad_share',
  0.01,
  'With --skip_bad: fail when more than this share of the examples, and more '
  'than one, are bad.',
  lower_bound=0.0,
  upper_bound=1.0,
)
_CHECK = flags.DEFINE_bool(
  'check', False, 'Look over the records that are there; exit 1 if any is bad.'
)
_SAMPLE = flags.DEFINE_integer(
  'sample', 0, 'With --check: examples of each split; 0 = all.', lower_bound=0
)
_PREVIEW = flags.DEFINE_bool(
  'preview', False, 'Draw augmented crops of each split, as PNG.'
)


def main(argv: list[str]) -> None:
  """Prepares, checks or previews the data set NAME."""
  if len(argv) != 2:
    raise app.UsageError(f'give one data set: {argv[0]} NAME --manual_dir D')
  log_own_progress()
  try:
    _run(argv[1])
  except (UserError, OSError) as error:
    logging.flush()
    sys.exit(f'error: {error}')


def _run(name: str) -> None:
  if not (_CHECK.value or _PREVIEW.value):
    where = into_bucket if places.is_bucket(_DATA_DIR.value) else prepare
    where.prepare(
      name,
      _MANUAL_DIR.value,
      _DATA_DIR.value,
      allow_partial=_ALLOW_PARTIAL.value,
      max_bad_share=_MAX_BAD_SHARE.value if _SKIP_BAD.value else 0.0,
    )
    return
  if _MANUAL_DIR.value:
    raise UserError(
      '--check and --preview look at what is prepared in --data_dir; leave '
      '--manual_dir out, or prepare first, without them.'
    )
  dataset = load_dataset(prepare.prepared_directory(name, _DATA_DIR.value))
  if _PREVIEW.value:
    _preview(dataset)
  if _CHECK.value:
    _check(dataset)


def _preview(dataset: Dataset) -> None:
  # Beside the records' folder, in which TFDS expects its own files alone.
  for split in dataset.counts:
    path = dataset.directory.parent / f'preview_{split}.png'
    previews.preview_page(path, dataset, split)
    logging.info('Preview in %s', path)


def _check(dataset: Dataset) -> None:
  problems = inspection.inspect(dataset, _SAMPLE.value)
  differing = inspection.inspect_counts(dataset)
  logging.info('Prepared earlier:\n%s', format_report(dataset.report()))
  if problems:
    lines = '\n'.join(f'  {problem}' for problem in [*problems, *differing])
    raise UserError(
      f'{len(problems)} problem(s) in {dataset.directory}:\n{lines}\nDelete '
      'this folder and prepare the data set again.'
    )
  if differing and not _ALLOW_PARTIAL.value:
    lines = '\n'.join(f'  {line}' for line in differing)
    raise UserError(
      f'{dataset.directory} is sound, but not as published:\n{lines}\nUse it '
      'as it is with --allow_partial (in a training command '
      '--config.data.allow_partial=True), or complete the published files, '
      'delete this folder and prepare the data set again.'
    )
  logging.info('%s is sound.', dataset.directory)


if __name__ == '__main__':
  app.run(main)
