"""What every data set shares: the TFDS builder and its record format.

A data set is prepared once: photos and labels are read from the publisher's
layout, checked, and written as ArrayRecord. Training then reads records that
are known to be sound, in one format whatever the benchmark.
"""

import abc
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from jaxtyping import UInt8

from emanet_jax.data import checks
from emanet_jax.data.spec import IGNORE_LABEL, DatasetSpec, Example, Item


class SegmentationBuilder(
  tfds.core.GeneratorBasedBuilder, skip_registration=True
):
  """TFDS builder of a segmentation set; a data set fills in the gaps.

  A subclass is called `Builder`, sets `name`, `SPEC` and `VERSION`, and says in
  `find` which examples each split has. It overrides `read_label` where labels
  are no class indices yet, or `read` where an example is no pair of files.
  """

  SPEC: ClassVar[DatasetSpec]
  # Nothing is downloaded, so there are no checksums to look for; the search
  # would also need importlib_resources, which TFDS 4.9.10 forgets to require.
  url_infos: ClassVar[dict[str, Any]] = {}

  @abc.abstractmethod
  def find(self, manual_dir: pathlib.Path | None) -> dict[str, Sequence[Any]]:
    """Lists the examples of every split present on disk.

    Args:
      manual_dir: The user's folder; None when nothing is needed.

    Returns:
      Split name to what `read` takes, in the published order. A split whose
      list or folder is absent is left out.

    Raises:
      UserError: The folder has another layout, or files are missing.
    """

  def read(self, item: Item) -> Example:
    """Reads one example; raises UserError for a file that cannot be read."""
    image = checks.read_file(item.image, self.SPEC)
    label = self.read_label(item.label)
    return Example(item.id, image, label, item.image, item.label)

  def read_label(self, path: pathlib.Path) -> UInt8[np.ndarray, 'h w']:
    """Reads a label as uint8 [h, w] with classes 0..C-1 and 255."""
    return checks.read_index_png(path, self.SPEC)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'{self.SPEC.name}: semantic segmentation, '
      f'{self.SPEC.num_classes} classes, {IGNORE_LABEL} = ignored.',
      features=tfds.features.FeaturesDict(
        {
          'id': tfds.features.Text(),
          'image': tfds.features.Image(shape=(None, None, 3)),
          'label': tfds.features.Image(
            shape=(None, None, 1), encoding_format='png'
          ),
        }
      ),
      homepage=self.SPEC.homepage,
      citation=self.SPEC.citation,
      license=self.SPEC.licence,
      # Evaluation then reports in the published order.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    root = None
    if self.SPEC.download:
      root = pathlib.Path(dl_manager.manual_dir)
    return {
      split: self._generate_examples(items, split)
      for split, items in self.find(root).items()
    }

  def _generate_examples(
    self, items: Sequence[Any], split: str
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, item in enumerate(items):
      example = self.read(item)
      checks.check_example(self.SPEC, example)
      logging.log_every_n_seconds(
        logging.INFO,
        'Preparing %s %s: %d of %d',
        5,
        self.SPEC.name,
        split,
        index,
        len(items),
      )
      _, label = cv2.imencode('.png', example.label)
      yield (
        index,
        {
          'id': example.id,
          'image': example.image,
          'label': label.tobytes(),
        },
      )
