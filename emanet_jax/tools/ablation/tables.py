"""A grid's scores as CSV and Markdown."""

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Mapping, Sequence

from emanet_jax.tools.ablation.costs import Cost
from emanet_jax.tools.ablation.grids import Cell, Grid
from emanet_jax.tools.ablation.runs import Score

# By cell and seed; what is not run yet is absent.
Results = Mapping[tuple[Cell, int], Score]


@dataclasses.dataclass(frozen=True)
class Summary:
  """A cell over its seeds.

  Attributes:
    scores: mIoU by seed, in [0, 1], of those that have one.
    reasons: Why others have none, by seed.
    missing: Seeds that are not run yet.
  """

  scores: Mapping[int, float]
  reasons: Mapping[int, str]
  missing: Sequence[int]

  @property
  def mean(self) -> float:
    """Of the scores; nan without any."""
    return statistics.fmean(self.scores.values()) if self.scores else math.nan

  @property
  def spread(self) -> float:
    """Standard deviation (n - 1) of the scores; nan of fewer than two."""
    if len(self.scores) < 2:
      return math.nan
    return statistics.stdev(self.scores.values())


def summarize(grid: Grid, results: Results) -> dict[Cell, Summary]:
  """All cells of a grid, row by row."""
  seeds = _seeds(grid)
  found = {}
  for cell in ((row, column) for row in grid.rows for column in grid.columns):
    known = {s: results[cell, s] for s in seeds if (cell, s) in results}
    found[cell] = Summary(
      {s: x for s, x in known.items() if not isinstance(x, str)},
      {s: x for s, x in known.items() if isinstance(x, str)},
      [s for s in seeds if s not in known],
    )
  return found


def to_csv(
  grid: Grid, cells: Mapping[Cell, Summary], costs: Mapping[str, Cost]
) -> str:
  """A line a cell: mIoU as fractions, of each seed and all; '' for none.

  Args:
    grid: Of the cells.
    cells: From `summarize`.
    costs: By row; empty for grids whose rows all cost the same.
  """
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  seeds, corner = _seeds(grid), [name for name in grid.corner if name]
  cost_names = [f.name for f in dataclasses.fields(Cost)] if costs else []
  scores = ['mean', 'standard_deviation', *(f'seed_{s}' for s in seeds)]
  writer.writerow([*corner, *cost_names, *scores, 'reason'])
  for cell, summary in cells.items():
    cost = costs.get(cell[0])
    known = dataclasses.astuple(cost) if cost else ('',) * len(cost_names)
    values = [
      *(summary.mean, summary.spread),
      *(summary.scores.get(s, math.nan) for s in seeds),
    ]
    numbers = ['' if math.isnan(x) else x for x in values]
    where = cell[: len(corner)]
    writer.writerow([*where, *known, *numbers, _reasons(summary)])
  return file.getvalue()


def to_markdown(
  grid: Grid,
  cells: Mapping[Cell, Summary],
  costs: Mapping[str, Cost],
  conditions: str,
) -> str:
  """A table in per cent, the best mean in bold.

  Args:
    grid: Of the cells.
    cells: From `summarize`.
    costs: By row; empty for grids whose rows all cost the same.
    conditions: How the scores were made, in words.
  """
  means = [x.mean for x in cells.values() if not math.isnan(x.mean)]
  best = max(means, default=math.nan)
  corner = ' \\ '.join(name for name in grid.corner if name)
  cost_titles = ['parameters, M', 'multiply-adds, G'] if costs else []
  lines = [[corner, *cost_titles, *grid.columns]]
  lines.append(['---', *['---:'] * (len(lines[0]) - 1)])
  for row in grid.rows:
    known = costs.get(row)
    shown = known.millions() if known else ['-'] * len(cost_titles)
    texts = [_cell_text(cells[row, c], best) for c in grid.columns]
    lines.append([row, *shown, *texts])
  table = ''.join(f'| {" | ".join(line)} |\n' for line in lines)
  return f'# {grid.title}\n\n{legend(grid, conditions)}\n\n{table}'


def legend(grid: Grid, conditions: str) -> str:
  """What the numbers of a grid are."""
  seeds = _seeds(grid)
  of = ', '.join(map(str, seeds))
  over = f'seed {of}'
  if len(seeds) > 1:
    over = f'mean ± standard deviation (n - 1) over the seeds {of}'
  return f'mIoU in per cent, {conditions}; {over}. -: not run yet.'


def _cell_text(summary: Summary, best: float) -> str:
  pieces = []
  if summary.scores:
    pieces = [f'{100 * summary.mean:.2f}']
    if not math.isnan(summary.spread):
      pieces[0] += f' ± {100 * summary.spread:.2f}'
    if summary.mean == best:
      pieces[0] = f'**{pieces[0]}**'
    count = len(summary.scores)
    if total := len(summary.reasons) + len(summary.missing):
      pieces.append(f'({count} of {count + total} seeds)')
  if summary.reasons:
    pieces.append(f'✗ {_reasons(summary)}'.replace('|', '\\|'))
  return ' '.join(pieces) or '-'


def _reasons(summary: Summary) -> str:
  """Each reason once, in one line."""
  found = [' '.join(reason.split()) for reason in summary.reasons.values()]
  return '; '.join(dict.fromkeys(found))


def _seeds(grid: Grid) -> list[int]:
  return list(dict.fromkeys(run.seed for run in grid.runs))
