"""A user's photos: which there are, their pixels, and which way up they are.

The network sees a photo as a viewer shows it, turned by its EXIF orientation.
What is stored for its pixels is turned back: it lies pixel on pixel on the
array that image libraries read from the file.
"""

import collections
import dataclasses
import functools
import glob
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from emanet_jax.data.prepared import Dataset
from emanet_jax.data.reading import images
from emanet_jax.errors import UserError
from emanet_jax.runtime import places
from emanet_jax.runtime.places import AnyPath

# By orientation: steps through rows and columns that turn a photo upright,
# after rows and columns were exchanged from 5 on.
_STEPS = dict(enumerate([(1, 1), (1, -1), (-1, -1), (-1, 1)] * 2, start=1))
_SHOWN = 10  # clashes listed at most


@dataclasses.dataclass(frozen=True)
class Photo:
  """A photo that is not read yet.

  Attributes:
    name: Path below the input folder without the suffix, or a split's id.
    where: Its place, for messages.
    open: Returns its content as a file.
    turns: Whether its EXIF orientation counts.
  """

  name: str
  where: str
  open: Callable[[], BinaryIO]
  turns: bool = True


def find_photos(given: str, leave_out: AnyPath) -> list[Photo]:
  """The photos that a path means, sorted.

  Args:
    given: A photo; a folder, which is searched with all below it but hidden
      files; or a glob pattern, in which ** stands for any folders.
    leave_out: A folder not to look into: that of the results.

  Raises:
    UserError: There is none, or two have one name but for the suffix.
    OSError: A folder cannot be read.
  """
  places.check_local(given)
  path = Path(given).expanduser()
  if path.is_file():
    root, files = path.parent, [path]
  elif path.is_dir():
    root, files = path, list(_walk(path))
  elif glob.has_magic(given):
    fixed = [p for p in path.parents if not glob.has_magic(str(p))]
    root = fixed[0]
    files = [Path(p) for p in glob.glob(str(path), recursive=True)]
    files = [p for p in files if p.is_file()]
  else:
    raise UserError(
      f'predict.input: {given} does not exist; give a photo, a folder of '
      "photos or a quoted pattern such as 'photos/*.jpg'"
    )
  leave_out = leave_out.resolve()
  files = [p for p in files if leave_out not in p.resolve().parents]
  if not path.is_file():
    images.tell_unread(map(str, files), given)
    files = [p for p in files if images.split_suffix(p.name)[1]]
  if not files:
    raise UserError(
      f'predict.input: {given} holds no photo; looked for files that end in '
      f'{", ".join(images.SUFFIXES)}'
    )
  photos = [
    Photo(
      p.relative_to(root).with_suffix('').as_posix(),
      str(p),
      functools.partial(p.open, 'rb'),
    )
    for p in sorted(files)
  ]
  _check_names(photos)
  return photos


def split_photos(dataset: Dataset, split: str) -> list[Photo]:
  """The photos of a prepared split, as stored, in published order."""
  source = dataset.source(split)

  def photo(index: int) -> Photo:
    name = source[index]['id'].decode()
    return Photo(
      name,
      f'{dataset.spec.name} {split} {name}',
      lambda: io.BytesIO(source[index]['image']),
      turns=False,
    )

  return [photo(index) for index in range(len(source))]


def measure(photo: Photo) -> tuple[int, int]:
  """Height and width of the upright photo, mostly from the file's beginning.

  Raises:
    UserError: It cannot be read or is no image.
  """
  try:
    with photo.open() as file, Image.open(file) as image:
      size = image.height, image.width
      return size[::-1] if _orientation(image, photo) > 4 else size
  except UnidentifiedImageError as error:
    raise UserError(
      f'{photo.where} is no photo: its kind is unknown'
    ) from error
  except Exception as error:  # PIL's decoders raise many types
    raise UserError(f'{photo.where} cannot be read: {error}') from error


def decode(photo: Photo) -> tuple[UInt8[np.ndarray, 'h w 3'], int]:
  """The upright photo, and the EXIF orientation that it was turned by.

  Raises:
    UserError: It cannot be read or used, see `images.decode_photo`.
  """
  try:
    with photo.open() as file:
      content = file.read()
  except OSError as error:
    raise UserError(f'{photo.where} cannot be read: {error}') from error
  image = images.decode_photo(content, photo.where)
  with Image.open(io.BytesIO(content)) as opened:
    orientation = _orientation(opened, photo)
  return upright(image, orientation), orientation


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
  """Turns [h, w, ...] as stored to how a viewer shows it."""
  if orientation > 4:
    array = array.swapaxes(0, 1)
  rows, columns = _STEPS[orientation]
  return array[::rows, ::columns]


def as_stored(array: np.ndarray, orientation: int) -> np.ndarray:
  """The inverse of `upright`."""
  rows, columns = _STEPS[orientation]
  array = array[::rows, ::columns]
  return array.swapaxes(0, 1) if orientation > 4 else array


def _walk(folder: Path) -> Iterator[Path]:
  """All files below a folder but hidden ones; raises what os.walk hides."""

  def fail(error: OSError):
    raise error

  for parent, folders, names in os.walk(folder, onerror=fail):
    folders[:] = [name for name in folders if not name.startswith('.')]
    for name in names:
      if not name.startswith('.'):
        yield Path(parent, name)


def _check_names(photos: Sequence[Photo]) -> None:
  by_name = collections.defaultdict(list)
  for photo in photos:
    by_name[photo.name].append(photo.where)
  clashes = [' and '.join(p) for p in by_name.values() if len(p) > 1]
  if clashes:
    more = f'\n  and {len(clashes) - _SHOWN} more' * (len(clashes) > _SHOWN)
    raise UserError(
      'predict.input: these photos differ by their suffix alone, so that one '
      "would overwrite the other's results:\n  "
      + '\n  '.join(clashes[:_SHOWN])
      + more
      + '\nRename them, or predict them apart, each with a predict.output of '
      'its own.'
    )


def _orientation(image: Image.Image, photo: Photo) -> int:
  # Libraries turn a TIFF themselves: it is upright as read.
  if not photo.turns or image.format == 'TIFF':
    return 1
  return images.orientation(image)


def encode_png(
  array: UInt8[np.ndarray, 'h w *c'],
  palette: Sequence[tuple[int, int, int]] = (),
) -> bytes:
  """A PNG of RGB or grey values, or with a palette of indices into it."""
  image = Image.fromarray(np.ascontiguousarray(array))
  if palette:
    image.putpalette(np.array(palette, np.uint8).tobytes())
  content = io.BytesIO()
  image.save(content, 'PNG')
  return content.getvalue()
