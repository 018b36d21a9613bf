"""The page says what was found, needs nothing else, and trusts no name."""

import json
import re

import numpy as np
import pytest

from emanet_jax.config import as_plain_dict, default_config
from emanet_jax.evaluation import report
from emanet_jax.evaluation.hardest_images import image_scores
from emanet_jax.evaluation.scores import score
from emanet_jax.inference.predictor import Protocol
from emanet_jax.runtime import atomic
from tests.html_page import (
  CONFUSION,
  NAMES,
  PALETTE,
  SPEC,
  Page,
  picture,
  render,
  spec_of,
)


def shown(value):
  return '–' if np.isnan(value) else f'{100 * value:.2f}'


def test_scores_are_those_of_the_matrix():
  page = Page(render())
  scores = score(CONFUSION)
  for name, value in scores.summary.items():
    assert re.search(rf'{name}\s*{shown(value)}\s*%', page.text), name
  rows = page.tables[0][1:]
  assert [row[0] for row in rows] == list(NAMES)
  ious = scores.per_class['IoU']
  np.testing.assert_array_equal(np.isnan(ious), [0, 0, 0, 1, 0])
  for i, (_, iou, accuracy, f1, share) in enumerate(rows):
    known = shown(ious[i])
    assert iou == ('absent' if known == '–' else known)
    assert accuracy == shown(scores.per_class['accuracy'][i])
    assert f1 == shown(scores.per_class['F1'][i])
    assert share == shown(scores.share[i])
  assert (rows[3][1:], rows[4][1]) == (['absent', '–', '–', '0.00'], '0.00')
  bars = [
    float(attributes['style'].removeprefix('--v:'))
    for _, attributes in page.elements
    if attributes.get('class') == 'bar'
  ]
  expected = np.stack([ious, scores.share], axis=-1).ravel()
  expected = expected[~np.isnan(expected)]
  np.testing.assert_allclose(bars, expected, atol=6e-5)


@pytest.mark.parametrize('classes', [5, 25, 26, 171])
def test_the_matrix_has_every_count(classes):
  rng = np.random.default_rng(0)
  confusion = CONFUSION
  if classes > 5:
    confusion = rng.integers(0, 9, (classes, classes)) ** 6
    confusion[3] = 0
  names = NAMES + tuple(f'class {i}' for i in range(5, classes))
  text = render(confusion, spec_of(names, ((1, 2, 3),) * classes))
  page = Page(text)
  header, *rows = page.tables[1]
  assert header == ['label', *names]
  assert [row[0] for row in rows] == list(names)
  with np.errstate(invalid='ignore'):
    percent = 100 * confusion / confusion.sum(1, keepdims=True)
  for row, counts, shares in zip(rows, confusion, percent, strict=True):
    expected = [
      f'{share:.0f}' if count else ''
      for count, share in zip(counts, shares, strict=True)
    ]
    assert row[1:] == expected
  counts = [a['data-n'] for _, a in page.elements if 'data-n' in a]
  assert list(map(int, counts)) == confusion[confusion > 0].tolist()
  totals = [a['data-total'] for _, a in page.elements if 'data-total' in a]
  assert list(map(int, totals)) == confusion.sum(1).tolist()
  many = any(a.get('class') == 'matrix many' for _, a in page.elements)
  assert many == (classes > 25)
  assert len(text) < 5e6


def test_confusions_are_the_largest_in_their_order():
  _, *rows = Page(render()).tables[2]
  assert rows == [
    ['grass', 'unseen', '24', '24.00'],
    [NAMES[1], 'grass', '20', '0.00'],
    ['grass', NAMES[1], '5', '5.00'],
    ['sea', 'grass', '3', '60.00'],
    ['grass', 'sea', '1', '1.00'],
  ]
  right = render(np.diag([3, 4, 5, 6, 7]))
  assert len(Page(right).tables) == 2


def test_a_matrix_without_a_pixel_is_shown_as_such():
  page = Page(render(np.zeros((5, 5), np.int64)))
  rows = [row[1:] for row in page.tables[0][1:]]
  assert rows == [['absent', '–', '–', '–']] * 5
  assert page.text.count('–') >= 4 + 10


def test_nothing_comes_from_outside():
  pictures = {'First': [picture()]}
  config = as_plain_dict(default_config())
  text = render(pictures=pictures, config=config)
  written = re.sub(r'data:image[^")]*', '', text)
  assert not re.search(r'https?:|file:|//\w', written)
  references = [
    (tag, name, value)
    for tag, attributes in Page(text).elements
    for name, value in attributes.items()
    if name in ('src', 'href', 'srcset', 'data', 'action', 'poster')
  ]
  assert len(references) == 3 + 1 + 6  # Layers alone: photos are backgrounds.
  for reference in references:
    assert reference[2].startswith('data:image/png;base64,'), reference
  for url in re.findall(r'url\(([^)]*)\)|@import', text):
    assert url.startswith('data:image/jpeg;base64,')
  assert "default-src 'none'" in text


