"""Curves of time and memory: their powers, what does not fit, the figure."""

import json
import os

import jax
import pytest
from absl import flags
from absl.testing import flagsaver
from matplotlib.colors import to_rgb

from emanet_jax.tools.benchmark import __main__ as benchmark
from emanet_jax.tools.benchmark import scaling, scaling_figure
from tests import pictures, tiny


def measure(**changes):
  sides, small = (9, 17, 33), {'bases': (4, 16, 64), 'stages': (1, 3)}
  options = {'channels': (16, 8), 'rounds': 1, **small, **changes}
  with pytest.MonkeyPatch.context() as patch:
    # It would hold for the whole process.
    patch.setattr(scaling.startup, 'keep_freed_memory', lambda: None)
    config = tiny.tiny_config().model
    return scaling.measure(config, sides=sides, **options)


def few(**changes):
  """Without the whole network, which alone takes long to trace."""

  def curves(*arguments):
    return [c for c in every_curve(*arguments) if c.subject != 'whole network']

  every_curve = scaling.curves
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(scaling, 'curves', curves)
    return measure(channels=(16,), bases=(4,), stages=(1,), **changes)


@pytest.fixture(scope='module')
def result():
  return measure()


def curve(result, subject, channels=16, over='N'):
  wanted = {'subject': subject, 'channels': channels, 'over': over}
  (found,) = [c for c in result['curves'] if c.items() >= wanted.items()]
  return found


def test_operations_grow_as_the_paper_says(result):
  """O(NKT) against O(N²)."""
  for c in (16, 8):
    attention = curve(result, 'EM attention', c)
    assert [p['value'] for p in attention['points']] == [81, 289, 1089]
    # Two products a stage, and one to re-estimate.
    assert attention['points'][0]['flops'] == 7 * 2 * 81 * 64 * c
    assert attention['slopes']['flops'] == pytest.approx(1)
    over_bases = curve(result, 'EM attention', c, 'K')
    assert over_bases['slopes']['flops'] == pytest.approx(1)
    one, three = curve(result, 'EM attention', c, 'T')['points']
    assert three['flops'] / one['flops'] == 7 / 3
    non_local = curve(result, 'non-local attention', c)
    assert non_local['points'][0]['flops'] == 2 * 2 * 81**2 * c
    assert non_local['slopes']['flops'] == pytest.approx(2)
    unit = curve(result, 'EM attention unit', c)
    assert unit['slopes']['flops'] == pytest.approx(1)
    network = curve(result, 'whole network', c)
    assert 0.8 < network['slopes']['flops'] < 1.1


def test_the_whole_network_holds_the_bases_and_stages_asked_for(result):
  c = 16
  for subject, pixels in (('EM attention unit', 289), ('whole network', 81)):
    each = 2 * pixels * c
    first, *_, last = curve(result, subject, c, 'K')['points']
    assert last['flops'] - first['flops'] == 7 * each * (64 - 4)
    one, three = curve(result, subject, c, 'T')['points']
    assert three['flops'] - one['flops'] == 2 * 2 * each * 64


def test_so_does_planned_memory(result):
  linear = curve(result, 'EM attention')
  assert 0.8 < linear['slopes']['planned_bytes'] < 1.1
  square = curve(result, 'non-local attention')
  assert 1.7 < square['slopes']['planned_bytes'] < 2.1
  # Its pixels' relations alone are N² numbers.
  assert square['points'][-1]['planned_bytes'] > 4 * 1089**2


def test_all_was_timed(result):
  for found in result['curves']:
    for point in found['points']:
      middle, least, most = point['seconds']
      assert 0 < least <= middle <= most < 60
      assert point['turns'] == 1
      assert point['left_out'] is None


def test_slopes_are_powers():
  points = [{'value': x, 'seconds': [3 * x**1.5, 0, 0]} for x in (2, 8, 64)]
  found = scaling._slope({'points': points}, 'seconds')
  assert found == pytest.approx(1.5)
  assert scaling._slope({'points': points[:1]}, 'seconds') is None


