"""Image files: which there are, and how they become pixels.

The one judge of photos, for preparation and prediction alike. Photos are
decoded by OpenCV, as training does; Pillow first looks at them, since OpenCV
fills what a cut JPEG lacks with grey and reports nothing. Of several frames the
first one counts.
"""

import io
import mimetypes
import re
from collections.abc import Iterable

import cv2
import numpy as np
from absl import logging
from jaxtyping import UInt8
from PIL import Image

from emanet_jax.errors import UserError, listed

# Of files that both decoders read; first those that change what they store.
LOSSY = (
  *('jpg', 'jpeg', 'jpe', 'jfif', 'mpo', 'webp', 'jp2', 'avif'),
  'gif',  # of more than 256 colours
)
SUFFIXES = (*LOSSY, 'png', 'bmp', 'tif', 'tiff', 'ppm', 'pgm', 'pbm', 'pnm')

_ORIENTATION = 0x0112  # of EXIF

# Of images that nothing here reads, and that mimetypes may not know.
_RAW = ('dng', 'arw', 'raw', 'rw2', 'orf', 'tga', 'heic', 'heif', 'jxl')


def split_suffix(path: str) -> tuple[str, str]:
  """A path without the suffix of an image, and the suffix in lower case."""
  stem, _, suffix = path.rpartition('.')
  if suffix.lower() in SUFFIXES:
    return stem, suffix.lower()
  return path, ''


def tell_unread(paths: Iterable[str], where: str) -> None:
  """Logs how many images are passed over for their kind, and which."""

  def is_image(path):
    kind, _ = mimetypes.guess_type(path)
    return path.rpartition('.')[2].lower() in _RAW or (
      kind is not None and kind.startswith('image/')
    )

  unread = sorted(p for p in paths if not split_suffix(p)[1] and is_image(p))
  if unread:
    logging.warning(
      '%s: %d image(s) are passed over, of kinds that cannot be read: %s. '
      'Convert them to JPEG or PNG to have them.',
      *(where, len(unread), listed(unread)),
    )


def open_image(content: bytes, where: str) -> Image.Image:
  """Decodes an image completely.

  Args:
    content: Of a file.
    where: Its place, for the message.

  Raises:
    UserError: The file is damaged or no image.
  """
  try:
    image = Image.open(io.BytesIO(content))
    image.load()
  # PIL's decoders raise many types: OSError, SyntaxError, struct.error, ...
  except Exception as error:
    raise UserError(
      f'{where} cannot be decoded ({error}): expected a complete image. '
      'Restore it, or unpack the archive again.'
    ) from error
  return image


def decode_photo(content: bytes, where: str) -> UInt8[np.ndarray, 'h w 3']:
  """Decodes a photo to RGB, as stored (a TIFF: as its tag turns it).

  Args:
    content: Of the photo's file.
    where: Its place, for the message.

  Raises:
    UserError: The file is damaged or no image; it is partly transparent; or has
      more than 8 bits a channel, which would become dark: how bright such a
      file is meant, with 12 of 16 bits in use, say, it does not tell.
  """
  image = open_image(content, where)
  if 'A' in image.getbands() or 'transparency' in image.info:
    alpha = image.convert('RGBA').getchannel('A')
    if alpha.getextrema()[0] < 255:
      raise UserError(
        f'{where} is transparent in places, and what lies behind is unknown. '
        'Save it without an alpha channel.'
      )
  depth = bits(image, content)
  if depth > 8:
    raise UserError(
      f'{where} has {depth} bits a channel; expected 8. Convert it, as '
      '"magick mogrify -depth 8" does, and stretch its brightness before where '
      'it is dark (-auto-level).'
    )
  decoded = to_rgb(content)
  if decoded is None or decoded.shape[:2] != (image.height, image.width):
    raise UserError(
      f'{where} is {image.format} of a kind that OpenCV cannot decode. Save it '
      'as an ordinary JPEG or PNG.'
    )
  return decoded


def to_rgb(content: bytes) -> UInt8[np.ndarray, 'h w 3'] | None:
  """The pixels of a photo as stored, for training, too; None: no image."""
  return cv2.imdecode(
    np.frombuffer(content, np.uint8),
    cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
  )


def orientation(image: Image.Image) -> int:
  """EXIF's orientation, 1 to 8; 1, as stored, where a file tells none."""
  found = image.getexif().get(_ORIENTATION, 1)
  return found if found in range(1, 9) else 1


def bits(image: Image.Image, content: bytes) -> int:
  """Bits a channel in the file, of which PIL makes 8 where it can."""
  if image.format == 'PNG':
    return content[24]
  if image.format == 'TIFF':
    return max(image.tag_v2.get(258, (1,)))
  if image.format == 'JPEG2000':
    header = content.find(b'ihdr')
    return (content[header + 14] & 127) + 1 if header >= 0 else 8
  if image.format == 'AVIF':
    flags = content[content.find(b'av1C') + 6]
    return 8 + 2 * (flags >> 6 & 1) + 2 * (flags >> 5 & 1)
  if image.format == 'PPM':
    numbers = re.sub(rb'#[^\n]*', b'', content[2:500]).split()
    deep = content[1:2] in b'2356' and int(numbers[2]) > 255
    return 16 if deep else 8
  return 8
