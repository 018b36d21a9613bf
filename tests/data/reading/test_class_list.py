"""Lists of classes as people and annotation tools write them."""

import pytest

from emanet_jax.data.reading.class_list import read_classes
from emanet_jax.data.reading.files import Files
from emanet_jax.errors import UserError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def listed(tmp_path, text):
  content = text if isinstance(text, bytes) else text.encode()
  (tmp_path / 'classes.txt').write_bytes(content)
  return Files(tmp_path, {}, tmp_path).get('classes.txt')


# Text, names, colours, and the colours that are not scored.
LISTS = {
  'names': ('a\nstreet lamp\n', ('a', 'street lamp'), (), ()),
  'no last line end': ('a\nb', ('a', 'b'), (), ()),
  'Windows, a byte order mark': ('\ufeffa\r\nb\r\n', ('a', 'b'), (), ()),
  'empty lines and comments': ('# two\n\n a \nb\n', ('a', 'b'), (), ()),
  'blanks, digits and letters': (
    'lane 1\ngroße Straße\n木\n',
    ('lane 1', 'große Straße', '木'),
    (),
    (),
  ),
  'colours': ('a 255 0 0\nb 0 0 255\n', ('a', 'b'), (RED, BLUE), ()),
  'commas': ('a,255,0,0\nb, 0, 0, 255\n', ('a', 'b'), (RED, BLUE), ()),
  'tabs': ('a\t255\t0\t0\nb\t0\t0\t255\n', ('a', 'b'), (RED, BLUE), ()),
  'names with blanks': (
    'traffic light 255 0 0\nlane 1 0 0 255\n',
    ('traffic light', 'lane 1'),
    (RED, BLUE),
    (),
  ),
  'not scored': (
    'ignore 1 1 1\na 255 0 0\nVoid,2,2,2\nb 0 0 255\n__ignore__ 3 3 3\n',
    ('a', 'b'),
    (RED, BLUE),
    ((1, 1, 1), (2, 2, 2), (3, 3, 3)),
  ),
  'labelme': ('_background_\na\n', ('_background_', 'a'), (), ()),
  'labelme, __ignore__': (
    '__ignore__\n_background_\na\n',
    ('_background_', 'a'),
    (),
    (),
  ),
  'CVAT': (
    '# label:color_rgb:parts:actions\na:255,0,0::\nb b:0,0,255:hand:run\n',
    ('a', 'b b'),
    (RED, BLUE),
    (),
  ),
  'some numbers': ('3 wheeler\ncar\n', ('3 wheeler', 'car'), (), ()),
  'numbers alone': ('0\n1\n2nd\n', ('0', '1', '2nd'), (), ()),
  'CVAT without colours': ('a:::\nb:::\n', ('a', 'b'), (), ()),
}


@pytest.mark.parametrize('case', LISTS)
def test_a_list_of_classes(case, tmp_path):
  text, names, colors, ignored = LISTS[case]
  classes = read_classes(listed(tmp_path, text))
  assert classes.names == names
  assert classes.colors == colors
  assert classes.ignored == ignored
  assert not classes.is_grey


LIST_FAULTS = {
  'a name twice': ('a\nb\na\n', ['listed twice: a.']),
  'a colour twice': ('a 1 2 3\nb 1 2 3\n', ['same colour: (1, 2, 3).']),
  'an ignored colour twice': (
    'a 1 2 3\nb 2 3 4\nvoid 1 2 3\n',
    ['same colour: (1, 2, 3).'],
  ),
  'some colours': ('a 1 2 3\nb\nc\n', ['without one are: b, c.']),
  'an ignored colour alone': ('a\nb\nvoid 1 2 3\n', ['without one are: a, b.']),
  'a colour too large': ('a 1 2 3\nb 2 3 256\n', ['(2, 3, 256)']),
  'void without value': (
    'a\nvoid\nb\n',
    ["'void' has no colour and no value", '"void 0"', 'delete'],
  ),
  'one class': ('car\n', ['names 1 class(es)', 'background']),
  'none': ('# car\n', ['names 0 class(es)']),
  'too many': (
    '\n'.join(f'c{i}' for i in range(256)),
    ['names 256 class(es)', 'expected 2 to 255'],
  ),
  'numbered': (
    '0 background\n1 cat\n\n3 dog\n',
    ['begins with a number (0 background, 1 cat, 3 dog)', 'delete the numbers'],
  ),
  'numbered with colons': ('1: cat\n2: dog\n', ['begins with a number']),
  'numbered with commas': ('0,cat\n1,dog\n', ['begins with a number']),
  'numbered with colours': ('0 a 1 2 3\n1 b 2 3 4\n', ['(0 a, 1 b)']),
  'colours first': ('1 2 3 a\n2 3 4 b\n', ['begins with a number']),
  'ten and more': ('\n'.join('abcdefghijkl' * 2), ['i, j and 2 more']),
  'no text': (b'\xff\xfea\0', ['no UTF-8']),
}


@pytest.mark.parametrize('fault', LIST_FAULTS)
def test_a_list_is_refused(fault, tmp_path):
  text, messages = LIST_FAULTS[fault]
  with pytest.raises(UserError) as error:
    read_classes(listed(tmp_path, text))
  for message in ['classes.txt', *messages]:
    assert message in str(error.value)
