"""Grids of runs: what they are made of, their tables, and going on."""

import csv
import io
import json
import os

import numpy as np
import pytest

from configs import shapes, voc, voc_256
from emanet_jax.data.datasets import get_dataset
from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from emanet_jax.evaluation import evaluate
from emanet_jax.inference.batching import LackOfMemoryError
from emanet_jax.parts import HEADS
from emanet_jax.tools.ablation import costs, figures, grids, runs, tables
from emanet_jax.tools.ablation.ablation import ablate
from emanet_jax.training.metric_writer import open_writer
from emanet_jax.training.step_metrics import DivergedError
from tests import pictures, tiny


def configured(config, run):
  head = grids.configure(config, run).model.head
  return head.maintenance, head.basis_norm, head.gradient


def test_stages_are_trained_once_and_evaluated_eight_times():
  config = shapes.get_config()
  grid = grids.stages(config, [0, 5])
  names = ['T1', 'T2', 'T3', 'T4', 'T5', 'T6', 'T7', 'T8']
  assert [r.name for r in grid.runs] == [
    *(f'{name}_seed0' for name in names),
    *(f'{name}_seed5' for name in names),
  ]
  run = grid.runs[10]
  given = grids.configure(config, run)
  assert (given.seed, given.model.head.num_stages) == (5, 3)
  assert given.model.head.eval_stages == 0
  evaluated = {
    cell: grids.changed(given, changes).model.head.eval_stages
    for cell, changes in run.evaluations.items()
  }
  assert evaluated == {('3', str(t)): t for t in (1, 2, 3, 4, 5, 6, 7, 8)}
  assert config.model.head.num_stages == 3
  assert config.seed == 0


def test_bases_are_nine_runs_and_only_learnt_ones_need_gradients():
  config = shapes.get_config()
  grid = grids.bases(config, [0])
  assert {configured(config, run) for run in grid.runs} == {
    ('none', 'none', 'cut'),
    ('none', 'layer', 'cut'),
    ('none', 'l2', 'cut'),
    ('parameter', 'none', 'full'),
    ('parameter', 'layer', 'full'),
    ('parameter', 'l2', 'full'),
    ('moving_average', 'none', 'cut'),
    ('moving_average', 'layer', 'cut'),
    ('moving_average', 'l2', 'cut'),
  }
  assert len(grid.runs) == 9
  assert [
    (*r.evaluations,) for r in grid.runs if r.name == 'none_l2_seed0'
  ] == [(('none', 'l2'),)]


def test_heads_are_fitted_to_the_run_books_width_and_crop():
  """128 of 512 channels; features of 9×9 where the papers have 65×65."""
  config = shapes.get_config()
  wanted = ['psa', 'deeplabv3', 'cc', 'ocr', 'ema']
  grid = grids.heads(config, [2], wanted)
  assert [r.name for r in grid.runs] == [f'{name}_seed2' for name in wanted]
  found = [grids.configure(config, r).model.head.to_dict() for r in grid.runs]
  usual = {name: HEADS.options(name) for name in wanted}
  assert found == [
    {'name': 'psa', **usual['psa'], 'channels': 128, 'mask_size': 9},
    {
      **{'name': 'deeplabv3', **usual['deeplabv3']},
      **{'channels': 64, 'rates': (2, 3, 5)},
    },
    {'name': 'cc', **usual['cc'], 'channels': 128, 'inner_channels': 16},
    {
      **{'name': 'ocr', **usual['ocr'], 'channels': 128},
      **{'inner_channels': 64, 'region_channels': 64},
    },
    config.model.head.to_dict(),
  ]
  assert len(grids.heads(config, [0]).runs) == len(HEADS.names())


def test_at_the_papers_size_heads_have_their_defaults():
  config = voc.get_config()
  config.data.crop_size = 513
  config.model.backbone.output_stride = 8
  for run in grids.heads(config, [0]).runs:
    head = grids.configure(config, run).model.head.to_dict()
    assert head == {'name': head['name'], **HEADS.options(head['name'])}
  config.model.backbone.output_stride = 16
  (run,) = grids.heads(config, [0], ['deeplabv3']).runs
  assert grids.configure(config, run).model.head.rates == (6, 12, 18)
  (run,) = grids.heads(voc_256.get_config(), [0], ['nonlocal']).runs
  assert run.changes['model.head.inner_channels'] == 128


