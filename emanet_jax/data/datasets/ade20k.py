"""ADE20K as the MIT scene parsing benchmark has it: 150 classes.

Not the full ADE20K with its thousands of names. The colours are the
benchmark's, except that its road and its skyscraper are of the same grey: here
the skyscraper is one level redder.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from emanet_jax.data.reading import (
  builder,
  checks,
  label_table,
  labels,
  two_folders,
)
from emanet_jax.data.reading.example import Item
from emanet_jax.data.reading.files import File, Files
from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError

_TOP = 'ADEChallengeData2016'
_FOLDERS = {'train': 'training', 'val': 'validation'}

_CLASSES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass,
cabinet, sidewalk, person, earth, door, table, mountain, plant, curtain,
chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field,
armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion,
base, box, column, signboard, chest of drawers, counter, sand, sink,
skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case,
pool table, pillow, screen door, stairway, river, bridge, bookcase, blind,
coffee table, toilet, flower, book, hill, bench, countertop, stove, palm,
kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus,
towel, light, truck, tower, chandelier, awning, streetlight, booth,
television, airplane, dirt track, apparel, pole, land, bannister, escalator,
ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt,
canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall,
tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name,
microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture,
hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate,
monitor, bulletin board, shower, radiator, glass, clock, flag
"""

# Red, green, blue, hexadecimal; ten classes a line.
_PALETTE = bytes.fromhex("""
  787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07
  e005ff ebff07 96053d 787846 08ff33 ff0652 8fff8c ccff04 ff3307 cc4603
  0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff
  08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207
  ff7a08 00ff14 ff0829 ff0599 0633ff eb0cff a09614 00a3ff 8d8c8c fa0a0f
  14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff
  0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00
  008fff 33ff00 0052ff 00ff29 00ffad 0a00ff adff00 00ff99 ff5c00 ff00ff
  ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2
  00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000
  8fff00 5200ff a3ff00 ffeb00 08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff
  00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3
  ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00
  00ccff 1400ff ffff00 0099ff 0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff
  4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff
""")

_TABLE = label_table.make_table({i + 1: i for i in range(150)}, void=(0,))

SPEC = DatasetSpec(
  name='ade20k',
  classes=tuple(name.strip() for name in _CLASSES.split(',')),
  palette=tuple(tuple(_PALETTE[i : i + 3]) for i in range(0, 450, 3)),
  num_examples={'train': 20210, 'val': 2000},
  homepage='http://sceneparsing.csail.mit.edu/',
  citation="""@inproceedings{zhou2017scene,
  author = {Zhou, Bolei and Zhao, Hang and Puig, Xavier and Fidler, Sanja and
            Barriuso, Adela and Torralba, Antonio},
  title = {Scene Parsing through {ADE20K} Dataset},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and
               Pattern Recognition},
  year = {2017}}""",
  licence=(
    'Photos for non-commercial research and education; annotations under the '
    'BSD 3-clause licence.'
  ),
  download=(
    f'Get {_TOP}.zip (sha1 219e1696abb36c8ba3a3afe7fb2f4b4606a897c7) from '
    f'http://data.csail.mit.edu/places/ADEchallenge/{_TOP}.zip; the manual '
    f'directory holds it or what it unpacks to, {_TOP} with '
    'images/{training,validation} and annotations/{training,validation}.'
  ),
  checksums={f'{_TOP}.zip': 'sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7'},
)


class Builder(builder.SegmentationBuilder, skip_registration=True):
  """The benchmark's layout: training is train, validation is val."""

  name = 'ade20k'
  SPEC = SPEC
  VERSION = tfds.core.Version('1.0.0')

  def find(self, files: Files) -> Mapping[str, Sequence[Item]]:
    """Lists the splits that are on disk; see the base class."""
    images = files.first(f'{_TOP}/images', f'ade/{_TOP}/images', 'images')
    if images is None:
      raise UserError(f'{files.root} holds no {_TOP}/images. {SPEC.download}')
    annotations = f'{images.removesuffix("images")}annotations'
    found = {}
    for split, folder in _FOLDERS.items():
      found[split] = two_folders.find_pairs(
        files, f'{images}/{folder}', f'{annotations}/{folder}'
      )
      checks.check_items(SPEC, found[split])
    return found

  def read_label(self, file: File) -> UInt8[np.ndarray, 'h w']:
    """Reads a label as uint8 [h, w]: 1..150 become 0..149, 0 becomes 255."""
    label = labels.read_index_png(file)
    return label_table.translate(label, _TABLE, file.where)
