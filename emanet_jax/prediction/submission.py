"""Predictions as the benchmarks' servers take them: names, values, archive."""

import dataclasses
import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from emanet_jax.data.datasets import cityscapes
from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError
from emanet_jax.prediction.photos import encode_png
from emanet_jax.runtime import atomic
from emanet_jax.runtime.places import AnyPath

_NAMED = 5  # missing photos named at most


@dataclasses.dataclass(frozen=True)
class Format:
  """What a server takes.

  Attributes:
    path: Of a PNG in the archive; {} stands for the photo's id.
    values: That the PNG holds, by class.
    colored: Whether the PNG has the data set's palette; else it is grey.
    suffix: Of the archive that it takes, '.zip' or '.tgz'.
  """

  path: str
  values: tuple[int, ...]
  colored: bool = False
  suffix: str = '.zip'

  def encode(self, label: UInt8[np.ndarray, 'h w'], spec: DatasetSpec) -> bytes:
    """The PNG of a prediction, whose values are classes."""
    values = np.array(self.values, np.uint8)[label]
    return encode_png(values, spec.palette if self.colored else ())


FORMATS = {
  # The devkit's layout; comp6: other training data was used than VOC's own, as
  # SBD's annotations and ImageNet are. The server evaluates .tgz and .tar.gz;
  # by what its users report, neither .zip nor a plain .tar.
  'voc2012': Format(
    'results/VOC2012/Segmentation/comp6_test_cls/{}.png',
    tuple(range(21)),
    colored=True,
    suffix='.tgz',
  ),
  # cityscapesScripts looks for CITY_SEQUENCE_FRAME*.png in any folder.
  'cityscapes': Format('{}_labelIds.png', cityscapes.LABEL_IDS),
  # 1 to 150 in a PNG of the photo's name; 0 would be none of them.
  'ade20k': Format('{}.png', tuple(range(1, 151))),
}


def get_format(name: str, num_classes: int) -> Format:
  """A server's format.

  Raises:
    UserError: An unknown name, or another number of classes.
  """
  if name not in FORMATS:
    raise UserError(
      f'predict.submission is {name!r}; known are {", ".join(FORMATS)}'
    )
  expected = len(FORMATS[name].values)
  if num_classes != expected:
    raise UserError(
      f'predict.submission: {name} takes {expected} classes, but the '
      f'checkpoint has {num_classes}; choose a run on {name}'
    )
  return FORMATS[name]


def pack(
  archive: AnyPath, folder: AnyPath, form: Format, names: Sequence[str]
) -> None:
  """Packs the PNGs of a folder, the same bytes for the same PNGs.

  Args:
    archive: A file of the format's suffix, written completely or not at all.
    folder: Holds the PNGs under their paths in the archive.
    form: Of the server.
    names: Ids of the photos that it expects.

  Raises:
    UserError: Some are missing.
  """
  paths = [form.path.replace('{}', name) for name in names]
  missing = [
    name
    for name, path in zip(names, paths, strict=True)
    if not (folder / path).is_file()
  ]
  if missing:
    more = ', …' * (len(missing) > _NAMED)
    raise UserError(
      f'{archive} was not made: {len(missing)} of {len(names)} photos have no '
      f'prediction ({", ".join(missing[:_NAMED])}{more}). The same command '
      'again predicts those alone.'
    )
  with atomic.replacing(archive) as temporary, open(temporary, 'wb') as file:
    write = {'.zip': _zip, '.tgz': _tar}[form.suffix]
    write(file, {path: folder / path for path in sorted(paths)})


def _zip(file: BinaryIO, contents: Mapping[str, AnyPath]) -> None:
  # PNGs are compressed already.
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as packed:
    for name, path in contents.items():
      entry = zipfile.ZipInfo(name)  # of 1980, not of now
      entry.create_system, entry.external_attr = 3, 0o644 << 16
      packed.writestr(entry, path.read_bytes())


def _tar(file: BinaryIO, contents: Mapping[str, AnyPath]) -> None:
  with (
    gzip.GzipFile('', 'wb', 1, file, mtime=0) as squeezed,
    tarfile.open(fileobj=squeezed, mode='w', format=tarfile.GNU_FORMAT) as out,
  ):
    for name, path in contents.items():
      content = path.read_bytes()
      entry = tarfile.TarInfo(name)  # of 1970, of nobody
      entry.size = len(content)
      out.addfile(entry, io.BytesIO(content))
