"""The arms: all methods that are compared, in one table. An arm turns a case into what is trained.

Equal terms: every arm starts from the initial weights of the task's seed, sees the same images in the same order for
the same epochs, and meets the same budget. What is trained before (pruning after training, search) comes on top and is
told as its seconds. Arms with another `amount` than epochs are trained for longer, which is what they are about.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from bench.evidence.arms.masks import counterpart, thinned
from bench.evidence.arms.search import proxy_search, random_search
from bench.evidence.arms.structured import (
    by_complexity,
    density_to_width,
    global_ranking,
    random_filters,
    reconvene,
    snap,
    three_sp,
    uniform_width,
    width_multiplier,
)
from bench.evidence.arms.trained import group_norm, inherited, l1_filters
from bench.evidence.case import Case, Pruned
from prunit.cut.surgery import Rectify
from prunit.recipe.reconvene import EVALUATORS

Family = Literal["dense", "mask", "reconvene", "longer", "structured", "trained", "search"]
Amount = Literal["epochs", "time", "macs"]
"""What a training has in common with the dense model's: its epochs, its time on this machine or its multiply-adds."""


@dataclass(frozen=True)
class Arm:
    """A method; `budgets` are the keys that it can be held to, none if it is what another arm's plan came from."""

    family: Family
    line: str
    prune: Callable[[Case], Pruned]
    budgets: tuple[str, ...] = ("params", "macs")
    after_training: bool = False
    within_budget: bool = True
    """Whether the result has to meet the budget."""
    amount: Amount = "epochs"

    def takes(self, budget: str) -> bool:
        """Whether the arm can be held to this budget; the dense one has none."""
        return not budget or budget.partition("=")[0] in self.budgets


def _dense(case: Case) -> Pruned:
    return Pruned(case.make())


_MASK: Final = ("params", "macs", "density")
_WIDTHS: Final = ("params", "macs", "ram", "latency")
_PAPERS: Final[tuple[Rectify, ...]] = ("reinit", "rescale", "none", "all")
"""Readings of the paper's rectifier; `own` is none, and the same as `reinit` for networks that begin He-normal."""
_DEFAULT: Final = reconvene("none", "reinit", round_to="auto")
_READINGS: Final = {
    f"reconvene-{evaluator}-{rectifier}": Arm(
        "reconvene", f"Reconvene, evaluator '{evaluator}', rectifier '{rectifier}'", reconvene(evaluator, rectifier)
    )
    for evaluator in EVALUATORS
    if evaluator != "none"
    for rectifier in _PAPERS
}