@pytest.mark.parametrize(
  ('what', 'seeds', 'heads', 'told'),
  [
    ('stages', ['0', 'a'], [], '--seeds=0,a: give whole numbers'),
    ('stages', ['0', '-1'], [], '--seeds=0,-1: give whole numbers'),
    ('bases', ['1', '1'], [], '--seeds=1,1: give whole numbers ≥ 0, each once'),
    ('bases', ['0'], ['psp'], '--heads is for the grid of heads, not for ba'),
    ('heads', ['0'], ['psp', 'unet'], "model.head.name is 'unet'; known are"),
    ('heads', ['0'], ['psp', 'psp'], '--heads=psp,psp: give each head once'),
  ],
)
def test_mistakes_are_told(what, seeds, heads, told):
  with pytest.raises(UserError, match=told):
    grids.create(what, shapes.get_config(), seeds, heads)


def test_another_head_has_neither_stages_nor_bases():
  config = shapes.get_config()
  config.model.head.name = 'fcn'
  for what in ('stages', 'bases'):
    with pytest.raises(UserError, match=r"model\.head\.name is 'fcn'"):
      grids.create(what, config, ['0'])


def test_costs_are_those_of_the_classifier_added():
  """Of 256 features at 5×5 places to one class more, resized to 33×33."""
  config = tiny.tiny_config(model__head__name='fcn', model__head__num_convs=0)
  few, more = (costs.count(config, classes) for classes in (7, 8))
  assert more.parameters - few.parameters == 256 + 1
  resized = 33 * 5 * 5 + 33 * 33 * 5
  assert more.multiply_adds - few.multiply_adds == 5 * 5 * 256 + resized


@pytest.fixture
def fake():
  """A grid of three heads and two seeds, and its scores."""
  grid = grids.heads(shapes.get_config(), [0, 3], ['ema', 'psp', 'fcn'])
  results = {
    (('ema', 'mIoU'), 0): 0.8125,
    (('ema', 'mIoU'), 3): 0.84375,
    (('psp', 'mIoU'), 0): 0.5,
    (('psp', 'mIoU'), 3): 'loss is nan |\nat 7',
  }
  known = {'ema': costs.Cost(1_234_567, 2_000_000_000)}
  return grid, tables.summarize(grid, results), known


def test_the_table_says_what_there_is(fake):
  page = tables.to_markdown(*fake, 'shapes val')
  lines = page.splitlines()
  assert lines[0].startswith('# heads at equal')
  assert 'mean ± standard deviation (n - 1) over the seeds 0, 3' in lines[2]
  mean = np.mean([81.25, 84.375])
  spread = np.std([81.25, 84.375], ddof=1)
  assert lines[4:] == [
    '| head | parameters, M | multiply-adds, G | mIoU |',
    '| --- | ---: | ---: | ---: |',
    f'| ema | 1.235 | 2.000 | **{mean:.2f} ± {spread:.2f}** |',
    '| psp | - | - | 50.00 (1 of 2 seeds) ✗ loss is nan \\| at 7 |',
    '| fcn | - | - | - |',
  ]


def test_the_csv_has_each_number(fake):
  rows = list(csv.DictReader(io.StringIO(tables.to_csv(*fake))))
  assert [row['head'] for row in rows] == ['ema', 'psp', 'fcn']
  ema, psp, fcn = rows
  assert (ema['parameters'], ema['multiply_adds']) == ('1234567', '2000000000')
  assert (ema['seed_0'], ema['seed_3']) == ('0.8125', '0.84375')
  assert float(ema['mean']) == np.mean([0.8125, 0.84375])
  spread = np.std([0.8125, 0.84375], ddof=1)
  assert float(ema['standard_deviation']) == pytest.approx(spread, rel=1e-12)
  assert (psp['mean'], psp['standard_deviation']) == ('0.5', '')
  assert (psp['seed_3'], psp['reason']) == ('', 'loss is nan | at 7')
  assert set(fcn.values()) == {'fcn', ''}


