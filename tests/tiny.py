"""A network, a run and its programs, small enough for two cores.

As a program (`python tests/tiny.py FLAGS`) it is `emanet_jax.main`, which also
writes a line per training batch, `position hash`, to the file TINY_BATCHES, and
waits at the position TINY_HOLD_AT while the file TINY_HOLD exists. The file
TINY_EVALUATING is there while it evaluates, which takes half a second more.
"""

import dataclasses
import functools
import hashlib
import io
import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from PIL import Image

from configs import shapes
from emanet_jax.data.input import pipeline
from emanet_jax.runtime import sharding
from emanet_jax.state import checkpoint
from tests.xla_flags import OFTEN, QUICK_PROGRAM

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]

CHANGES = {
  'data.crop_size': 33,
  'eval.batch_size': 8,
  'eval.num_pictures': 0,
  'model.backbone.stage_sizes': (1, 1, 1, 1),
  'model.backbone.stem_widths': (8, 8, 16),
  'model.backbone.width': 8,
  # What compiles fastest; the others are tested by what is made of them, and by
  # parity, README's command and the workdirs of old.
  'model.convolution': 'flax',
  'model.head.channels': 16,
  'model.head.num_bases': 4,
  'model.head.out_channels': 16,
  'train.batch_size': 4,
  'train.checkpoint_every': 4,
  'train.eval_every': 1000,
  'train.log_every': 1,
  'train.steps': 20,
}


def tiny_config(**changes) -> ml_collections.ConfigDict:
  """Shapes with the smallest network; dots in keys are written as '__'."""
  config = shapes.get_config()
  changes = {k.replace('__', '.'): v for k, v in changes.items()}
  config.update_from_flattened_dict({**CHANGES, **changes})
  return config


def open_dataset(data: ml_collections.ConfigDict) -> pipeline.Dataset:
  """Opens the data set of a config's `data` part as training does."""
  return pipeline.open_dataset(data, (data.train_split, data.eval_split))


@dataclasses.dataclass(frozen=True)
class Listed(pipeline.Dataset):
  """A data set whose records are given."""

  records: tuple = ()

  def largest(self, split):
    sizes = [self._size(record) for record in self.records]
    return tuple(max(side) for side in zip(*sizes, strict=True))

  def fingerprint(self, split):
    return ''

  @staticmethod
  def _size(record):
    width, height = Image.open(io.BytesIO(record['image'])).size
    return height, width

  def source(self, split):
    assert split == 'val'
    return self.records


def random_variables(model) -> dict:
  """Variables, bases and statistics included, that nothing has to compile."""
  model = model.clone(convolution='flax')  # the same ones, traced sooner
  init = functools.partial(model.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 33, 33, 3)))
  rng = np.random.default_rng(3)

  def fill(path, leaf):
    name = jax.tree_util.keystr(path)
    if 'kernel' in name:
      scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      value = rng.normal(0, scale, leaf.shape)
    elif 'var' in name or 'scale' in name:
      value = rng.uniform(0.5, 1.5, leaf.shape)
    else:
      value = rng.normal(0, 0.3, leaf.shape)
    return value.astype(leaf.dtype)

  variables = dict(jax.tree_util.tree_map_with_path(fill, shapes))
  variables.pop('intermediates', None)
  return variables


def shared(tmp_path_factory, name) -> pathlib.Path:
  """A folder that all test files of a session share."""
  return tmp_path_factory.getbasetemp() / f'tiny_{name}'


def flags(workdir, *, config='configs/shapes.py', **changes) -> list[str]:
  """Flags of `main` that give `tiny_config(**changes)`."""
  changes = {k.replace('__', '.'): v for k, v in changes.items()}
  changed = {**CHANGES, **changes}.items()
  leaves = [f'--config.{k}={v}' for k, v in changed]
  return [f'--config={config}', f'--workdir={workdir}', *leaves]


