"""Pictures of the page: what is drawn where, and how large."""

import re

import numpy as np
import pytest

from tests.html_page import BASES, PALETTE, Page, images, picture, render


def test_pictures_show_classes_errors_and_attention():
  pictures = {
    'Worst': [picture('one')],
    'Best': [],
    'First': [picture('two', attention=False)],
  }
  text = render(pictures=pictures)
  found = images(text)
  # The photo, three maps, the strongest basis and six single ones.
  assert len(found) == (1 + 3 + 1 + 6) + (1 + 3)
  assert [image.format for image in found].count('JPEG') == 2
  one = pictures['Worst'][0]
  photo, label, prediction, errors = map(
    np.asarray, (image.convert('RGBA') for image in found[:4])
  )
  assert np.abs(photo[..., :3].mean() - one['image'].mean()) < 5
  known = one['label'] != 255
  np.testing.assert_array_equal(label[..., 3] > 0, known)
  colors = np.array(PALETTE)
  np.testing.assert_array_equal(label[known, :3], colors[one['label'][known]])
  np.testing.assert_array_equal(prediction[..., :3], colors[one['prediction']])
  wrong = known & (one['label'] != one['prediction'])
  np.testing.assert_array_equal(errors[..., 0] == 226, wrong)
  np.testing.assert_array_equal(errors[..., 0] == 190, ~known)
  np.testing.assert_array_equal(errors[..., 3] > 0, wrong | ~known)
  page = Page(text)
  headings = re.findall('<h2>(.*)</h2>', text)
  assert headings == ['Worst', 'First']
  alts = [a.get('alt') or a.get('aria-label', '') for _, a in page.elements]
  alts = [alt for alt in alts if alt.startswith(('one:', 'two:'))]
  assert len(set(alts)) == len(found)


def test_attention_is_bright_where_a_basis_is_responsible():
  made = picture()
  z = np.full((5, 8, BASES), 0.01, np.float32)
  z[1, 6, 4] = 0.94  # At (1 / 4, 6 / 7) of height and width.
  made['responsibilities'] = z
  text = render(pictures={'First': [made]})
  strongest, heat = images(text)[4:6]
  assert 'basis 4, max 0.94' in text
  opacity = np.asarray(heat.convert('RGBA'))[..., 3].astype(float)
  row, column = np.unravel_index(opacity.argmax(), opacity.shape)
  assert (row / 39, column / 59) == pytest.approx((1 / 4, 6 / 7), abs=0.03)
  assert opacity.max() > 200
  assert opacity[-1, 0] < 70
  index = np.asarray(strongest)
  assert set(np.unique(index)) == {0, 4}
  assert index[row, column] == 4


def test_colours_of_bases_are_used_again_where_there_are_many():
  made = picture()
  z = np.full((5, 8, 300), 0.001, np.float32)
  z[:, 4:, 290] = 0.5
  z[:, :4, 3] = 0.5
  made['responsibilities'] = z
  strongest = images(render(pictures={'First': [made]}))[4]
  assert set(np.unique(np.asarray(strongest))) == {3, 290 - 256}


def test_scores_of_an_image_stand_beside_it_if_known():
  with_scores = {**picture('one'), 'miou': 0.12345, 'accuracy': 0.5}
  text = render(pictures={'Worst': [with_scores, picture('two')]})
  captions = re.findall(r'<figcaption>(.*?)</figcaption>', text, re.DOTALL)
  captions = [
    re.sub(r'<.*?>|\s+', ' ', caption).split() for caption in captions
  ]
  assert captions == [
    ['one', 'mIoU', '12.35', '%', 'accuracy', '50.00', '%'],
    ['two'],
  ]


def test_photos_are_made_small():
  pictures = [picture(str(i), 700, 1000) for i in range(8)]
  for made in pictures:
    x, y = np.meshgrid(np.linspace(0, 20, 1000), np.linspace(0, 20, 700))
    wave = np.stack([np.sin(x), np.sin(y), np.sin(x * y)], axis=-1)
    made['image'] = np.uint8(127 + 120 * wave)
  text = render(pictures={'First': pictures})
  assert len(text) < 2.5e6
  assert max(max(image.size) for image in images(text)) == 480


def test_a_tiny_image_is_shown():
  made = picture(height=1, width=1)
  made['responsibilities'] = np.ones((1, 1, 2), np.float32)
  text = render(pictures={'First': [made]})
  assert [image.size for image in images(text)] == [(1, 1)] * 7
