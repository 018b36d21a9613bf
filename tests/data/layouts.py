"""Files of miniature data sets, laid out as publishers do."""

import pathlib
import shutil

import numpy as np
import scipy.io
from PIL import Image

from emanet_jax.data.input import pipeline
from emanet_jax.data.preparation import prepare as preparation


def write_photo(path, height=30, width=40, seed=0, mode='RGB', **how):
  """Saves a smooth random photo; the suffix decides the format."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
  path.parent.mkdir(parents=True, exist_ok=True)
  photo = Image.fromarray(coarse).resize((width, height)).convert(mode)
  photo.save(path, **how)


def write_label(path, values, height=30, width=40, palette=None):
  """Saves an index PNG in which the values take turns."""
  label = np.resize(np.uint8(values), (height, width))
  image = Image.fromarray(label)
  if palette is not None:
    image.putpalette(np.uint8(palette).ravel().tolist())
  path.parent.mkdir(parents=True, exist_ok=True)
  image.save(path)


def write_mat(path, **variables):
  """Saves a MATLAB 5 file; a dict becomes a struct."""
  scipy.io.savemat(path, variables, do_compression=True)


def pack(folder, archive) -> pathlib.Path:
  """Packs what a folder holds into a .tar, .tgz or .zip beside nothing else."""
  kinds = {'.tar': 'tar', '.tgz': 'gztar', '.zip': 'zip'}
  archive.parent.mkdir(parents=True, exist_ok=True)
  made = shutil.make_archive(
    str(archive.with_suffix('')), kinds[archive.suffix], folder
  )
  return pathlib.Path(made).rename(archive)


def prepare(name, manual_dir, data_dir, **options):
  """Prepares a data set of any size; options as of `preparation.prepare`."""
  options = {'allow_partial': True, **options}
  return preparation.prepare(name, str(manual_dir), str(data_dir), **options)


def examples(dataset, split) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Id to (image, label) of a split, in its order."""
  return {
    e['id']: (e['image'], e['label'])
    for e in pipeline.evaluation_examples(dataset, split)
  }
