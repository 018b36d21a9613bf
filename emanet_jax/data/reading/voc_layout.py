"""What the releases of PASCAL VOC, and sets made like them, have in common."""

from emanet_jax.data.reading.files import File, Files
from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError


def find_root(files: Files, release: str, spec: DatasetSpec) -> str:
  """Returns the folder that holds JPEGImages, in the official layout or not.

  Args:
    files: What the user has.
    release: Such as VOC2012.
    spec: The data set, for the message.

  Raises:
    UserError: There is none.
  """
  roots = (f'VOCdevkit/{release}', release, '.')
  found = files.first(*(f'{root}/JPEGImages' for root in roots))
  if found is None:
    raise UserError(
      f'{files.root} holds no VOCdevkit/{release}/JPEGImages. {spec.download}'
    )
  return found.removesuffix('/JPEGImages')


def list_file(files: Files, root: str, split: str) -> File:
  """Returns VOC's own list of a split's ids."""
  return files.get(f'{root}/ImageSets/Segmentation/{split}.txt')


def read_ids(ids: File) -> list[str]:
  """Returns the ids of a list; some lists name both files instead."""
  names = [line.split()[0] for line in ids.text().splitlines() if line.split()]
  return [name.rpartition('/')[2].rpartition('.')[0] or name for name in names]
