"""The evaluation benchmark compares two ways that agree."""

from emanet_jax.tools.benchmark import evaluation
from tests import tiny


def test_both_ways_score_the_same_pixels(monkeypatch):
  sizes = ((30, 40), (40, 30), (33, 40), (20, 37))
  monkeypatch.setattr(evaluation, '_SIZES', sizes)
  monkeypatch.setattr(evaluation, '_IMAGES_OF_SPLIT', 5)
  # It would hold for the whole process.
  monkeypatch.setattr(evaluation.startup, 'keep_freed_memory', lambda: None)
  result = evaluation.measure(
    tiny.tiny_config().model, num_images=5, batch_size=2, rounds=1
  )
  assert result['equal_pixels'] > 0.9999
  assert result['few shapes']['compilations'] == 1
  # Of so few, all share 41×41, two at a time.
  pixels = sum(h * w for h, w in (*sizes, sizes[0]))
  assert result['padding'] == 6 * 41**2 / pixels
  # 30×40 and 33×40 are both padded to 33×41.
  assert result['one at a time']['compilations'] == 3
  one, alone = result['few shapes'], result['one at a time']
  assert result['warm_ratio'] == one['warm'] / alone['warm']
  assert (
    result['ratio'] == one['images_per_second'] / alone['images_per_second']
  )
  text = evaluation.table(result)
  assert f'{result["warm_ratio"]:.2f} when warm' in text