def test_the_pictures_show_it(fake, tmp_path):
  figures.draw(tmp_path / 'bars.png', *fake, 'what they are')
  bars = pictures.read(tmp_path / 'bars.png')
  blue = pictures.where(bars, (31, 95, 153)).sum(axis=1)
  lengths = sorted({int(n) for n in blue if n > 100})
  assert lengths[-1] / lengths[0] == pytest.approx(82.8125 / 50, abs=0.02)
  grid = grids.bases(shapes.get_config(), [0])
  scores = {(cell, 0): 0.5 for run in grid.runs for cell in run.evaluations}
  scores[('none', 'none'), 0] = 0.75
  scores[('moving_average', 'l2'), 0] = 'diverged'
  cells = tables.summarize(grid, scores)
  figures.draw(tmp_path / 'map.png', grid, cells, {}, 'what they are')
  heat = pictures.read(tmp_path / 'map.png')
  sizes = [
    pictures.where(heat, color).sum()
    for color in ((8, 48, 107), (247, 251, 255), (228, 231, 235))
  ]
  assert sizes[1] / sizes[0] == pytest.approx(7, rel=0.1)
  assert sizes[2] / sizes[0] == pytest.approx(1, rel=0.1)


@pytest.fixture
def grid():
  """Three of the nine."""
  found = grids.bases(tiny.tiny_config(), [0])
  return grids.Grid(**{**vars(found), 'runs': found.runs[:3]})


class Training:
  """Stands in for `train.train`: saves, or does what is asked for a run.

  Attributes:
    names: Of the runs that it was called for.
    instead: Name to what happens instead.
  """

  def __init__(self):
    self.names, self.instead = [], {}

  def train(self, config, workdir):
    name = workdir.rpartition('/')[2]
    self.names.append(name)
    if name in self.instead:
      return self.instead[name]()
    steps = config.train.steps
    variables = {'params': {'head': {'w': np.zeros(3, np.float32)}}}
    tiny.save_step(config, variables, workdir, steps)
    score = len(self.names) / 8
    with open_writer(workdir, None, writes=True) as writer:
      writer.write(steps, 'eval', {'mIoU': score})
    folder = tiny.pathlib.Path(workdir, 'eval')
    folder.mkdir()
    views = {'scales': [1.0], 'flip': False, 'window': 0, 'stride': 0}
    report = {'mIoU': score, 'split': 'val', 'step': steps, **views}
    (folder / 'scores.json').write_text(json.dumps(report))


@pytest.fixture
def training(monkeypatch):
  found = Training()
  monkeypatch.setattr(runs.train, 'train', found.train)
  monkeypatch.setattr(runs.startup, 'give_back_memory', lambda: None)
  return found


def column(directory):
  with open(directory / 'bases.csv') as file:
    return [row['mean'] for row in csv.DictReader(file)][:3]


def test_what_is_finished_is_only_read(grid, training, tmp_path):
  config = tiny.tiny_config()
  names = [run.name for run in grid.runs]
  training.instead[names[1]] = lambda: None  # stopped before its last step
  with pytest.raises(SystemExit) as stopped:
    ablate(config, grid, str(tmp_path))
  assert stopped.value.code == 75
  assert training.names == names[:2]
  assert column(tmp_path) == ['0.125', '', '']

  training.instead.clear()
  found = ablate(config, grid, str(tmp_path))
  assert training.names == [*names[:2], *names[1:]]
  assert column(tmp_path) == ['0.125', '0.375', '0.5']
  assert (tmp_path / 'bases.png').exists()
  assert ablate(config, grid, str(tmp_path)) == found
  assert len(training.names) == 4

  config.optimizer.learning_rate = 0.5
  with pytest.raises(UserError, match='seed0/checkpoints/20 was made with ano'):
    ablate(config, grid, str(tmp_path))
  assert len(training.names) == 4


