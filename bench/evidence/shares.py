"""Claims about complexity-driven pruning: its modes, and latency as a complexity."""

import statistics
from itertools import product
from typing import Final

from bench._common import table
from bench.evidence.asked import Evidence, times_faster, values
from bench.evidence.pairs import compared, spread
from bench.evidence.words import difference, missing, percent

_MODES: Final = (("complexity-pa", "params"), ("complexity-fa", "macs"), ("complexity-ma", "ram"))
"""The modes of complexity, and the figure that each is about."""


def modes(name: str, evidence: Evidence) -> str:
    """Each mode at the reduction that is claimed for it, beside the same share everywhere and a width multiplier."""
    rows = []
    for setting, (arm, key) in product(evidence.settings, _MODES):
        ours = evidence.of(arm, setting=setting, budget=key)
        told = [
            compared(*(evidence.accuracies(one, setting=setting, budget=key) for one in (arm, baseline)))
            for baseline in ("uniform", "width-multiplier")
        ]
        accuracy = spread(values(ours.values(), "accuracy"))
        if accuracy is None or not all(told):
            continue
        budget = next(iter(ours)).budget
        beside = [f"{mean} ({interval}), {n}" for mean, interval, n in (difference(t) for t in told if t)]
        less = [statistics.fmean(c["dense"][k] / c[k] for c in ours.values()) for k in ("params", "macs")]
        faster = statistics.fmean(times_faster(c, 1) for c in ours.values())
        rows.append((f"{arm}, {budget}", percent(accuracy), *beside, *(f"{x:.1f}×" for x in (*less, faster))))
    if not rows:
        return missing(f"the cells of protocol `{name}` that this needs")
    head = ("arm", "accuracy", "− uniform", "− width-multiplier", "fewer params", "fewer macs", "faster, batch 1")
    words = (
        f"Protocol `{name}`: the reductions that Zawish et al. 2022 claim for MobileNetV2 (70 % fewer params, 50 %"
        " fewer FLOPs, 50 % less memory), trained beside two baselines at the same budget. Points, 95 % interval,"
        " pairs; not tested, three seeds are few."
    )
    return f"{words}\n\n{table(head, rows)}"


_BY_LATENCY: Final = ("complexity-la", "complexity-fa", "uniform")


def by_latency(name: str, evidence: Evidence) -> str:
    """Shares of latency beside shares of multiply-adds, at widths that a profile predicts to be equally fast."""
    rows = []
    for setting in evidence.settings:
        for budget, arm in product(evidence.budgets(setting), _BY_LATENCY):
            cells = evidence.of(arm, setting=setting, budget=budget)
            accuracy = spread(values(cells.values(), "accuracy"))
            if accuracy is None:
                continue
            test = compared(
                *(evidence.accuracies(one, setting=setting, budget=budget) for one in (arm, "complexity-fa"))
            )
            mean, interval, n = difference(test) if test is not None else ("not measured", "", "")
            told = "–" if arm == "complexity-fa" else f"{mean} ({interval}), {n}: {test.verdict() if test else ''}"
            less = [statistics.fmean(c["dense"][k] / c[k] for c in cells.values()) for k in ("params", "macs")]
            took = statistics.median(1 / times_faster(cell, 1) for cell in cells.values())
            asked = budget.partition("@")[0]
            rows.append(
                (f"{arm}, {setting}", asked, f"{took:.2f}", percent(accuracy), told, *(f"{x:.1f}×" for x in less))
            )
    if not rows:
        return missing(f"the cells of protocol `{name}`")
    head = ("arm", "asked", "measured, of dense", "accuracy", "− complexity-fa", "fewer params", "fewer macs")
    words = (
        f"Protocol `{name}`: every arm as wide as the profile predicts to hold the latency; measured is the median"
        " latency at batch 1 as a share of the dense model's, in turns with it. Points, 95 % interval, pairs, and the"
        " verdict, not corrected for other tests."
    )
    return f"{words}\n\n{table(head, rows)}"