def test_what_does_not_fit_is_left_out_and_told(monkeypatch):
  room = 2e6
  monkeypatch.setattr(scaling, '_room', lambda: room)
  found = few()
  first, second, third = curve(found, 'non-local attention')['points']
  assert first['seconds']
  assert second['seconds']
  assert third['seconds'] is None
  assert third['planned_bytes'] > room > second['planned_bytes']
  size = f'{third["planned_bytes"] / 1e9:.3g} GB'
  assert f'1089 does not fit: {size}' in scaling.table(found)
  for other in found['curves']:
    assert all(p['seconds'] for p in other['points'][:-1])


def test_where_nothing_fits_all_is_told(monkeypatch, tmp_path):
  monkeypatch.setattr(scaling, '_room', lambda: 0.0)
  found = few()
  for one in found['curves']:
    (point,) = one['points']
    assert point['seconds'] is None
    assert one['slopes'] == dict.fromkeys(('seconds', 'planned_bytes', 'flops'))
  text = scaling.table(found)
  assert text.count('does not fit') == len(found['curves'])
  scaling_figure.scaling_png(tmp_path / 'some.png', found)
  assert (tmp_path / 'some.png').exists()


@pytest.mark.parametrize('stage', ['compile', 'run'])
def test_running_out_of_memory_is_told_too(stage, monkeypatch):
  message = 'RESOURCE_EXHAUSTED: tried to allocate'

  def refuse_large(call, shapes):
    def limited(*args):
      if any(x.shape[1:2] == (1089,) for x in jax.tree.leaves(shapes(*args))):
        raise jax.errors.JaxRuntimeError(message)
      return call(*args)

    return limited

  if stage == 'compile':
    compile_all = jax.stages.Lowered.compile
    limited = refuse_large(compile_all, lambda lowered: lowered.in_avals)
    monkeypatch.setattr(jax.stages.Lowered, 'compile', limited)
  else:
    limited = refuse_large(scaling._turn, lambda run, work, count: work.x)
    monkeypatch.setattr(scaling, '_turn', limited)
  text = scaling.table(few())
  assert text.count('1089 does not fit') == 2
  message = 'INTERNAL: there is a bug'
  with pytest.raises(jax.errors.JaxRuntimeError, match='a bug'):
    few()


def test_what_would_take_too_long_is_left_out(monkeypatch):
  monkeypatch.setattr(scaling, '_SLOW', 0.0)
  found = few()
  points = curve(found, 'EM attention')['points']
  assert [p['left_out'] for p in points] == [None, 'would take 0 s']
  assert points[1]['planned_bytes'] > points[0]['planned_bytes']


def test_a_slow_point_has_fewer_turns(monkeypatch):
  monkeypatch.setattr(scaling, '_SPENT', 0.0)
  found = few(rounds=3)
  assert {p['turns'] for c in found['curves'] for p in c['points']} == {1}


def test_room_is_of_this_machine():
  physical = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  assert 1e8 < scaling._room() < physical


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

  def measured(config, **options):
    asked.append((config.dtype, config.backbone.depth, options))
    return result

  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(scaling, 'measure', measured)
  flags.FLAGS.unparse_flags()
  argv = ['benchmark', 'scaling', '--dtype=bfloat16', '--rounds=2']
  argv += ['--size=65', '--out=found.json', '--png=some.png']
  benchmark.main(flags.FLAGS(argv))
  expected = {'sides': [9, 17, 33, 65], 'channels': (512, 256), 'rounds': 2}
  assert asked == [('bfloat16', 50, expected)]
  assert json.loads((tmp_path / 'found.json').read_text()) == result
  assert (tmp_path / 'some.png').exists()
  assert scaling.table(result) in capsys.readouterr().out


@flagsaver.flagsaver
@pytest.mark.parametrize('flag', ['--size=8', '--channels=1'])
def test_what_cannot_be_halved_is_refused(flag, capsys):
  flags.FLAGS.unparse_flags()
  with pytest.raises(SystemExit, match=f'{flag}.*needs 9 pixels'):
    benchmark.main(flags.FLAGS(['benchmark', 'scaling', flag]))
