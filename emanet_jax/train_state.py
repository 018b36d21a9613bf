"""The state of training and the pure step that advances it."""

from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from absl import logging
from flax import traverse_util

from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import normalize


@flax.struct.dataclass
class TrainState:
  """All that a step reads and writes.

  Attributes:
    step: Updates done so far, int32 scalar.
    params: Learnt by gradients.
    model_state: The model's other collections: `batch_stats` and `bases`.
    opt_state: The optimizer's.
  """

  step: Any
  params: Any
  model_state: Any
  opt_state: Any

  @property
  def variables(self) -> dict:
    """What `model.apply` takes."""
    return {'params': self.params, **self.model_state}


def create_state(
  model: nn.Module, tx: optax.GradientTransformation, rng: jax.Array
) -> TrainState:
  """A freshly initialised state; pure, so it can be jitted or eval_shaped."""
  # The image's size does not matter to any parameter's shape.
  variables = dict(model.init({'params': rng}, jnp.zeros((1, 65, 65, 3))))
  params = variables.pop('params')
  variables.pop('intermediates', None)
  return TrainState(
    jnp.zeros((), jnp.int32), params, variables, tx.init(params)
  )


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  rng: jax.Array,
  *,
  model: nn.Module,
  tx: optax.GradientTransformation,
  loss_fn: Callable[..., jax.Array],
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
    loss_fn: (logits, label) → scalar.
    accumulation_steps: Micro-batches that b is cut into, one after the other
      through the network. Gradients and losses are averaged; normalisation
      and bases see each micro-batch in turn, as separate forward passes do.

  Returns:
    The state after the step, and float32 scalars: `loss` and `grad_norm`
    before the update, and `state_norm` of all numbers after it, which is finite
    only if every one of them is.
  """
  rng = jax.random.fold_in(rng, state.step)

  def micro_step(model_state, inputs):
    micro_batch, micro_rng = inputs

    def loss_of(params):
      logits, updated = model.apply(
        {'params': params, **model_state},
        _as_input(micro_batch['image']),
        train=True,
        rngs={'dropout': micro_rng},
        mutable=list(model_state),
      )
      return loss_fn(logits, micro_batch['label'].astype(jnp.int32)), updated

    (loss, model_state), grads = jax.value_and_grad(loss_of, has_aux=True)(
      state.params
    )
    return model_state, (loss, grads)

  if accumulation_steps == 1:
    model_state, (loss, grads) = micro_step(state.model_state, (batch, rng))
  else:
    model_state, loss, grads = _accumulate(
      micro_step, state, batch, rng, accumulation_steps
    )
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  metrics = {
    'loss': loss,
    'grad_norm': optax.tree.norm(grads),
    'state_norm': _norm((params, model_state, opt_state)),
  }
  return TrainState(state.step + 1, params, model_state, opt_state), metrics


def _norm(tree) -> jax.Array:
  leaves = jax.tree.leaves(tree)
  return optax.tree.norm(
    [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
  )


def _as_input(image):
  return normalize(image) if image.dtype == jnp.uint8 else image


def _accumulate(micro_step, state, batch, rng, steps):
  """Runs the micro-batches one by one; means of their losses and gradients."""

  def split(x):
    # Strided, so that each micro-batch lies evenly over the devices.
    return x.reshape(-1, steps, *x.shape[1:]).swapaxes(0, 1)

  def body(carry, inputs):
    model_state, total = carry
    model_state, values = micro_step(model_state, inputs)
    return (model_state, jax.tree.map(jnp.add, total, values)), None

  zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params))
  inputs = (jax.tree.map(split, batch), jax.random.split(rng, steps))
  (model_state, total), _ = jax.lax.scan(
    body, (state.model_state, zeros), inputs
  )
  loss, grads = jax.tree.map(lambda x: x / steps, total)
  return model_state, loss, grads


def take_weights(state: TrainState, source: dict, name: str) -> TrainState:
  """The state with all weights of `source` that it has a place for.

  Args:
    state: A fresh state.
    source: Variables, of a whole network or its backbone. Its classifier is
      left out where the number of classes differs.
    name: What to call the source in messages.

  Raises:
    UserError: Weights without a place or of another shape.
  """
  own = traverse_util.flatten_dict(state.variables)
  given = traverse_util.flatten_dict(source)
  left = [
    path
    for path, value in given.items()
    if 'classifier' in path
    and path in own
    and own[path].shape[-1] != value.shape[-1]
  ]
  given = {path: v for path, v in given.items() if path not in left}
  wrong = [
    f'{"/".join(path)}: {name} has {value.shape}, the configured network '
    f'{own[path].shape if path in own else "nothing"}'
    for path, value in given.items()
    if path not in own or own[path].shape != value.shape
  ]
  if wrong:
    raise UserError(
      f'init_from: {name} does not fit the configured network:\n'
      + '\n'.join(wrong)
    )
  logging.info(
    '%s: took %d of the network’s %d tensors; the rest starts at random%s',
    name,
    len(given),
    len(own),
    ' (other number of classes: classifier left out)' if left else '',
  )
  variables = traverse_util.unflatten_dict({**own, **given})
  params = variables.pop('params')
  return state.replace(params=params, model_state=variables)
