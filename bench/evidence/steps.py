"""What widths in the engine's steps cost in accuracy and bring in time, beside single channels at the same budget."""

import statistics
from typing import Final

from bench._common import table
from bench.evidence.arms import DEFAULT
from bench.evidence.asked import Evidence, times_faster
from bench.evidence.pairs import compared
from bench.evidence.words import difference, missing

SINGLE: Final = "reconvene-per-cost"
"""The same recipe by single channels."""


def in_steps(name: str, evidence: Evidence) -> str:
    """The default beside the same recipe by single channels: points of accuracy in pairs, times faster than dense."""
    rows = []
    for setting in evidence.settings:
        for budget in evidence.budgets(setting):
            test = compared(*(evidence.accuracies(arm, setting=setting, budget=budget) for arm in (DEFAULT, SINGLE)))
            if test is None:
                continue
            mean, interval, n = difference(test)
            both = [list(evidence.of(arm, setting=setting, budget=budget).values()) for arm in (SINGLE, DEFAULT)]
            faster = [
                f"batch {batch}: "
                + " → ".join(f"{statistics.fmean(times_faster(c, batch) for c in cells):.1f}×" for cells in both)
                for batch in (1, 32)
            ]
            told = f"{mean} ({interval}), {n}: {test.verdict()}"
            rows.append((f"{setting}, {budget}", told, "; ".join(faster)))
    if not rows:
        return missing(f"the cells of protocol `{name}` that this needs")
    head = ("setting, budget", f"`{DEFAULT}` − `{SINGLE}`", "times faster than dense")
    words = (
        f"Protocol `{name}`: points of accuracy, 95 % interval, pairs, and the verdict, not corrected for other tests;"
        " how many times faster than the dense model by single channels → in steps."
    )
    return f"{words}\n\n{table(head, rows)}"
