"""Curves of time and memory: their powers, what does not fit, the figure."""

import json

import jax
import pytest
from absl import flags
from absl.testing import flagsaver
from matplotlib.colors import to_rgb

from emanet_jax.models.segmenter import create_model
from emanet_jax.tools.benchmark import __main__ as benchmark
from emanet_jax.tools.benchmark import scaling, scaling_figure, subjects
from tests import pictures, tiny


def measure(**changes):
  model = create_model(tiny.tiny_config().model, subjects.CLASSES)
  sides, small = (9, 17, 33), {'bases': (4, 16, 64), 'stages': (1, 3)}
  options = {'channels': (16, 8), 'rounds': 1, **small, **changes}
  return scaling.measure(model, sides=sides, **options)


@pytest.fixture(scope='module')
def result():
  return measure()


def curve(result, name, over='N'):
  (found,) = [
    c for c in result['curves'] if (c['name'], c['over']) == (name, over)
  ]
  return found


def test_operations_grow_as_the_paper_says(result):
  """O(NKT) against O(N²)."""
  for c in (16, 8):
    attention = curve(result, f'EM attention, C = {c}')
    assert [p['value'] for p in attention['points']] == [81, 289, 1089]
    # Two products a round, and one to re-estimate.
    assert attention['points'][0]['flops'] == 7 * 2 * 81 * 64 * c
    assert attention['slopes']['flops'] == pytest.approx(1)
    over_bases = curve(result, f'EM attention, C = {c}', 'K')
    assert over_bases['slopes']['flops'] == pytest.approx(1)
    one, three = curve(result, f'EM attention, C = {c}', 'T')['points']
    assert three['flops'] / one['flops'] == 7 / 3
    non_local = curve(result, f'non-local attention, C = {c}')
    assert non_local['points'][0]['flops'] == 2 * 2 * 81**2 * c
    assert non_local['slopes']['flops'] == pytest.approx(2)
  unit = curve(result, 'EM attention unit, C = 16')
  assert unit['slopes']['flops'] == pytest.approx(1)
  assert 0.8 < curve(result, 'whole network')['slopes']['flops'] < 1.1


def test_so_does_planned_memory(result):
  linear = curve(result, 'EM attention, C = 16')
  assert 0.8 < linear['slopes']['planned_bytes'] < 1.1
  square = curve(result, 'non-local attention, C = 16')
  assert 1.7 < square['slopes']['planned_bytes'] < 2.1
  # Its pixels' relations alone are N² numbers.
  assert square['points'][-1]['planned_bytes'] > 4 * 1089**2


def test_all_was_timed(result):
  for found in result['curves']:
    for point in found['points']:
      middle, least, most = point['seconds']
      assert 0 < least <= middle <= most < 60


def test_slopes_are_powers():
  points = [{'value': x, 'seconds': [3 * x**1.5, 0, 0]} for x in (2, 8, 64)]
  found = scaling._slope({'points': points}, 'seconds')
  assert found == pytest.approx(1.5)
  assert scaling._slope({'points': points[:1]}, 'seconds') is None


def test_what_does_not_fit_is_left_out_and_told(monkeypatch):
  room = 2e6
  monkeypatch.setattr(scaling, '_room', lambda: room)
  found = measure(channels=(16,), bases=(4,), stages=(1,))
  non_local = curve(found, 'non-local attention, C = 16')
  # 1089 pixels do not fit.
  first, second, third = non_local['points']
  assert first['seconds']
  assert second['seconds']
  assert third['seconds'] is None
  assert third['planned_bytes'] > room > second['planned_bytes']
  size = f'{third["planned_bytes"] / 1e9:.2f} GB'
  assert f'1089 does not fit: {size}' in scaling.table(found)
  for other in found['curves']:
    assert all(p['seconds'] for p in other['points'][:-1])


def test_a_compiler_without_room_is_told_too(monkeypatch, tmp_path):
  compile_lowered = jax.stages.Lowered.compile
  message = 'RESOURCE_EXHAUSTED: tried to allocate'

  def compile_small(lowered):
    if any(x.shape[1:2] == (1089,) for x in jax.tree.leaves(lowered.in_avals)):
      raise jax.errors.JaxRuntimeError(message)
    return compile_lowered(lowered)

  monkeypatch.setattr(jax.stages.Lowered, 'compile', compile_small)
  found = measure(channels=(16,), bases=(4,), stages=(1,))
  assert '1089 does not fit: ? GB' in scaling.table(found)
  scaling_figure.scaling_png(tmp_path / 'some.png', found)
  assert (tmp_path / 'some.png').exists()
  message = 'INTERNAL: the compiler has a bug'
  with pytest.raises(jax.errors.JaxRuntimeError, match='a bug'):
    measure(channels=(16,), bases=(4,), stages=(1,))


def test_the_figure_shows_every_curve(result, tmp_path):
  path = tmp_path / 'scaling.png'
  scaling_figure.scaling_png(path, result)
  picture = pictures.read(path)
  for color in scaling_figure._COLORS.values():
    rgb = [round(255 * x) for x in to_rgb(color)]
    assert pictures.where(picture, rgb).any()


@flagsaver.flagsaver
def test_the_command(result, monkeypatch, tmp_path, capsys):
  asked = []

  def measured(model, **options):
    asked.append((model.dtype, options))
    return result

  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(scaling, 'measure', measured)
  flags.FLAGS.unparse_flags()
  argv = ['benchmark', 'scaling', '--size=65', '--rounds=2', '--out=found.json']
  benchmark.main(flags.FLAGS(argv))
  expected = {'sides': [9, 17, 33, 65], 'channels': (512, 256), 'rounds': 2}
  assert asked == [('float32', expected)]
  assert json.loads((tmp_path / 'found.json').read_text()) == result
  assert (tmp_path / 'scaling.png').exists()
  assert scaling.table(result) in capsys.readouterr().out
