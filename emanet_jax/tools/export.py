"""A trained network as one file that needs neither Flax nor this package.

  python -m emanet_jax.tools.export W OUT --config C

writes the latest checkpoint of the workdir W, or the step of --checkpoint, as
StableHLO (`jax.export`), for CPUs, CUDA GPUs and TPUs in one, with the weights
inside. It is a function from RGB images, uint8 [b, h, w, 3], to labels, uint8
[b, h, w], of any batch, height and width; normalisation and padding are part of
it. Images are looked at whole and at one scale. OUT.json has the classes, the
palette and where it comes from.

To use it (pip install jax flatbuffers pillow):

  import json
  import jax, numpy as np
  from jax import export
  from PIL import Image, ImageOps
  with open('OUT', 'rb') as f:
    network = jax.jit(export.deserialize(bytearray(f.read())).call)
  photo = ImageOps.exif_transpose(Image.open('photo.jpg')).convert('RGB')
  labels = Image.fromarray(np.array(network(np.array(photo)[None])[0]))
  labels.putpalette(np.uint8(json.load(open('OUT.json'))['palette']).tobytes())
  labels.save('labels.png')

Each new shape is compiled once. JAX promises to read such files for six months
of its releases: keep the checkpoint.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxlib
import ml_collections
from absl import app, flags, logging
from jax import export
from jaxtyping import UInt8

from emanet_jax import config_flag
from emanet_jax import main as program
from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.inference.views import padded_size, view_logits
from emanet_jax.models.segmenter import create_model, normalize
from emanet_jax.prediction.predict import get_spec
from emanet_jax.runtime import places
from emanet_jax.runtime.atomic import write
from emanet_jax.runtime.logs import log_own_progress
from emanet_jax.state.inference_weights import (
  open_for_inference,
  restore_for_inference,
)

PLATFORMS = ('cpu', 'cuda', 'tpu')


def create_labeller(model: nn.Module, variables: dict) -> Callable:
  """The function from images to labels, pure.

  Images fill their batch. Where corners are aligned, a padded image is one like
  any other, so the network is applied as it is. Elsewhere padding must have no
  effect, but JAX only knows that symbolic shapes fit when a side is one more
  than a multiple of the output stride: `view_logits` sees to both.

  Args:
    model: The network.
    variables: Its variables, which become constants.

  Returns:
    RGB images, uint8 [b, h, w, 3] → classes, uint8 [b, h, w].
  """

  def label(image: UInt8[Array, 'b h w 3']) -> UInt8[Array, 'b h w']:
    count, *shape, _ = image.shape
    padded = padded_size(*shape, model.output_stride)
    missing = [(0, p - n) for p, n in zip(padded, shape, strict=True)]
    missing = [(0, 0), *missing, (0, 0)]
    if model.align_corners:
      logits = model.apply(variables, jnp.pad(normalize(image), missing))
    else:
      sizes = jnp.broadcast_to(jnp.array(shape), (count, 2))
      logits, _ = view_logits(model, variables, jnp.pad(image, missing), sizes)
    logits = logits[:, : shape[0], : shape[1]]
    return jnp.argmax(logits, axis=-1).astype(jnp.uint8)

  return label


def export_trained(
  config: ml_collections.ConfigDict,
  workdir: str,
  out: str | Path,
  step: int | None = None,
) -> None:
  """Writes OUT and OUT.json, see the module.

  Args:
    config: Of the run; a `model.dtype` of 'auto' means float32, since the file
      is for all kinds of devices.
    workdir: Folder of the run.
    out: New file.
    step: Of the checkpoint; None: the latest.

  Raises:
    UserError: A file is there already; no checkpoint, or one of another
      network; or a head whose program depends on the images' size (psa).
  """
  out = Path(out)
  companion = out.with_name(f'{out.name}.json')
  for path in (out, companion):
    places.check_new_file(path)
  if config.model.dtype == 'auto':
    config = config.copy_and_resolve_references()
    config.model.dtype = 'float32'
  trained = open_for_inference(config, workdir, step)
  config = trained.config
  spec = get_spec(config.data.name, config.data.data_dir)
  variables = jax.device_get(restore_for_inference(trained, spec))
  model = create_model(config.model, spec.num_classes)
  image = jax.ShapeDtypeStruct(export.symbolic_shape('b, h, w, 3'), jnp.uint8)
  label = jax.jit(create_labeller(model, variables))
  try:
    exported = export.export(label, platforms=PLATFORMS)(image)
  except jax.errors.InconclusiveDimensionOperation as error:
    raise UserError(
      f'the head {config.model.head.name} makes another program for each size '
      'of image, and an exported file has one for all; export another head, or '
      'use --mode=predict'
    ) from error
  about = {
    'data_set': spec.name,
    'classes': spec.classes,
    'palette': spec.palette,
    'step': trained.step,
    'platforms': exported.platforms,
    'versions': {
      'jax': jax.__version__,
      'jaxlib': jaxlib.__version__,
      'flax': flax.__version__,
      'calling_convention': exported.calling_convention_version,
    },
  }
  content = exported.serialize()
  write(companion, json.dumps(about, indent=2) + '\n')
  write(out, content)
  megabytes = len(content) / 1e6
  logging.info('%s (%.1f MB) and %s written', out, megabytes, companion)


def main(argv: Sequence[str]) -> None:
  """Exports the workdir W into the file OUT."""
  if len(argv) != 3:
    raise app.UsageError(
      'give a workdir and a new file: python -m emanet_jax.tools.export W OUT '
      '--config C'
    )
  log_own_progress()
  try:
    export_trained(
      program.CONFIG.value,
      *map(os.path.expanduser, argv[1:]),
      program.CHECKPOINT.value,
    )
  except (UserError, OSError) as error:
    logging.flush()
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  flags.mark_flag_as_required('config')
  app.run(main, flags_parser=config_flag.parse_flags)
