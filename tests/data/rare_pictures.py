"""Pictures of depths and kinds that PIL does not write."""

import struct
import zlib

import numpy as np

# Of the palette.
COLORS = np.array([[0, 0, 0], [250, 120, 7], [0, 0, 9]])


def packed(bits, rows, kind=0, form='PNG'):
  """A PNG (kinds as in its header) or grey TIFF with so many bits a value."""
  height, width = np.shape(rows)
  size = 2 * bits if kind == 4 else bits
  lines = []
  for row in rows:
    line = ''.join(f'{value:0{size}b}' for value in row)
    line += '0' * (-len(line) % 8)
    lines.append(int(line, 2).to_bytes(len(line) // 8, 'big'))
  if form == 'TIFF':
    pixels = b''.join(lines)
    pixels += b'\0' * (len(pixels) % 2)
    # Width, height, bits, not compressed, black is 0, where, in one strip.
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8}
    tags |= {277: 1, 278: height, 279: len(pixels)}
    entries = [struct.pack('<HHII', tag, 4, 1, v) for tag, v in tags.items()]
    start = b'II*\0' + struct.pack('<I', 8 + len(pixels)) + pixels
    return start + struct.pack('<H', len(tags)) + b''.join(entries) + bytes(4)
  header = struct.pack('>IIBBBBB', width, height, bits, kind, 0, 0, 0)
  palette = COLORS.astype(np.uint8).tobytes()
  pixels = b''.join(b'\0' + line for line in lines)
  chunks = {b'IHDR': header, b'IDAT': zlib.compress(pixels), b'IEND': b''}
  if kind == 3:
    chunks = {b'IHDR': header, b'PLTE': palette, **chunks}
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(content))
    + name
    + content
    + struct.pack('>I', zlib.crc32(name + content))
    for name, content in chunks.items()
  )