def test_a_run_that_diverges_leaves_a_reason(grid, training, tmp_path):
  def diverge():
    raise DivergedError('loss is nan')

  training.instead[grid.runs[1].name] = diverge
  ablate(tiny.tiny_config(), grid, str(tmp_path))
  assert column(tmp_path) == ['0.125', '', '0.375']
  assert (
    '| none | 12.50 | ✗ loss is nan | **37.50** |'
    in (tmp_path / 'bases.md').read_text()
  )


def test_a_cell_that_lacks_memory_leaves_the_others(
  training, tmp_path, monkeypatch
):
  def evaluation(config, changes, workdir):
    if changes.get('model.head.eval_stages') == 5:
      raise LackOfMemoryError('too large')
    return 0.25

  monkeypatch.setattr(runs, '_evaluate', evaluation)
  config = tiny.tiny_config()
  run = grids.stages(config, [0]).runs[0]
  found = runs.complete(config, run, tmp_path / 'run')
  assert len(found) == 8
  assert list(found.values()).count('too large') == 1
  assert sum(isinstance(score, float) for score in found.values()) == 7


def test_a_report_of_weights_before_is_not_read(grid, training, tmp_path):
  config, run = tiny.tiny_config(), grid.runs[0]
  runs.complete(config, run, tmp_path / 'run')
  assert list(runs.read(config, run, tmp_path / 'run').values()) == [0.125]
  os.utime(tmp_path / 'run' / 'eval' / 'scores.json', (0, 0))
  assert runs.read(config, run, tmp_path / 'run') == {}


def test_a_head_that_cannot_be_leaves_a_reason(training, tmp_path, monkeypatch):
  dataset = tiny.Listed(get_dataset('shapes').SPEC, tmp_path, {})
  monkeypatch.setattr(pipeline, 'open_dataset', lambda *_: dataset)
  config = tiny.tiny_config()
  config.model.backbone.output_stride = 32
  grid = grids.heads(config, [0, 1], ['ocr', 'ema'])
  ablate(config, grid, str(tmp_path))
  assert training.names == ['ema_seed0', 'ema_seed1']
  ocr = (tmp_path / 'heads.md').read_text().splitlines()[6]
  assert ocr.startswith('| ocr | - | - | ✗ the ocr head takes stages of one')


@pytest.mark.slow  # six evaluations
def test_two_trainings_are_evaluated_twice_each(
  tmp_path, tmp_path_factory, monkeypatch
):
  data_dir = tiny.shared(tmp_path_factory, 'data')
  config = tiny.tiny_config(data__data_dir=str(data_dir), train__steps=2)
  monkeypatch.setattr(grids, 'STAGES', (1, 2))
  grid = grids.stages(config, [0])
  found = ablate(config, grid, str(tmp_path))
  assert len(found) == 4
  for run in grid.runs:
    workdir = tmp_path / 'stages' / run.name
    count = run.name[1]
    own = json.loads((workdir / 'eval' / 'scores.json').read_text())
    assert found[(count, count), 0] == own['mIoU']
  given = grids.configure(config, grid.runs[0])
  given.model.head.eval_stages = 2
  scored = evaluate.evaluate(given, str(tmp_path / 'stages' / 'T1_seed0'))
  assert found[('1', '2'), 0] == scored.miou
  assert found[('1', '2'), 0] != found[('1', '1'), 0]
  monkeypatch.setattr(runs.train, 'train', None)
  monkeypatch.setattr(runs.evaluate, 'create_scorer', None)
  assert ablate(config, grid, str(tmp_path)) == found


def test_the_program_ends_in_one_line_for_a_mistake(commands, tmp_path):
  flags = ('--config=configs/shapes.py', f'--workdir={tmp_path}', '--heads=psp')
  finished = commands.run('emanet_jax.tools.ablation', 'stages', *flags)
  assert finished.returncode == 1
  last = finished.stderr.splitlines()[-1]
  assert last == 'error: --heads is for the grid of heads, not for stages'