def test_names_are_escaped():
  evil = '<script>"&\'</script>'
  pictures = {f'A {evil}': [picture(f'B {evil}')]}
  text = render(
    spec=spec_of((f'C {evil}', *NAMES[1:]), PALETTE),
    pictures=pictures,
    facts={f'D {evil}': f'E {evil}'},
    config={f'F {evil}': f'G {evil}'},
  )
  page = Page(text)
  assert sum(tag == 'script' for tag, _ in page.elements) == 1
  assert evil not in text
  assert NAMES[1] not in text
  for letter in 'ABCDEFG':
    assert f'{letter} {evil}' in page.text, letter
  alts = [a['alt'] for tag, a in page.elements if tag == 'img']
  assert alts[:2] == [f'B {evil}: label', f'B {evil}: prediction']


def test_configuration_marks_what_is_not_the_default():
  config = default_config()
  config.train.steps = 11
  config.data.scales = (1.0, 2.5)
  plain = as_plain_dict(config)
  page = Page(render(config=plain))
  rows = dict(page.tables[-1][1:])
  assert rows['train.steps'] == '11'
  assert rows['data.scales'] == '[1.0, 2.5]'
  assert rows['model.head.num_bases'] == str(config.model.head.num_bases)
  assert len(rows) == len(dict(leaves(plain)))
  marked = [a for tag, a in page.elements if tag == 'tr' and 'class' in a]
  assert [a['class'] for a in marked].count('changed') == 2
  assert len(Page(render()).tables) == len(page.tables) - 1


def leaves(tree, prefix=''):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from leaves(value, f'{prefix}{key}.')
    else:
      yield prefix + key, value


def evaluation_of(confusion=CONFUSION):
  scored = {**picture('worst'), **image_scores(confusion)}
  return report.Evaluation(
    confusion,
    num_images=20,
    num_shapes=3,
    seconds=8.0,
    pictures=[picture('first')],
    best=[{**picture('best'), 'miou': 0.9, 'accuracy': 1.0}],
    worst=[scored],
  )


def test_report_writes_the_page_whole(tmp_path, monkeypatch):
  config = as_plain_dict(default_config())
  folder = tmp_path / 'eval' / 'scales_0.5_1'
  conditions = report.Conditions(
    'val', 1234, Protocol((0.5, 1.0), window=9, stride=5), 'bfloat16'
  )
  report.write(folder, evaluation_of(), SPEC, conditions, config)
  assert {path.name for path in folder.iterdir()} == {
    *('report.html', 'scores.json', 'confusion.png'),
    *('overlays.png', 'attention.png'),
  }
  text = (folder / 'report.html').read_text(encoding='utf-8')
  facts = dict(re.findall('<dt>(.*)</dt><dd>(.*)</dd>', text))
  assert facts['data set'] == 'made &lt;up&gt;'
  assert (facts['split'], facts['step']) == ('val', '1,234')
  assert facts['views'] == 'scales 0.5, 1, windows of 9 every 5'
  assert facts['dtype'] == 'bfloat16'
  assert (facts['images'], facts['images/s']) == ('20', '2.5')
  assert facts['batch shapes'] == '3'
  assert re.fullmatch(r'\d{4}-\d\d-\d\d \d\d:\d\d UTC', facts['date'])
  assert facts['devices'] == '4 × cpu'
  assert facts['numpy'] == np.__version__
  assert {'python', 'jax', 'jaxlib', 'flax'} < facts.keys()
  assert re.findall('<figcaption>\n<b>(.*)</b>', text) == [
    *('worst', 'best', 'first')
  ]
  scores = json.loads((folder / 'scores.json').read_text())
  assert f'<title>made &lt;up&gt;: mIoU {100 * scores["mIoU"]:.2f}<' in text

  replace = atomic.os.replace

  def full_disk(source, target):
    if target.name == 'report.html':
      raise OSError('no space left')
    replace(source, target)

  monkeypatch.setattr(atomic.os, 'replace', full_disk)
  before = sorted(folder.iterdir())
  with pytest.raises(OSError, match='no space'):
    report.write(folder, evaluation_of(CONFUSION.T), SPEC, conditions, config)
  assert sorted(folder.iterdir()) == before
  assert (folder / 'report.html').read_text(encoding='utf-8') == text
