"""Which of two things that took turns is faster: compared within each round, for which the machine was the same."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunit.edge.comparing.compare import PACE
from prunit.edge.comparing.paired import LEVEL, mcnemar


@dataclass(frozen=True)
class Rounds:
    """How many times faster the first one is, in the median of all rounds.

    `p` is that of the exact sign test (the one of McNemar's): how likely one of both wins as many rounds by chance.
    """

    times_faster: float
    p: float

    @property
    def measurable(self) -> bool:
        """Whether one of both is faster beyond chance, and by more than two measurements of one file differ."""
        return self.p <= 1 - LEVEL and max(self.times_faster, 1 / self.times_faster) >= PACE


def compared(mine_ns: Sequence[int], theirs_ns: Sequence[int]) -> Rounds:
    """The times of the first one beside those of the second; entry i of both is of round i, of which there is one."""
    mine, theirs = (np.maximum(np.asarray(times, np.float64), 1.0) for times in (mine_ns, theirs_ns))
    won, lost = int((mine < theirs).sum()), int((theirs < mine).sum())
    return Rounds(float(np.median(theirs / mine)), mcnemar(won, lost))
