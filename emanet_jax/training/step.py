"""The pure training step."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models import outputs
from emanet_jax.models.segmenter import normalize
from emanet_jax.runtime import sharding
from emanet_jax.state.train_state import TrainState

# Of a network's logits and the labels; its terms by name, each weighted.
LossFn = Callable[
  [Float[Array, 'b h w classes'], Int[Array, 'b h w']],
  dict[str, Float[Array, '']],
]


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  rng: jax.Array,
  *,
  model: nn.Module,
  tx: optax.GradientTransformation,
  loss_fn: LossFn,
  accumulation_steps: int = 1,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One update from one global batch.

  Args:
    state: Before the step.
    batch: `image` uint8 [b, h, w, 3], normalised here, on the device (a float
      image is taken as normalised already); `label` integer [b, h, w].
    rng: Key of the run; the step number is folded in.
    model: The network.
    tx: The optimizer.
    loss_fn: From `losses.create_loss`: (logits, label) → terms, which are
      summed; of the further outputs that the network sows, too.
    accumulation_steps: Micro-batches that b is cut into, one after the other
      through the network. Gradients and losses are averaged; normalisation
      and bases see each micro-batch in turn, as separate forward passes do.

  Returns:
    The state after the step, and float32 scalars: `loss`, what is minimised,
    and `grad_norm` before the update; and the parts of the loss, where it has
    several: NAME_loss of each term, with its weight, and of whatever the
    network sows (`models/outputs.py`), without it.
  """
  # Randomness follows from the step's number, so that a resumed run repeats it.
  rng = jax.random.fold_in(rng, state.step)

  def micro_step(model_state, inputs):
    def loss_of(params):
      return _forward(model, loss_fn, params, model_state, *inputs)

    grads, (model_state, losses) = jax.grad(loss_of, has_aux=True)(state.params)
    return model_state, (losses, grads)

  if accumulation_steps == 1:
    model_state, (losses, grads) = micro_step(state.model_state, (batch, rng))
  else:
    model_state, losses, grads = _accumulate(
      micro_step, state, batch, rng, accumulation_steps
    )
  # Under jit over a sharded batch these gradients are the global batch's: the
  # compiler sums them over the devices.
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  metrics = {**losses, 'grad_norm': optax.tree.norm(grads)}
  return TrainState(state.step + 1, params, model_state, opt_state), metrics


def _forward(model, loss_fn, params, model_state, batch, rng):
  """The loss to minimise; the model's state and the losses to log."""
  batch = sharding.split_rows(batch)
  image = batch['image']
  logits, updated = model.apply(
    {'params': sharding.gathered(params), **model_state},
    normalize(image) if image.dtype == jnp.uint8 else image,
    train=True,
    rngs={'dropout': rng},
    mutable=[*model_state, outputs.OUTPUTS, outputs.LOSSES],
  )
  # Labels travel as uint8, a quarter of the bytes; losses compare integers.
  label = batch['label'].astype(jnp.int32)
  terms = loss_fn(logits, label)
  total = sum(terms.values())
  losses = {f'{k}_loss': v for k, v in terms.items()} if len(terms) > 1 else {}
  for name, sown in _sown(updated.pop(outputs.OUTPUTS, {})):
    further = model.upsample(sown['logits'], label.shape[1:])
    losses[f'{name}_loss'] = sum(loss_fn(further, label).values())
    total += sown['weight'] * losses[f'{name}_loss']
  for name, sown in _sown(updated.pop(outputs.LOSSES, {})):
    loss = sown['loss']
    losses[f'{name}_loss'] = loss(label) if callable(loss) else loss
    total += sown['weight'] * losses[f'{name}_loss']
  losses = {'loss': total, **losses}
  return total, (updated, losses)


def _sown(collection: dict) -> list[tuple[str, dict]]:
  """Name and content of what modules have sown."""
  leaves = traverse_util.flatten_dict(collection)
  return [(path[-1], v) for path, values in leaves.items() for v in values]


def _accumulate(micro_step, state, batch, rng, steps):
  """Runs the micro-batches one by one; means of their losses and gradients."""

  def split(x):
    # Strided, so that each micro-batch lies evenly over the devices.
    return x.reshape(-1, steps, *x.shape[1:]).swapaxes(0, 1)

  def body(carry, inputs):
    model_state, total = carry
    model_state, (losses, grads) = micro_step(model_state, inputs)
    return (model_state, jax.tree.map(jnp.add, total, grads)), losses

  zeros = jax.tree.map(jnp.zeros_like, state.params)
  inputs = (jax.tree.map(split, batch), jax.random.split(rng, steps))
  (model_state, total), losses = jax.lax.scan(
    body, (state.model_state, zeros), inputs
  )
  grads = jax.tree.map(lambda x: x / steps, total)
  losses = jax.tree.map(lambda x: sum(x) / steps, losses)
  return model_state, losses, grads
