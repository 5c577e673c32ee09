"""Complexity-driven pruning (Zawish et al. 2024) as a recipe; what it decides is in `allocate/by_complexity.py`."""

from prunit.allocate import Complexity, by_complexity
from prunit.allocate.by_complexity import MODES, Setting
from prunit.recipe.case import Case, Found, rounded
from prunit.scores import per_channel


def complexity(case: Case) -> Found:
    """Widths by the shares of `config.mode`; which channels of a layer stay is up to the score, random by default."""
    config, mode = case.config, MODES[case.config.mode]
    scores = per_channel(case.graph, case.weights, case.method.gather)
    measured = Complexity(case.target, mode, Setting(config.memory, config.memory_batch, case.meters.get(mode.figure)))
    widths = by_complexity(
        case.target, measured, draw=config.draw, recomputed=config.shares == "recomputed", seed=config.seed
    )
    shares = measured.shares(case.target.ceiling)
    why = {
        group.name: f"{share:.1%} of the {mode.what}" + rounded(case, group)
        for group, share in zip(case.graph.groups, shares, strict=True)
    }
    return scores, widths, why
