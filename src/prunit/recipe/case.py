"""What a recipe decides on, and what several recipes say about the widths that they found."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from prunit.allocate import Densities, Meter, Target
from prunit.batches import Batch
from prunit.cut.plans import Scores, Widths
from prunit.graph import ChannelGraph, Group
from prunit.recipe.config import PruneConfig
from prunit.scores import Score, WeightScores
from prunit.shown import Shown

Found = tuple[Scores, Widths, dict[str, str]]
"""Scores of channels, widths, and what there is to say about the width of a group."""


@dataclass(frozen=True, repr=False)
class Case(Shown):
    """What a recipe decides on."""

    model: nn.Module
    graph: ChannelGraph
    target: Target
    method: Score
    score: str
    weights: WeightScores
    batches: Sequence[Batch]
    config: PruneConfig
    meters: Mapping[str, Meter]
    """What a device takes, by figure, where the budget or the mode asks for it."""
    densities: Callable[[], Densities]
    """Densities of the groups under masks of the weights: made when asked for, once for all plans."""

    def on(self, target: Target) -> "Case":
        """The same case with another target on the same model."""
        return replace(self, graph=target.graph, target=target)


def threshold(target: Target, scores: Scores, widths: Widths) -> float:
    """The highest score that is gone for the budget's sake: the last channel to go never comes back.

    What a group loses to a limit on its width goes whatever its score.
    """
    cut = [g for g, most in zip(target.graph.groups, target.ceiling, strict=True) if widths[g.name] < most]
    gone = (float(scores[g.name].sort().values[g.size - widths[g.name] - 1]) for g in cut)
    return max(gone, default=-math.inf)


def told(case: Case, scores: Scores, widths: Widths, some: str, none: str) -> dict[str, str]:
    """What a threshold on channel scores did to each group; `some` says how many of its channels are below it."""
    at = threshold(case.target, scores, widths)
    below = np.array([int((scores[g.name] <= at).sum()) for g in case.graph.groups])
    left = case.target.allowed.up(case.graph.sizes - below)
    why: dict[str, str] = {}
    for i, g in enumerate(case.graph.groups):
        spared = widths[g.name] - left[i]
        back = f"; the budget spares {spared}" if spared > 0 else ""
        text = some.format(below[i], g.size) + rounded(case, g) + back if below[i] else none
        why[g.name] = text if widths[g.name] < g.size else f"whole: {text}"
    return why if at > -math.inf else {}


def rounded(case: Case, group: Group) -> str:
    """What there is to add about a group whose widths go in steps."""
    in_steps = case.target.allowed.step[case.graph.index[group.name]] > 1
    asked = case.target.constraints
    return (
        f", rounded {f'for {asked.engine}' if asked.round_to == 'auto' else f'to {asked.round_to}'}" if in_steps else ""
    )
