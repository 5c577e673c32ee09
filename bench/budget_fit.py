"""How close plans come to their budget, and how long they take: `python -m bench.budget_fit`.

Every recipe, with widths free and in multiples of 8, against budgets of each key and of two at once. A plan is within
1 % where its tightest limit is used to 99 % or more. Deterministic, but for the seconds.
"""

import itertools
import time
from typing import Any, Final

import torch

from bench._common import arguments, record, write
from bench._nets import HALVED, SMALL, Net
from prunit.allocate import Budget
from prunit.errors import BudgetError
from prunit.graph import trace
from prunit.recipe import RECIPES, decide
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import example_batch

NETS: Final = ("vgg16-32", "resnet20-32", "mobilenetv2-32", "resnet50-224")
BUDGETS: Final = (
    *("params=1/2", "params=1/4", "params=1/16", "macs=1/2", "macs=1/8", "ram=1/2", "weights=1/3"),
    *("params=1/4,macs=1/4", "params=1/8,macs=1/3,ram=1/2"),
)


def fits(net: Net) -> list[dict[str, Any]]:
    """For one network a row of each recipe and step: how much of its budget each plan uses, and its seconds."""
    model, example = net.make()
    graph = trace(model, example)
    rows: list[dict[str, Any]] = []
    for recipe, step in itertools.product(RECIPES, (1, 8)):
        plans: list[dict[str, Any]] = []
        for budget in BUDGETS:
            # Magnitude needs no passes, so that the seconds are those of the solver.
            config = PruneConfig(recipe=recipe, score="magnitude", round_to=step)
            started = time.perf_counter()
            try:
                used = dict(decide(model, graph, [example_batch(example)], Budget.parse(budget), config).used)
            except BudgetError:
                used = None
            plans.append({"budget": budget, "used": used, "seconds": time.perf_counter() - started})
        rows.append({"net": net.title, "recipe": recipe, "round_to": step, "plans": plans})
    return rows


def main() -> None:
    """Plan everything and write the JSON."""
    args = arguments("budget_fit", __doc__)
    torch.set_num_threads(1)
    rows = [row for name in NETS for row in fits({**HALVED, **SMALL}[name])]
    write(
        record("budget_fit", rows, config={"budgets": BUDGETS}, n=1, percentile="one plan each", threads=1), args.json
    )


if __name__ == "__main__":
    main()
