"""What the reports of all benchmarks are made of."""

import statistics
from collections.abc import Iterable
from importlib import metadata


def spread(values: list[float]) -> list[float]:
  """[median, least, most]."""
  return [statistics.median(values), min(values), max(values)]


def shown(values: list[float], digits: int) -> str:
  """A spread, to be read."""
  middle, least, most = (f'{value:.{digits}f}' for value in values)
  return f'{middle} ({least} to {most})'


def versions(packages: Iterable[str]) -> dict[str, str]:
  """Package → version, of those that are installed."""
  installed = {x.name: x.version for x in metadata.distributions()}
  return {name: installed[name] for name in packages if name in installed}
