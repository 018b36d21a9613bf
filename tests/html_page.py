"""A made-up evaluation as an HTML page, and a reader of such pages."""

import base64
import html.parser
import io
import re

import numpy as np
from PIL import Image

from emanet_jax.data.spec import DatasetSpec
from emanet_jax.evaluation import html_report
from emanet_jax.evaluation.scores import score

NAMES = ('grass', '<b>"A" & \'B\'</b>', 'sea', 'never', 'unseen')
PALETTE = ((10, 200, 30), (250, 120, 0), (0, 60, 240), (9, 9, 9), (90, 9, 90))
# 'never' occurs nowhere and 'unseen' is only predicted.
CONFUSION = np.zeros((5, 5), np.int64)
CONFUSION[:3, :3] = [[70, 5, 1], [20, 1234567, 0], [3, 0, 2]]
CONFUSION[0, 4] = 24
BASES = 7
VOID = {'meta', 'img', 'input', 'link', 'br'}


def spec_of(names, palette):
  return DatasetSpec('made <up>', names, palette, {}, '', '', '', '')


SPEC = spec_of(NAMES, PALETTE)


def picture(name='photo', height=40, width=60, attention=True):
  """Left half class 0, right half 1; its lower right quarter seen as 2."""
  rng = np.random.default_rng(len(name))
  label = np.zeros((height, width), np.uint8)
  label[:, width // 2 :] = 1
  prediction = label.copy()
  prediction[height // 2 :, width // 2 :] = 2
  label[: height // 2, : width // 2] = 255
  made = {
    'id': name,
    'image': rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
    'label': label,
    'prediction': prediction,
  }
  if attention:
    z = rng.random((5, 8, BASES), np.float32)
    made['responsibilities'] = z / z.sum(-1, keepdims=True)
  return made


class Page(html.parser.HTMLParser):
  """Tables as rows of text, and every element's attributes."""

  def __init__(self, text):
    super().__init__()
    self.tables, self.elements, self._open = [], [], []
    self.text = ''
    self.feed(text)
    assert not self._open

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    self.elements.append((tag, attributes))
    # The matrix leaves its cells open, as HTML allows.
    if tag in ('td', 'tr') and self._open[-1] == 'td':
      self._open.pop()
    if tag not in VOID:
      self._open.append(tag)
    if tag == 'table':
      self.tables.append([])
    elif tag == 'tr':
      self.tables[-1].append([])
    elif tag in ('td', 'th'):
      self.tables[-1][-1].append('')

  def handle_endtag(self, tag):
    if tag == 'tr' and self._open[-1] == 'td':
      self._open.pop()
    assert self._open.pop() == tag

  def handle_data(self, data):
    if self._open and self._open[-1] in ('style', 'script'):
      return
    self.text += data
    if {'td', 'th'} & set(self._open):
      self.tables[-1][-1][-1] += data.strip()


def render(confusion=CONFUSION, spec=SPEC, pictures=None, **others):
  others = {'facts': {'step': '7'}, 'config': {}, **others}
  found = score(confusion)
  return html_report.render(confusion, found, spec, pictures or {}, **others)


def images(text):
  """The pictures of all data URIs, in their order."""
  uris = re.findall(r'data:image/(\w+);base64,([\w+/=]+)', text)
  found = []
  for kind, content in uris:
    image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
    image.load()
    assert image.format.lower() == kind
    found.append(image)
  assert len(found) == text.count('data:image')
  return found
