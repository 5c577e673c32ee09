"""What the complexity-driven recipe does to widths, beside published figures: `python -m bench.complexity`.

Nothing is trained. Shares of VGG-16's layers and what goes with a share of its filters stand beside what the published
counting rules give (docs/cards/complexity.md); MobileNetV2 is planned for the paper's reductions, with a width
multiplier at the same budget beside it. Deterministic, but for the seconds.
"""

import time
from typing import Any, Final

import numpy as np
import torch

from bench._common import arguments, record, write
from prunit import zoo
from prunit.allocate import Budget, Complexity, Constraints, Target, by_complexity
from prunit.allocate.by_complexity import MODES, Setting
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of, width_array
from prunit.recipe import decide
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import example_batch

SHARES: Final = {
    "PA: parameters": ("pa", Setting(), [0.0, 0.3, 0.5, 1.0, 2.0, 4.0, 4.0, 8.0, *[16.0] * 5]),
    "FA: multiply-adds": (
        *("fa", Setting()),
        [0.6, 12.1, 6.0, 12.1, 6.0, 12.0, 12.0, 6.0, 12.0, 12.0, 3.0, 3.0, 3.0],
    ),
    "MA: activations": (
        *("ma", Setting()),
        [23.7, 23.7, 11.9, 11.9, 5.9, 5.9, 5.9, 3.0, 3.0, 3.0, 0.7, 0.7, 0.7],
    ),
    "MA: weights and activations": (
        *("ma", Setting("all")),
        [0.4, 0.7, 0.7, 1.2, 2.1, 4.0, 4.0, 7.9, *[15.8] * 5],
    ),
    "MA: training, batch 2": (
        *("ma", Setting("training", 2)),
        [0.6, 0.8, 0.8, 1.3, 2.1, 4.1, 4.1, 7.9, *[15.7] * 5],
    ),
}
"""Mode, setting, and the shares of the 13 convolutions in percent that the first author's counting rules give."""

REDUCTIONS: Final = {
    ("pa", "activations"): {0.2: (39, 24), 0.4: (68, 43), 0.5: (78, 51)},
    ("fa", "activations"): {0.2: (30, 60), 0.4: (57, 83), 0.5: (69, 89)},
    ("ma", "all"): {0.2: (39, 26), 0.4: (67, 48), 0.5: (78, 56)},
}
"""By mode and memory, and share of filters removed: params and multiply-adds less, in percent, as computed from it."""

TARGETS: Final = (("pa", "params=30%"), ("fa", "macs=50%"), ("ma", "ram=50%"))
"""What the abstracts claim for MobileNetV2: 70 % fewer params, 50 % fewer FLOPs, 50 % less memory."""


def shares(graph: ChannelGraph) -> list[dict[str, Any]]:
    """The share of each convolution of VGG-16 in percent, ours and as published."""
    rows = []
    for title, (mode, setting, published) in SHARES.items():
        target = Target(graph, Budget.parse("params=1"), Constraints())
        found = 100 * Complexity(target, MODES[mode], setting).shares(target.ceiling)[:13]
        rows.append({"part": "shares", "title": title, "ours": found.tolist(), "published": published})
    return rows


def reductions(graph: ChannelGraph) -> list[dict[str, Any]]:
    """What goes of params and multiply-adds with a share of VGG-16's filters, drawn as in the paper, over ten seeds."""
    rows = []
    filters = int(graph.sizes[graph.free].sum())
    for (mode, memory), by_share in REDUCTIONS.items():
        for share, published in by_share.items():
            less = np.mean([_removed(graph, mode, memory, filters, share, seed) for seed in range(10)], axis=0)
            title = f"{mode.upper()}{'' if memory == 'activations' else ', weights and activations'}"
            rows.append(
                {"part": "reductions", "title": title, "share": share, "ours": less.tolist(), "published": published}
            )
    return rows


def _removed(graph: ChannelGraph, mode: str, memory: str, filters: int, share: float, seed: int) -> tuple[float, float]:
    """Percent less of params and multiply-adds once this share of the filters is gone."""
    low, high = 0.0, 1.0
    dense = cost_of(graph)
    widths = dict[str, int]()
    for _ in range(24):
        middle = (low + high) / 2
        target = Target(graph, Budget.parse({"params": middle}), Constraints(min_share=0.1, min_width=4))
        if not target.met_by(target.floor):
            low = middle
            continue
        complexity = Complexity(target, MODES[mode], Setting(memory))  # type: ignore[arg-type]
        widths = by_complexity(target, complexity, draw="sampled", seed=seed)
        gone = int((graph.sizes - width_array(graph, widths)).sum())
        low, high = (middle, high) if gone > share * filters else (low, middle)
    cost = cost_of(graph, widths)
    return 100 * (1 - cost.params / dense.params), 100 * (1 - cost.macs / dense.macs)


def mobilenetv2() -> list[dict[str, Any]]:
    """MobileNetV2 at the paper's reductions by each mode and by a width multiplier, with the seconds of planning."""
    rows = []
    for size in (32, 224):
        model, example = zoo.load("mobilenetv2", image_size=size).eval(), torch.zeros(1, 3, size, size)
        graph = trace(model, example)
        for mode, budget in TARGETS:
            for recipe in ("complexity", "uniform"):
                residual = "prune" if recipe == "uniform" else "auto"
                config = PruneConfig(recipe=recipe, mode=mode, residual=residual)  # type: ignore[arg-type]
                started = time.perf_counter()
                decision = decide(model, graph, [example_batch(example)], Budget.parse(budget), config)
                seconds = time.perf_counter() - started
                row = {"part": "mobilenetv2", "size": size, "mode": mode, "budget": budget, "recipe": recipe}
                less = {k: 100 * (1 - v / decision.dense.as_dict()[k]) for k, v in decision.cost.as_dict().items()}
                rows.append(row | {"less": less, "used": decision.used[budget], "seconds": seconds})
    return rows


def main() -> None:
    """Plan everything and write the JSON."""
    args = arguments("complexity", __doc__)
    torch.set_num_threads(1)
    vgg16 = trace(zoo.load("vgg16"), torch.zeros(1, 3, 32, 32))
    rows = [*shares(vgg16), *reductions(vgg16), *mobilenetv2()]
    note = "one plan each; reductions: mean of 10 seeds"
    write(
        record("complexity", rows, config={"minimum": "10 %, 4 channels"}, n=1, percentile=note, threads=1), args.json
    )


if __name__ == "__main__":
    main()
