"""Every run book builds; every key is locked and read by something."""

import ast
import copy
import functools
import importlib
import inspect
import pathlib
import re

import jax
import ml_collections
import pytest

from emanet_jax import parts
from emanet_jax.config import default_config
from emanet_jax.data import datasets
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import create_model
from emanet_jax.state import train_state
from emanet_jax.training.optimizers import create_optimizer

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = (
  *(parts.BACKBONES, parts.HEADS, parts.AUXILIARY_HEADS, parts.LOSSES),
  *(parts.OPTIMIZERS, parts.AUGMENTATIONS, parts.METRICS),
)
BOOKS = sorted(p.stem for p in (REPOSITORY / 'configs').glob('[a-z]*.py'))

# Numbers of parameters, with the classes of the run book's data set.
COUNTS = {
  'ade20k': 53_806_678,
  'camvid': 34_778_827,
  'camvid_small': 1_657_915,
  'cityscapes': 53_773_011,
  'coco_stuff10k': 53_812_075,
  'coco_stuff164k': 53_812_075,
  'folder': 34_776_514,  # with two classes; it has none before it is read
  'pascal_context': 53_783_291,
  'shapes': 2_142_127,
  'voc': 53_773_525,
  'voc_256': 48_070_613,
  'voc_mmseg': 67_969_162,  # with an auxiliary head, and without bases
  'voc_r50': 34_781_397,
  'voc_trainval': 53_773_525,
}


def load(book):
  return importlib.import_module(f'configs.{book}').get_config()


def leaves(config, prefix=''):
  """Dotted keys of all leaves."""
  for key, value in config.items():
    if hasattr(value, 'items'):
      yield from leaves(value, f'{prefix}{key}.')
    else:
      yield prefix + key


@pytest.mark.parametrize('book', BOOKS)
def test_a_run_book_builds(book):
  config = load(book)
  spec = datasets.get_dataset(config.data.name).SPEC
  model = create_model(config.model, spec.num_classes or 2)
  model = model.clone(convolution='flax')  # the same variables, traced sooner
  tx, schedule = create_optimizer(
    config.optimizer, config.train.steps, model.frozen_params()
  )

  # The state's creation as train.py has it, without a single number.
  variables = jax.eval_shape(
    functools.partial(model.init, train=False),
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, 65, 65, 3), 'float32'),
  )
  optimizer_state = jax.eval_shape(tx.init, variables['params'])
  create = jax.eval_shape(
    lambda key: tuple(
      jax.tree.leaves(train_state.create_state(model, tx, key))
    ),
    jax.random.key(0),
  )
  count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert COUNTS.get(book) == count
  has_bases = config.model.head.name == 'ema'
  assert ('bases' in variables) == has_bases
  assert {'params', 'batch_stats'} <= variables.keys()
  kept = {k: v for k, v in variables.items() if k != 'intermediates'}
  parts = jax.tree.leaves((kept, optimizer_state))
  assert sum(x.size for x in create) == 1 + sum(x.size for x in parts)
  assert float(schedule(0)) == pytest.approx(config.optimizer.learning_rate)
  assert float(schedule(config.train.steps)) == pytest.approx(0, abs=1e-8)
  splits = spec.num_examples or ('train', 'val')
  assert config.data.train_split in splits
  assert config.data.eval_split in splits


@pytest.mark.parametrize('book', BOOKS)
def test_a_run_book_has_the_default_keys_all_locked(book):
  config, default = load(book), default_config()
  default.model.head.name = config.model.head.name
  assert list(leaves(config)) == list(leaves(default))
  assert (REPOSITORY / 'configs' / f'{book}.py').read_text()[:3] == '"""'
  sections = {key.rpartition('.')[0] for key in leaves(config)}
  assert {'', 'model', 'model.head', 'data', 'eval'} <= sections
  for name in sections:
    section = config
    for part in name.split('.') if name else ():
      section = section[part]
    with pytest.raises(AttributeError, match='misspelt'):
      section.misspelt = 1
  with pytest.raises(TypeError):
    config.train.steps = 'many'


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('dtype', 'float16', r"model.dtype is 'float16'; known are"),
    ('backbone.name', 'vgg', "backbone.name is 'vgg'; known are mit, resnet"),
    (
      'backbone.depth',
      33,
      r'depth is 33; known depths are \[18, 34, 50, 101, ',
    ),
    ('backbone.stage_sizes', (1, 1), r'is \(1, 1\); a ResNet has four'),
    ('backbone.stem_widths', (8, 8), r'is \(8, 8\).*three stem widths'),
    ('backbone.multi_grid', (1,), r'multi_grid \(1,\) has fewer entries'),
    ('backbone.output_stride', 4, r'output_stride is 4; it must be 8, 16 or'),
    ('head.name', 'unet', "head.name is 'unet'; known are .*ema, enc, fcn"),
    ('head.gradient', 'some', r"'some'.*cut"),
    ('head.basis_norm', 'l1', r"'l1'.*l2"),
    ('head.maintenance', 'magic', r"'magic'.*moving_average"),
    ('auxiliary_head.weight', -0.4, r'auxiliary_head.weight is -0.4; it must'),
    ('auxiliary_head.channels', 0, r'channels is 0; it must be ≥ 1'),
  ],
)
def test_create_model_explains_its_refusal(key, value, message):
  config = default_config().model
  create_model(config, 21)

  def create():
    config.update_from_flattened_dict({key: value})
    create_model(config, 21)

  with pytest.raises(UserError, match=message):
    create()


