"""Stopwatches without a clock: what a plan takes follows from its widths, in steps, with noise from a seed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from prunit.cut.plans import Plan
from prunit.graph import ChannelGraph
from prunit.prices.costs import cost_of
from prunit.recipe.stopwatch import Timing

Takes = Callable[[ChannelGraph, Mapping[str, int]], float]
"""Milliseconds of one image, from the widths of all groups."""


def by_macs(graph: ChannelGraph, widths: Mapping[str, int]) -> float:
    """A tenth of the time whatever the widths, the rest by multiply-adds: 1 ms for the dense model."""
    return 0.1 + 0.9 * cost_of(graph, widths).macs / cost_of(graph).macs


def in_blocks(block: int) -> Takes:
    """As `by_macs` of widths rounded up to whole blocks."""
    return lambda graph, widths: by_macs(
        graph, {name: min(-(-width // block) * block, graph.group(name).size) for name, width in widths.items()}
    )


def odd_cost(graph: ChannelGraph, widths: Mapping[str, int]) -> float:
    """As `by_macs`, twice as long where a width that was cut is no multiple of 4."""
    odd = any(width % 4 for name, width in widths.items() if width < graph.group(name).size)
    return by_macs(graph, widths) * (2.0 if odd else 1.0)


@dataclass
class Fake:
    """Times plans of a graph by what they take, each with some noise; counts how many it timed."""

    graph: ChannelGraph
    takes: Takes
    noise: float = 0.0
    batches: Sequence[int] = (1,)
    scale_ms: float = 2.0
    seed: int = 0
    luck: float = 1.0
    """By how much a plan that is cut seems to take less, or more, when it is timed for the first time."""
    timed: list[dict[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng(self.seed)

    def ms(self, plan: Plan) -> float:
        """What the plan takes without noise."""
        return self.scale_ms * self.takes(self.graph, plan.widths)

    def __call__(self, plans: Mapping[str, Plan]) -> dict[str, tuple[Timing, ...]]:
        found = {name: tuple(self._timing(plan, batch) for batch in self.batches) for name, plan in plans.items()}
        self.timed += [plan.widths for plan in plans.values()]
        return found

    def _timing(self, plan: Plan, batch: int) -> Timing:
        dense = self.scale_ms * self.takes(self.graph, dict(plan.dense)) * batch
        ms = self.ms(plan) * batch * float(np.exp(self.noise * self.generator.standard_normal()))
        if plan.widths not in self.timed and plan.widths != dict(plan.dense):
            ms *= self.luck
        return Timing(batch, 1, 50, ms, 1.1 * ms, dense, dense / ms)


@dataclass
class Watches:
    """What makes such stopwatches, with the batch sizes that are asked for; keeps those that it made."""

    takes: Takes
    noise: float = 0.0
    seed: int = 0
    luck: float = 1.0
    made: list[Fake] = field(default_factory=list)

    def __call__(
        self,
        dense: nn.Module,
        graph: ChannelGraph,
        example: Tensor,
        /,
        *,
        threads: int,
        batches: tuple[int, ...],
        seconds: float,
        translation: object,
        engine: str = "onnxruntime",
    ) -> nullcontext[Fake]:
        self.made.append(Fake(graph, self.takes, self.noise, batches, seed=self.seed, luck=self.luck))
        return nullcontext(self.made[-1])
