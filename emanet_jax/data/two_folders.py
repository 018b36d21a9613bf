"""Photos in one folder and labels in another, under like names."""

from emanet_jax.data.files import File, Files
from emanet_jax.data.spec import Item


def find_pairs(
  files: Files,
  photos: str,
  annotations: str,
  *,
  photo_end: str = '.jpg',
  label_end: str = '.png',
) -> list[Item]:
  """Pairs the files below two folders whose paths agree but for their ends.

  Args:
    files: What the user has.
    photos: Folder of the photos, at any depth.
    annotations: Folder of the labels, at the same depth; may be `photos`.
    photo_end: What follows the id in a photo's name.
    label_end: Likewise in a label's.

  Returns:
    Sorted by path. A photo without label and a label without photo are there
    too, with a file that does not exist: one is as wrong as the other.
  """
  images = _below(files, photos, photo_end)
  labels = _below(files, annotations, label_end)
  return [
    Item(
      id=key.rpartition('/')[2],
      image=images.get(key) or files.get(f'{photos}/{key}{photo_end}'),
      label=labels.get(key) or files.get(f'{annotations}/{key}{label_end}'),
    )
    for key in sorted(images.keys() | labels.keys())
  ]


def _below(files: Files, folder: str, end: str) -> dict[str, File]:
  return {
    file.path.removeprefix(f'{folder}/')[: -len(end)]: file
    for file in files.walk(folder, (end.lower(),))
  }