ARMS: Final[Mapping[str, Arm]] = {
    "dense": Arm("dense", "the model as it is", _dense, budgets=()),
    # Weights are masked before training and stay zero; the tensors keep their dense shapes.
    "mask-random": Arm("mask", "random weights", thinned("random"), _MASK),
    "mask-magnitude": Arm("mask", "small initial weights", thinned("magnitude"), _MASK),
    "mask-snip": Arm("mask", "SNIP (Lee et al. 2019)", thinned("snip"), _MASK),
    "mask-grasp": Arm("mask", "GraSP (Wang et al. 2020)", thinned("grasp"), _MASK),
    "mask-synflow": Arm("mask", "SynFlow, 100 rounds (Tanaka et al. 2020)", thinned("synflow"), _MASK),
    "counterpart": Arm(
        "mask", "the mask that `reconvene-emptied-*` starts from, trained as it is", counterpart, within_budget=False
    ),
    **_READINGS,
    "reconvene-without-reinit": Arm(
        "reconvene", "no evaluator: every layer narrowed by its density; rectified", density_to_width("reinit")
    ),
    "reconvene-without-none": Arm("reconvene", "neither evaluator nor rectifier", density_to_width("none")),
    "reconvene-per-cost": Arm(
        "reconvene",
        "evaluator 'none': layers narrowed by their density in a mask made for what the budget limits; 'reinit'",
        reconvene("none", "reinit"),
    ),
    "reconvene-auto": Arm(
        "reconvene",
        "as `reconvene-per-cost`, widths in the steps that ONNX Runtime likes (`round_to=auto`)",
        _DEFAULT,
    ),
    "reconvene-round8": Arm(
        "reconvene",
        "reading 'emptied', 'reinit', widths at multiples of 8 for the engine",
        reconvene("emptied", "reinit", round_to=8),
    ),
    "equal-time": Arm(
        "longer",
        "as `reconvene-auto`, for as many epochs as fit into the dense model's training time on the same machine",
        _DEFAULT,
        amount="time",
    ),
    "equal-macs": Arm(
        "longer",
        "the same for as many epochs as cost the dense model's multiply-adds, up to 8 times",
        _DEFAULT,
        amount="macs",
    ),
    "uniform": Arm("structured", "every layer the same share of its channels", uniform_width, _WIDTHS),
    "width-multiplier": Arm(
        "structured", "the same, residual streams too, fresh weights: a width multiplier", width_multiplier, _WIDTHS
    ),
    "complexity-pa": Arm(
        "structured", "layers by their share of the parameters (Zawish et al. 2024)", by_complexity("pa"), _WIDTHS
    ),
    "complexity-fa": Arm("structured", "by their share of the multiply-adds", by_complexity("fa"), _WIDTHS),
    "complexity-ma": Arm("structured", "by their share of the activations", by_complexity("ma"), _WIDTHS),
    "complexity-la": Arm(
        "structured", "by their share of the latency in a device's profile", by_complexity("la"), ("latency",)
    ),
    "random-filters": Arm("structured", "channels of all layers at random", random_filters),
    "precrop": Arm(
        "structured", "widths C √density of a SynFlow mask, fresh weights (PreCrop, 2022)", density_to_width("all")
    ),
    "global-snip": Arm("structured", "one ranking of all channels by SNIP", global_ranking("snip")),
    "snap": Arm("structured", "channels by how much the loss feels a gate on them (SNAP, Verdenius et al. 2020)", snap),
    "3sp": Arm(
        "structured",
        "as `snap`, for each multiply-add that the channel costs (3SP, van Amersfoort et al. 2020)",
        three_sp,
    ),
    "l1-trained": Arm(
        "trained", "trained, L1 filters of every layer (Li et al. 2017), trained again", l1_filters, after_training=True
    ),
    "group-norm-trained": Arm(
        "trained",
        "trained, Torch-Pruning's group norm (Fang et al. 2023), trained again",
        group_norm,
        after_training=True,
    ),
    "trained-start": Arm(
        "trained",
        "widths of `reconvene-auto`, channels and weights of the trained dense model, by L1; trained again",
        inherited("magnitude"),
        after_training=True,
    ),
    "trained-start-equal-time": Arm(
        "trained",
        "the same, trained again for as many epochs as `equal-time`",
        inherited("magnitude"),
        after_training=True,
        amount="time",
    ),
    "trained-taylor": Arm(
        "trained",
        "as `trained-start`, channels by Taylor importance (Molchanov et al. 2019)",
        inherited("taylor"),
        after_training=True,
    ),
    "random-search": Arm("search", "random widths, each trained shortly, the best one", random_search),
    "proxy-search": Arm("search", "random widths, the one with the most synaptic flow", proxy_search),
}

DEFAULT: Final = "reconvene-auto"
"""What `prunit build` does unless it is told otherwise; a test holds it to `PruneConfig`."""
OURS: Final = (DEFAULT, "reconvene-per-cost", "reconvene-emptied-reinit", "reconvene-round8")
"""What the claims are about: the default, the same by single channels, and simpler readings of the paper."""
BASELINES: Final = ("uniform", "width-multiplier", "random-filters", "precrop")
"""What these have to beat."""
HOUR: Final = (
    DEFAULT,
    "equal-time",
    "equal-macs",
    "trained-start",
    "trained-start-equal-time",
    "trained-taylor",
    "l1-trained",
    "group-norm-trained",
)
"""Starts and amounts of training: what an hour of a machine is best spent on."""
