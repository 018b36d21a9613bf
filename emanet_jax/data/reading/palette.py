"""Colours for classes whose publisher gives none."""


def voc_color(label: int) -> tuple[int, int, int]:
  """Returns VOC's colour of a label: its bits, dealt to R, G, B in turn."""
  color = [0, 0, 0]
  for bit in range(8):
    for channel in range(3):
      color[channel] |= (label >> (3 * (bit // 3) + channel) & 1) << (
        7 - bit // 3
      )
  return tuple(color)
