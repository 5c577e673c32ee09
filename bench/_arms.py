"""Ways to widths within one budget, which `bench.default_speed` compares: a plan for each, from the same scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from torch import Tensor

from prunit.allocate import Budget
from prunit.export.translation import Translation
from prunit.recipe.config import PruneConfig
from prunit.recipe.deciding import Clock, measured
from prunit.recipe.recipes import Decision, Scored


@dataclass(frozen=True)
class Case:
    """A network whose weights were scored, a budget, one image, and what torch translates the network to."""

    scored: Scored
    budget: Budget
    example: Tensor
    translation: Callable[[], Translation]


def _rounded(case: Case, round_to: int | str) -> Decision:
    return case.scored.decide(case.budget, PruneConfig.model_validate({"round_to": round_to}))


def _chosen(case: Case) -> Decision:
    """What a build takes, from scores that are there already, timed more briefly."""
    config = PruneConfig()
    default = case.scored.decide(case.budget, config)
    clock = Clock(batch=32, seconds=_SECONDS, translation=case.translation())
    return measured(case.scored, case.example, case.budget, config, default, clock=clock).decision


_SECONDS: Final = 0.3
"""How long each plan is timed that may be chosen, at each batch size."""

ARMS: Final[Mapping[str, Callable[[Case], Decision]]] = {
    **{str(n): partial(_rounded, round_to=n) for n in (1, 4, 8, 16)},
    "auto": partial(_rounded, round_to="auto"),
    "chosen": _chosen,
}
"""By name; each may raise `BudgetError`."""
