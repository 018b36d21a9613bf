"""Photos in one folder and labels in another, under like names."""

from collections.abc import Sequence

from emanet_jax.data.reading.example import Item
from emanet_jax.data.reading.files import File, Files


def find_pairs(
  files: Files,
  photos: str,
  annotations: str,
  *,
  photo_ends: Sequence[str] = ('.jpg',),
  label_end: str = '.png',
) -> list[Item]:
  """Pairs the files below two folders whose paths agree but for their ends.

  Args:
    files: What the user has.
    photos: Folder of the photos, at any depth.
    annotations: Folder of the labels, at the same depth; may be `photos`.
    photo_ends: What may follow the id in a photo's name.
    label_end: Likewise in a label's.

  Returns:
    Sorted by path. A photo without label and a label without photo are there
    too, with a file that does not exist: one is as wrong as the other.
  """
  images = [p for end in photo_ends for p in _below(files, photos, end)]
  labels = dict(_below(files, annotations, label_end))
  pairs = [
    (
      key,
      image,
      labels.get(key) or files.get(f'{annotations}/{key}{label_end}'),
    )
    for key, image in images
  ]
  pairs += [
    (key, files.get(f'{photos}/{key}{photo_ends[0]}'), labels[key])
    for key in labels.keys() - dict(images).keys()
  ]
  pairs.sort(key=lambda pair: pair[0])
  return [Item(key.rpartition('/')[2], *pair) for key, *pair in pairs]


def _below(files: Files, folder: str, end: str) -> list[tuple[str, File]]:
  return [
    (file.path.removeprefix(f'{folder}/')[: -len(end)], file)
    for file in files.walk(folder, (end.lower(),))
  ]
