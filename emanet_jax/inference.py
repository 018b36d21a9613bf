"""Images to predictions: the one inference path.

A network is run on an image padded at the bottom and the right, so that each
side is one more than a multiple of its output stride: then the corners of the
features lie on corners of the image, as corner-aligned upsampling wants. The
padding is zero after normalisation, as the authors have it.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Float, Int, UInt8

from emanet_jax.array import Array
from emanet_jax.models.segmenter import normalize


def padded_size(height: int, width: int, stride: int) -> tuple[int, int]:
  """Height and width rounded up to 1 modulo the stride."""
  up = [-(-(length - 1) // stride) * stride + 1 for length in (height, width)]
  return up[0], up[1]


def pad_images(
  images: list[UInt8[np.ndarray, '_ _ 3']], size: tuple[int, int], count: int
) -> dict[str, np.ndarray]:
  """Images in the top left corners of a batch of a fixed shape.

  Args:
    images: At most `count`, none larger than `size`.
    size: Height and width of the batch.
    count: Images in the batch; those beyond len(images) have size zero.

  Returns:
    `image` uint8 [count, *size, 3] and `size` int32 [count, 2], the native
    heights and widths.
  """
  batch = np.zeros((count, *size, 3), np.uint8)
  sizes = np.zeros((count, 2), np.int32)
  for i, image in enumerate(images):
    batch[i, : image.shape[0], : image.shape[1]] = image
    sizes[i] = image.shape[:2]
  return {'image': batch, 'size': sizes}


def predict_logits(
  model: nn.Module,
  variables: dict,
  image: UInt8[Array, 'b h w 3'],
  size: Int[Array, 'b 2'],
) -> tuple[Float[Array, 'b h w classes'], dict[str, Array]]:
  """Runs the network in evaluation mode; pure, to be jitted.

  Args:
    model: The network.
    variables: Its variables.
    image: RGB, padded to an accepted size (`padded_size`).
    size: Native height and width of each image.

  Returns:
    Logits at the padded size, float32; and what the head sowed, by name:
    `responsibilities` [b, h', w', k] and `bases` [b, k, c] for EMA.
  """
  rows = jnp.arange(image.shape[1])[:, None] < size[:, 0, None, None]
  cols = jnp.arange(image.shape[2]) < size[:, 1, None, None]
  inside = (rows & cols)[..., None]
  logits, sown = model.apply(
    variables,
    jnp.where(inside, normalize(image), 0),
    train=False,
    mutable=['intermediates'],
  )
  leaves = traverse_util.flatten_dict(sown.get('intermediates', {}))
  return logits, {path[-1]: values[-1] for path, values in leaves.items()}
