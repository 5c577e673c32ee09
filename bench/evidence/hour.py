"""What an hour of this machine is best spent on: starts and amounts of training, by the time that all of it takes.

Seconds of cells cannot be compared: they were trained on machines that did other things at the same time. The time of a
training is therefore told in trainings of the dense model: its epochs by theirs, times what a step takes of a dense
step, timed in turns. Where the dense model is trained before, that is one more.
"""

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from bench._common import table
from bench.evidence.arms import DEFAULT, HOUR
from bench.evidence.asked import Evidence, Pair, values
from bench.evidence.cells import Cell
from bench.evidence.pairs import Compared, compared, holm, spread
from bench.evidence.tasks import Task
from bench.evidence.words import difference, missing, percent, shown, to_pruned_s

UNTRAINED: Final = (DEFAULT, "equal-time", "equal-macs")
"""From the initial weights: the same network, trained for longer and longer."""
TRAINED: Final = ("trained-start", "trained-start-equal-time")
"""From the trained dense model's weights, as wide."""

_COMPARED: Final = (
    ("As long as the dense model instead of as many epochs", "equal-time", DEFAULT),
    ("Multiply-adds of the dense training instead of its time", "equal-macs", "equal-time"),
    ("Started from the trained dense model, equal epochs", "trained-start", DEFAULT),
    ("Started from the trained dense model, both as long as the dense model", "trained-start-equal-time", "equal-time"),
    ("Started from the trained dense model, as long as it instead of as many epochs", *reversed(TRAINED)),
    ("Channels of the trained model by Taylor importance instead of L1", "trained-taylor", "trained-start"),
    ("Widths of the default instead of uniform ones, both from the trained model", "trained-start", "l1-trained"),
    ("Widths of the default instead of Torch-Pruning's, both from the trained model", "trained-start", HOUR[-1]),
)
_EQUAL: Final = "Started from the trained dense model, at equal total time"

_WORDS: Final = (
    "Accuracy against the time of all training, of the network's own and of the dense model's where that is trained"
    " first, in trainings of the dense model (epochs by epochs, times the seconds of a step by those of a dense step,"
    " timed in turns, as a machine that does other things lengthens both). Seconds are medians of what the cells"
    " recorded, pruning included, on machines more or less busy: they tell the order of magnitude."
)


def section(all_of: Mapping[str, Evidence]) -> str:
    """The question and its answer in words and figures, for every protocol that has the cells."""
    asked = {name: each for name, each in all_of.items() if all(map(each.asks_for, ("equal-time", *TRAINED)))}
    parts = [part for name, each in asked.items() if each.of("equal-time") for part in _told(name, each)]
    lacking = [name for name, each in asked.items() if not each.of("equal-time")]
    if lacking:
        parts.append(missing(f"the cells of {', '.join(f'`{name}`' for name in lacking)} that this needs"))
    return "\n\n".join(parts)


def total(task: Task, cell: Cell) -> float | None:
    """The time of all training, in trainings of the dense model; None where steps were not timed."""
    if task.arm == "dense":
        return 1.0
    steps = cell.get("steps")
    if not steps:
        return None
    own = len(cell["epochs"]) / task.epochs * steps["pruned_s"] / steps["dense_s"]
    return own + ("train_dense" in cell["seconds"])


def _told(name: str, evidence: Evidence) -> Iterator[str]:
    there = {task.seed for arm in ("equal-time", *TRAINED) for task in evidence.of(arm)}
    chosen, tested = there & set(evidence.choosing), there - set(evidence.choosing)
    yield f"Protocol `{name}`. {_WORDS}"
    for setting in evidence.settings:
        for budget in evidence.budgets(setting):
            if evidence.of("equal-time", setting=setting, budget=budget):
                yield f"**{setting}, {budget.partition('@')[0]}**\n\n{_accuracies(evidence, setting, budget)}"
    for seeds, corrected in ((tested, True), (chosen, False)):
        rows = _differences(evidence, seeds, corrected=corrected)
        if rows:
            head = ("what for what", "arms", *(f"at equal {key}" for key in ("macs", "params")), "both")
            yield f"{_about(seeds, corrected=corrected)}\n\n{table(head, rows)}"
    yield from _sentences(evidence, tested, chosen)


def _accuracies(evidence: Evidence, setting: str, budget: str) -> str:
    rows = []
    for arm in ("dense", *HOUR):
        cells = evidence.of(arm, setting=setting, budget=None if arm == "dense" else budget)
        accuracy = spread(values(cells.values(), "accuracy"))
        if accuracy is None:
            rows.append((shown(arm), "not measured", *["–"] * 4))
            continue
        totals = [found for each in cells.items() if (found := total(*each)) is not None]
        epochs = statistics.median(len(cell["epochs"]) for cell in cells.values())
        seconds = statistics.median(to_pruned_s(cell) + cell["seconds"]["train"] for cell in cells.values())
        first = "" if not any("train_dense" in cell["seconds"] for cell in cells.values()) else "dense, then "
        time = f"{statistics.fmean(totals):.2f}" if totals else "not timed"
        rows.append((shown(arm), percent(accuracy), f"{first}{epochs:g}", time, f"{seconds:.0f}"))
    return table(("arm", "accuracy", "epochs", "all training, dense = 1", "seconds as recorded"), rows)