def start_main(arguments, *, cache=None, record=False, **environment):
  """Starts `main` in a process with one device; stderr joins stdout.

  Args:
    arguments: Its flags.
    cache: Folder of compiled programs, so that only the first run compiles.
    record: Run it through this file, see above.
    **environment: More variables.
  """
  program = [str(REPOSITORY / 'tests' / 'tiny.py')] if record else []
  own = {
    'PYTHONPATH': str(REPOSITORY),
    # Compiling is most of the time of such a short run: this halves it.
    **QUICK_PROGRAM,
  }
  if cache:
    own['JAX_COMPILATION_CACHE_DIR'] = str(cache)
    own['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
    own['XLA_FLAGS'] = OFTEN
  return subprocess.Popen(
    [sys.executable, *(program or ['-m', 'emanet_jax.main']), *arguments],
    cwd=REPOSITORY,
    env={**os.environ, **own, **{k: str(v) for k, v in environment.items()}},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process, timeout=240) -> tuple[int, str]:
  """The exit code and the whole output."""
  try:
    output, _ = process.communicate(timeout=timeout)
  except subprocess.TimeoutExpired:
    process.kill()
    raise
  return process.returncode, output


def run_main(arguments, **options) -> tuple[int, str]:
  """Runs `main` to its end, see `start_main`."""
  return finish(start_main(arguments, **options))


def wait_until(condition, process, timeout=240):
  """Returns once the condition holds; fails when the process ends first."""
  end = time.monotonic() + timeout
  while not condition():
    if process.poll() is not None or time.monotonic() > end:
      process.kill()
      output = process.communicate()[0]
      raise AssertionError(f'{condition} never held; output:\n{output}')
    time.sleep(0.02)


def saved_steps(workdir) -> list[int]:
  """The complete steps, as the names of folders show them."""
  folder = pathlib.Path(workdir) / 'checkpoints'
  return sorted(int(p.name) for p in folder.glob('*') if p.name.isdigit())


def load_step(workdir, step=None) -> dict:
  """A checkpoint's `state`, as NumPy arrays, and `data` position."""
  manager = checkpoint.open_manager(workdir)
  restored = manager.restore(
    manager.latest_step() if step is None else step,
    args=ocp.args.Composite(
      state=ocp.args.StandardRestore(), data=ocp.args.JsonRestore()
    ),
  )
  return {'state': jax.device_get(restored.state), 'data': restored.data}


def save_step(config, variables, workdir, step, classes=()):
  """Writes a checkpoint of variables as training does."""
  made_with = {'classes': list(classes)} if classes else {}
  state = {
    'step': np.int32(step),
    'params': variables['params'],
    'model_state': {k: v for k, v in variables.items() if k != 'params'},
    'opt_state': {'momentum': np.zeros(3, np.float32)},
  }
  with checkpoint.open_manager(workdir, 9) as manager:
    manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(jax.tree.map(jnp.asarray, state)),
        data=ocp.args.JsonSave({'position': 0, 'made_with': made_with}),
        config=ocp.args.JsonSave(checkpoint.as_plain_dict(config)),
      ),
    )


def batches_spaces(monkeypatch) -> list[int]:
  """Among how many devices each batch's rows are split, from now on."""
  found, original = [], sharding.batch_sharding

  def listening(mesh):
    found.append(mesh.shape['space'])
    return original(mesh)

  monkeypatch.setattr(sharding, 'batch_sharding', listening)
  return found


def hash_tree(tree) -> str:
  """SHA-256 over paths, dtypes, shapes and bytes of all leaves."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    leaf = np.asarray(leaf)
    digest.update(f'{path} {leaf.dtype} {leaf.shape}'.encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()


def hash_files(folder) -> dict[str, str]:
  """Relative path to SHA-256, of every file below a folder but who owns it."""
  folder = pathlib.Path(folder)
  return {
    str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
    for p in sorted(folder.rglob('*'))
    if p.is_file() and p.name != '.owner'
  }


class _Recorded:
  """An iterator that notes its batches and can be held."""

  def __init__(self, iterator):
    self._iterator, self.close = iterator, iterator.close
    self.get_state, self.set_state = iterator.get_state, iterator.set_state

  def __next__(self):
    position = self.get_state()['position']
    while (
      position >= int(os.environ.get('TINY_HOLD_AT', '1000000'))
      and pathlib.Path(os.environ['TINY_HOLD']).exists()
    ):
      time.sleep(0.01)
    batch = next(self._iterator)
    with open(os.environ['TINY_BATCHES'], 'a') as file:
      file.write(f'{position} {hash_tree(batch)}\n')
    return batch


def _evaluating(run_split):
  mark = pathlib.Path(os.environ['TINY_EVALUATING'])

  def marked(*args, **kwargs):
    mark.touch()
    time.sleep(0.5)
    evaluation = run_split(*args, **kwargs)
    mark.unlink()
    return evaluation

  return marked


def _main():
  from absl import app

  from emanet_jax import main
  from emanet_jax.evaluation import evaluate

  if 'TINY_EVALUATING' in os.environ:
    evaluate.run_split = _evaluating(evaluate.run_split)

  original = pipeline.train_iterator
  pipeline.train_iterator = lambda *a, **k: _Recorded(original(*a, **k))
  app.run(main.main)


if __name__ == '__main__':
  _main()
