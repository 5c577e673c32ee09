"""What the project claims, each beside what the cells say, or beside how many of them are missing."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Final

from bench._common import table
from bench.evidence.arms import ARMS, BASELINES, DEFAULT, OURS
from bench.evidence.asked import NOTHING, Evidence, times_faster, values
from bench.evidence.pairs import Compared, compared, holm, spread
from bench.evidence.references import COMPRESSIONS, published
from bench.evidence.shares import by_latency, modes
from bench.evidence.steps import in_steps
from bench.evidence.words import difference, missing, percent, shown, to_pruned_s

_AND_FAST: Final = "params=1/16.21,macs=1/5"
"""Parameters alone say little of time: early layers have few of them and most of the multiply-adds."""
HEADLINE: Final = ("params=1/16.21", _AND_FAST, "params=1/20")


def section(all_of: Mapping[str, Evidence]) -> str:
    """The claims in words and figures."""
    gpu = all_of.get("gpu", NOTHING)
    parts = [
        "### 1. Smaller and faster at the accuracy of the unstructured counterpart",
        _HEADLINE_WORDS,
        *(_headline(name, all_of[name]) for name in ("vgg16", "gpu") if name in all_of),
        "### 2. Better than uniform width, random filters and density to width",
        *(
            _baselines(name, evidence)
            for name, evidence in all_of.items()
            if all(map(evidence.asks_for, (DEFAULT, *BASELINES)))
        ),
        "### 3. Seconds to a pruned model",
        *(_seconds(name, evidence) for name, evidence in all_of.items()),
        "### 4. Our masks beside the SynFlow authors'",
        _published(gpu),
        "### 5. Complexity decides the widths",
        *(modes(name, all_of[name]) for name in ("mobilenetv2",) if name in all_of),
        "### 6. Shares of latency, or of multiply-adds",
        *(by_latency(name, all_of[name]) for name in ("latency",) if name in all_of),
        "### 7. Widths that the engine likes, and single channels",
        *(in_steps(name, all_of[name]) for name in ("cpu", "vgg16", "mobilenetv2") if name in all_of),
    ]
    return "\n\n".join(parts)


_HEADLINE_WORDS: Final = (
    "VGG-16 on CIFAR-10, within one standard deviation of the accuracy of its unstructured counterpart (the mask that"
    " `reconvene-emptied-*` starts from, trained as it is, same seeds): at least 16.21 times smaller stored (Eccles et"
    " al. 2024) and, beyond the paper, at least 6 times faster on the CPU at batch 1. That mask may keep far fewer"
    " weights than ours has parameters, so a SynFlow mask of as many weights stands beside it."
)


def _headline(name: str, evidence: Evidence) -> str:
    rows = []
    settings = [setting for setting in evidence.settings if setting.startswith("vgg16-")]
    for budget, setting in product(HEADLINE, settings):
        for arm in OURS:
            alone = budget.partition(",")[0]  # of the parameters, which a mask can be held to
            ours = evidence.of(arm, setting=setting, budget=budget)
            mask = evidence.of("counterpart", setting=setting, budget=alone)
            if not ours or not mask:
                continue
            a, b = spread(values(ours.values(), "accuracy")), spread(values(mask.values(), "accuracy"))
            assert a is not None
            assert b is not None
            as_many = spread(values(evidence.of("mask-synflow", setting=setting, budget=alone).values(), "accuracy"))
            smaller = statistics.fmean(c["dense"]["params"] / c["params"] for c in ours.values())
            faster = [statistics.fmean(times_faster(c, batch) for c in ours.values()) for batch in (1, 32)]
            keeps = "not known" if b.n < 2 else "yes" if a.mean >= b.mean - b.sd else "no"
            if min(a.n, b.n) < evidence.wanted(arm, setting, budget):
                keeps += ", seeds missing"
            rows.append(
                (
                    f"{arm}, {setting}, {budget}",
                    percent(a),
                    percent(b),
                    keeps,
                    "not measured" if as_many is None else percent(as_many),
                    f"{smaller:.2f}×",
                    *(f"{times:.1f}×" for times in faster),
                )
            )
    head = (
        "arm, setting, budget",
        "ours",
        "counterpart",
        "holds the accuracy",
        "mask of as many weights",
        "smaller",
        "faster, batch 1",
        "faster, batch 32",
    )
    return f"Protocol `{name}`:\n\n{table(head, rows)}" if rows else missing(f"these cells of protocol `{name}`")


def _baselines(name: str, evidence: Evidence) -> str:
    """The default against each baseline, tested; and how every reading compares on the seeds that chose it."""
    seeds = evidence.seeds - set(evidence.choosing)
    tests = _tests([DEFAULT], evidence, seeds)
    if not tests:
        return "\n\n".join([missing(f"the cells of protocol `{name}` that this needs"), *_readings(name, evidence)])
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    rows = [
        (f"at equal {key}", *(_told(tests, corrected, (key, DEFAULT, baseline)) for baseline in BASELINES))
        for key in ("params", "macs")
    ]
    head = (shown(DEFAULT), *(f"− {baseline}" for baseline in BASELINES))
    which = (
        f"on seeds {_spans(seeds)}, on which nothing was chosen" if evidence.choosing else f"on seeds {_spans(seeds)}"
    )
    words = (
        f"Protocol `{name}`, {which}. Points of accuracy, 95 % interval in brackets, number of pairs, p after Holm for"
        " the tests of this table, and the verdict."
    )
    return "\n\n".join([words, table(head, rows), *_readings(name, evidence)])


def _readings(name: str, evidence: Evidence) -> list[str]:
    """Every reading of Reconvene beside each baseline: not tested, it is what a default is chosen by."""
    seeds = set(evidence.choosing) or evidence.seeds
    arms = [arm for arm, about in ARMS.items() if about.family == "reconvene"]
    parts = []
    for key in ("params", "macs"):
        found = {k: v for k, v in _tests(arms, evidence, seeds).items() if k[0] == key}
        rows = [
            (shown(arm), *(_told(found, {}, (key, arm, baseline)) for baseline in BASELINES))
            for arm in dict.fromkeys(arm for _, arm, _ in found)
        ]
        if rows:
            parts.append(table((f"at equal {key}", *(f"− {baseline}" for baseline in BASELINES)), rows))
    if not parts:
        return []
    words = (
        f"All readings of Reconvene in `{name}` on seeds {_spans(seeds)}: the same differences, which are what a"
        " default is chosen by and no test of it."
    )
    return [words, *parts]


Asked = tuple[str, str, str]
"""Key of the budget, arm and baseline."""


def _tests(arms: Sequence[str], evidence: Evidence, seeds: Collection[int]) -> dict[Asked, Compared]:
    tests: dict[Asked, Compared] = {}
    for key, arm, baseline in product(("params", "macs"), arms, BASELINES):
        found = compared(*(evidence.accuracies(one, budget=key, seeds=seeds) for one in (arm, baseline)))
        if found is not None and arm != baseline:
            tests[key, arm, baseline] = found
    return tests


def _told(tests: Mapping[Asked, Compared], corrected: Mapping[Asked, float], asked: Asked) -> str:
    """A difference in words, with its verdict where it was tested."""
    test = tests.get(asked)
    if test is None:
        return "not measured"
    mean, interval, n = difference(test)
    if asked not in corrected:
        return f"{mean} ({interval}), {n}"
    p = corrected[asked]
    chance = "" if math.isnan(p) else f", p = {p:.2g}"
    return f"{mean} ({interval}), {n}{chance}: {test.verdict(p=p)}"


def _spans(seeds: Collection[int]) -> str:
    """0, 1, 2 as text."""
    return ", ".join(map(str, sorted(seeds)))


def _seconds(name: str, evidence: Evidence) -> str:
    """Seconds before the final training begins, by family: pruning, and the training or search that it takes."""
    rows = []
    for setting in evidence.settings:
        for family in dict.fromkeys(about.family for about in ARMS.values()):
            arms = [arm for arm, about in ARMS.items() if about.family == family != "dense"]
            cells = [cell for arm in arms for cell in evidence.of(arm, setting=setting).values()]
            if cells:
                before = [to_pruned_s(cell) for cell in cells]
                train = statistics.median(values(cells, "seconds", "train"))
                spans = f"{statistics.median(before):.1f} ({min(before):.1f} to {max(before):.1f})"
                rows.append((setting, family, spans, f"{train:.0f}", len(cells)))
    if not rows:
        return missing(f"all cells of protocol `{name}`")
    head = ("setting", "family", "seconds to a pruned model", "seconds to train it", "cells")
    return f"Protocol `{name}`, medians, smallest and largest in brackets:\n\n{table(head, rows)}"


def _published(evidence: Evidence) -> str:
    rows = []
    for setting in evidence.settings:
        for arm in (a for a, about in ARMS.items() if about.family == "mask"):
            for compression in COMPRESSIONS[1:]:
                cells = evidence.of(arm, setting=setting, budget=f"density=1/{compression:g}")
                task = next(iter(cells), None)
                theirs = published(task.model, task.data.name, arm, compression) if task else None
                if theirs is None:
                    continue
                last = spread([100 * c["accuracy"] for c in cells.values()])
                best = spread(
                    [
                        100 * max(a for a in values(c["epochs"], "test_accuracy") if a is not None)
                        for c in cells.values()
                    ]
                )
                assert last is not None
                assert best is not None
                rows.append(
                    (
                        f"{setting}, {arm}",
                        f"{compression:g}×",
                        f"{theirs:.2f}",
                        percent(best, 1),
                        percent(last, 1),
                        f"{best.mean - theirs:+.2f}",
                        "yes" if abs(best.mean - theirs) <= 1 else "no",
                    )
                )
    head = (
        "setting",
        "fewer weights",
        "published",
        "ours, best epoch",
        "ours, last epoch",
        "difference",
        "within 1 point",
    )
    return table(head, rows) if rows else missing("the cells of protocol `gpu` at these densities")
