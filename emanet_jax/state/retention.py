"""Which checkpoints stay beside the latest."""

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orbax.checkpoint as ocp


class _Scored(NamedTuple):
  """Orbax's PolicyCheckpointInfo."""

  step: int
  metrics: float
  time: datetime.datetime


@dataclasses.dataclass(frozen=True)
class BestScored:
  """Orbax's BestN, by scores that come after a step is saved.

  A step is saved before it is evaluated, so that a kill in between loses
  nothing; Orbax's own metrics would have to be there at the save.
  """

  n: int
  scores: Mapping[int, float]

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any):
    """Which of the checkpoints to keep, in Orbax's terms."""
    scored = [
      _Scored(c.step, self.scores[c.step], c.time)
      for c in checkpoints
      if not math.isnan(self.scores.get(c.step, math.nan))
    ]
    best = ocp.checkpoint_managers.BestN(get_metric_fn=float, n=self.n)
    kept = best.should_preserve(scored, context=context)
    steps = {c.step for c, keep in zip(scored, kept, strict=True) if keep}
    return [c.step in steps for c in checkpoints]