def at_equal_time(evidence: Evidence, seeds: Collection[int], key: str | None = None) -> Compared | None:
    """The trained start beside the initial weights at the same total time.

    What those reach in it lies between two amounts of training that were measured, on the logarithm of the time; where
    the time lies outside of what was measured there is no pair.
    """
    ours: dict[tuple[Pair, str], float] = {}
    theirs: dict[tuple[Pair, str], float] = {}
    for arm in TRAINED:
        for task, cell in evidence.of(arm, budget=key).items():
            time = total(task, cell)
            if task.seed not in seeds or time is None:
                continue
            points = sorted(_points(evidence, task))
            if len(points) > 1 and points[0][0] <= time <= points[-1][0]:
                of = ((task.setting, task.budget, task.seed), arm)
                times, reached = zip(*points, strict=True)
                ours[of] = 100 * cell["accuracy"]
                theirs[of] = float(np.interp(math.log(time), np.log(times), reached))
    return compared(ours, theirs)


def _points(evidence: Evidence, like: Task) -> Iterator[tuple[float, float]]:
    """Time and accuracy from the initial weights, of the same network."""
    for arm in UNTRAINED:
        for task, cell in evidence.of(arm, setting=like.setting, budget=like.budget).items():
            time = total(task, cell)
            if task.seed == like.seed and time is not None:
                yield time, 100 * cell["accuracy"]


Test = tuple[str, str, str | None]
"""Arm, what it is compared with, and the key of the budget."""


def _tests(evidence: Evidence, seeds: Collection[int]) -> dict[Test, Compared]:
    found: dict[Test, Compared | None] = {}
    for key in ("macs", "params", None):
        for _, arm, other in _COMPARED:
            both = (evidence.accuracies(one, budget=key, seeds=seeds) for one in (arm, other))
            found[arm, other, key] = compared(*both)
        found[_EQUAL, "", key] = at_equal_time(evidence, seeds, key)
    return {test: each for test, each in found.items() if each is not None}


def _differences(evidence: Evidence, seeds: Collection[int], *, corrected: bool) -> Sequence[Sequence[str]]:
    tests = _tests(evidence, seeds)
    p = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True)) if corrected else {}

    def words(test: Test) -> str:
        found = tests.get(test)
        if found is None:
            return "not measured"
        mean, interval, n = difference(found)
        return f"{mean} ({interval}), {n}" + (f": {found.verdict(p=p[test])}" if test in p else "")

    asked = [*_COMPARED, (_EQUAL, _EQUAL, "")]
    return [
        (what, f"{shown(arm)} − {shown(other)}" if other else "see below", *(words((arm, other, k)) for k in _KEYS))
        for what, arm, other in asked
        if any((arm, other, key) in tests for key in _KEYS)
    ]


_KEYS: Final = ("macs", "params", None)


def _about(seeds: Collection[int], *, corrected: bool) -> str:
    which = _named(seeds)
    told = "Points of accuracy, 95 % interval in brackets, number of pairs"
    if corrected:
        return f"On {which}, on which nothing was chosen. {told}, and the verdict after Holm for this table."
    return f"On {which}, which the defaults are chosen by: the same, and no test. {told}."


def _sentences(evidence: Evidence, tested: Collection[int], chosen: Collection[int]) -> Iterator[str]:
    """What the cells say about the start and the amount, in words."""
    seeds = tested if _tests(evidence, tested) else chosen
    if not seeds:
        return
    which = f"On {_named(seeds)}"
    tests = _tests(evidence, seeds)
    # The verdicts of the table: on seeds that nothing was chosen on, after the same correction.
    p = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))

    def verdict(test: Test) -> str:
        mean, interval, n = difference(tests[test])
        found = tests[test].verdict(p=p[test])
        said = {"undecided": "neither better nor worse as far as can be told"}.get(found, found)
        return f"{said}: {mean} points ({interval}; pairs: {n})"

    longer, own, same = ("equal-time", DEFAULT, None), (TRAINED[1], "equal-time", None), (_EQUAL, "", None)
    if longer in tests:
        yield (
            f"{which}, the **amount** of training: in the dense model's training time instead of in its epochs, the"
            f" default's network is {verdict(longer)}."
        )
    if own in tests:
        yield (
            f"{which}, the **start** where the dense model is trained anyway, as in a build: from its weights, in"
            f" equally long trainings of its own, the default's network is {verdict(own)}."
        )
    yield (
        f"{which}, the **start** where the dense model is trained for this alone: "
        + (
            "not measured, as no training from the initial weights is that long."
            if same not in tests
            else f"at equal total time a network that starts from its weights is {verdict(same)}. What the initial"
            " weights reach in that time is read between two trainings of different length, on the logarithm of the"
            " time."
        )
    )


def _named(seeds: Collection[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(seeds)))}"