# Sections whose keys are the options of parts, which their files own.
PARTS = (
  *('model.backbone', 'model.head', 'model.auxiliary_head', 'optimizer'),
  *('loss.cross_entropy', 'loss.dice', 'loss.focal'),
  *('data.augmentations.color', 'eval.metrics.accuracy'),
  *('eval.metrics.f1', 'eval.metrics.iou'),
)
# What a section has beside a part's options, and the code that reads it.
OWN = ('name', 'weight', 'enabled')
# Which part of the configuration a folder's code calls `config`.
CALLED = {
  'data': 'data',
  'models': 'model',
  'training/losses': 'loss',
  'training/optimizers': 'optimizer',
}


def keys_read(source: str, part: str) -> set[str]:
  """Dotted keys that a module reads from its `config`; checks do not count."""
  names = {'config': part}

  def resolve(node):
    if isinstance(node, ast.Name):
      return names.get(node.id)
    if isinstance(node, ast.Attribute):
      above = resolve(node.value)
      return None if above is None else f'{above}.{node.attr}'.lstrip('.')
    return None

  found = set()

  def visit(node):
    if isinstance(node, ast.FunctionDef) and 'check' in node.name:
      return
    if isinstance(node, ast.Assign):
      target, value = node.targets[0], node.value
      pairs = [(target, value)]
      if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=True)
      for name, given in pairs:
        path = resolve(given)
        if path is not None and isinstance(name, ast.Name):
          names[name.id] = path
    if isinstance(node, ast.Attribute):
      found.add(resolve(node))
    for child in ast.iter_child_nodes(node):
      visit(child)

  visit(ast.parse(source))
  return found - {None}


def unread(config) -> list[str]:
  """Leaves outside of parts that nothing in the package reads."""
  read = set()
  package = REPOSITORY / 'emanet_jax'
  for path in sorted(package.rglob('*.py')):
    room = path.relative_to(package).as_posix()
    if room in ('config.py', 'config_flag.py') or room.startswith('tools'):
      continue
    part = next((v for k, v in CALLED.items() if room.startswith(k)), '')
    read |= keys_read(path.read_text(), part)
  return [
    key
    for key in leaves(config)
    if key not in read and key.rpartition('.')[0] not in PARTS
  ]


def test_every_key_is_read():
  assert unread(default_config()) == []


@pytest.mark.parametrize(
  'section', ['', 'model', 'data', 'train', 'eval', 'predict']
)
def test_a_key_that_nothing_reads_is_noticed(section):
  config = default_config()
  place = config[section] if section else config
  with place.unlocked():
    place.forgotten = 1
  assert unread(config) == [f'{section}.forgotten'.lstrip('.')]


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda f: f.key)
def test_a_part_reads_each_of_its_options(folder):
  for name in folder.names():
    (create,) = [
      node
      for node in ast.parse(inspect.getsource(folder.module(name))).body
      if isinstance(node, ast.FunctionDef) and node.name == 'create'
    ]
    used = {n.id for n in ast.walk(create) if isinstance(n, ast.Name)}
    options = folder.options(name).keys()
    assert options <= used, name
    module = folder.module(name)
    documented = ast.get_docstring(create)
    for other in re.findall(r'as of `(\w+)`', documented):
      documented += inspect.getdoc(getattr(module, other))
    for option in options:
      known = f'{option}:' in documented
      assert known, f'{name}: {option} is not explained'
    free = folder.free(name, evaluating=True)
    assert set(free) <= options, f'{module.__name__} frees what it has not'


def test_sections_of_parts_are_their_options():
  config = default_config()
  for section in PARTS:
    place = config
    for part in section.split('.'):
      place = place[part]
    given = {key for key in place if key not in OWN}
    folder = next(f for f in FOLDERS if section.startswith(f.key))
    name = place.get('name', section.rpartition('.')[2])
    assert given == set(folder.options(name)), section


def test_another_name_brings_its_options_and_takes_the_old_ones():
  config = default_config()
  config.model.head.name = 'fcn'
  assert dict(config.model.head) == {
    'name': 'fcn',
    'channels': 512,
    'num_convs': 0,
    'concat_input': False,
    'dilation': 1,
    'dropout_rate': 0.1,
  }
  config.model.head.num_convs = 1
  config.model.head.name = 'fcn'  # the same again changes nothing
  assert config.model.head.num_convs == 1
  with pytest.raises(AttributeError, match='num_bases'):
    config.model.head.num_bases = 3
  assert config.model.auxiliary_head.weight == 0
  config.model.auxiliary_head.name = 'ema'
  assert config.model.auxiliary_head.weight == 0
  assert config.model.auxiliary_head.num_bases == 64
  with pytest.raises(UserError, match='known are adamw, sgd'):
    config.optimizer.name = 'adam'
  assert config.optimizer.name == 'sgd'
  assert config.copy_and_resolve_references() == config
  assert copy.deepcopy(config) == config


@pytest.mark.parametrize('make', [dict, ml_collections.ConfigDict])
def test_update_sets_the_name_first(make):
  config = default_config()
  config.optimizer.update(make({'learning_rate': 1e-4, 'name': 'adamw'}))
  assert config.optimizer.learning_rate == 1e-4
  assert config.optimizer.beta2 == 0.999
  head = make({'channels': 64, 'name': 'fcn', 'num_convs': 2})
  config.update(make({'model': make({'head': head})}))
  assert dict(config.model.head) == {
    **{'name': 'fcn', 'channels': 64, 'num_convs': 2},
    **{'concat_input': False, 'dilation': 1, 'dropout_rate': 0.1},
  }


def test_an_option_of_another_part_is_refused_with_those_there_are():
  with pytest.raises(UserError, match=r"num_bases: 'fcn' has no such option; "):
    parts.HEADS.create('fcn', 21, 0.9, num_bases=3)
