"""The state of training and the pure step that advances it."""

from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
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
    loss_fn: (logits, label) → scalar; of an auxiliary head's logits, too,
      times the model's `auxiliary_weight`.
    accumulation_steps: Micro-batches that b is cut into, one after the other
      through the network. Gradients and losses are averaged; normalisation
      and bases see each micro-batch in turn, as separate forward passes do.

  Returns:
    The state after the step, and float32 scalars: `loss`, what is minimised,
    and `grad_norm` before the update; and `aux_loss`, the auxiliary head's part
    of it before its weight, where there is such a head.
  """
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
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  metrics = {**losses, 'grad_norm': optax.tree.norm(grads)}
  return TrainState(state.step + 1, params, model_state, opt_state), metrics


def _forward(model, loss_fn, params, model_state, batch, rng):
  """The loss to minimise; the model's state and the losses to log."""
  logits, updated = model.apply(
    {'params': params, **model_state},
    _as_input(batch['image']),
    train=True,
    rngs={'dropout': rng},
    mutable=[*model_state, 'auxiliary'],
  )
  label = batch['label'].astype(jnp.int32)
  losses = {'loss': loss_fn(logits, label)}
  if 'auxiliary' in updated:
    (logits,) = updated.pop('auxiliary')['logits']
    losses['aux_loss'] = loss_fn(logits, label)
    losses['loss'] += model.auxiliary_weight * losses['aux_loss']
  return losses['loss'], (updated, losses)


def is_finite(state: TrainState) -> bool:
  """Whether a replicated state holds no NaN or infinity; waits for it."""
  leaves = [leaf.addressable_data(0) for leaf in jax.tree.leaves(state)]
  return all(np.isfinite(leaf).all() for leaf in jax.device_get(leaves))


def _as_input(image):
  return normalize(image) if image.dtype == jnp.uint8 else image


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


def take_weights(
  state: TrainState, source: dict, name: str, backbone_only: bool = False
) -> TrainState:
  """The state with every weight of `source` that fits; logs what did not.

  Args:
    state: A fresh state.
    source: Variables, of a whole network or its backbone.
    name: What to call the source in messages.
    backbone_only: Take no head, even where it fits.

  Raises:
    UserError: The backbone is another one, or nothing fits.
  """
  own = traverse_util.flatten_dict(state.variables)
  given = traverse_util.flatten_dict(source)
  if backbone_only:
    given = {path: v for path, v in given.items() if path[1] == 'backbone'}
  taken = {
    path: value
    for path, value in given.items()
    if path in own and own[path].shape == value.shape
  }
  unlike = (own.keys() | given.keys()) - taken.keys()
  unlike = sorted(unlike, key=lambda path: path[1:])
  backbone = [path for path in unlike if path[1] == 'backbone']
  if backbone:
    raise UserError(
      f'init_from: {name} has another backbone than the configured network; '
      f'{len(backbone)} tensors differ, first\n'
      + '\n'.join(f'  {_story(path, given, own)}' for path in backbone[:5])
      + '\nSet config.model.backbone as in the checkpoint.'
    )
  logging.info(
    'init_from %s:\n%s', name, '\n'.join(_report(own, given, unlike))
  )
  variables = traverse_util.unflatten_dict({**own, **taken})
  params = variables.pop('params')
  return state.replace(params=params, model_state=variables)


def _story(path, given, own) -> str:
  """What the checkpoint and the network have at a path, in words."""
  name = '/'.join(path[1:])
  if path not in given:
    return f'{name}: not in the checkpoint'
  if path not in own:
    return f'{name}: only in the checkpoint'
  return f'{name}: checkpoint {given[path].shape}, model {own[path].shape}'


def _report(own, given, unlike) -> list[str]:
  """A line a part of the network: tensors taken, and the story of the rest."""
  lines = []
  for part in sorted({path[1] for path in own.keys() | given.keys()}):
    mine, theirs = (sum(p[1] == part for p in tree) for tree in (own, given))
    if not (mine and theirs):
      lines.append(
        f'  {part}: 0 of {mine} tensors taken: not in the checkpoint'
        if mine
        else f'  {part}: {theirs} tensors only in the checkpoint'
      )
      continue
    modules = {}
    for path in unlike:
      if path[1] == part:
        modules.setdefault(path[1:3], []).append(path)
    left = sum(path in own for paths in modules.values() for path in paths)
    line = f'  {part}: {mine - left} of {mine} tensors taken'
    for first, *others in modules.values():
      line += f'; left: {_story(first, given, own)}'
      line += f' (and {len(others)} more)' if others else ''
    lines.append(line)
  return lines
