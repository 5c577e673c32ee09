"""docs/evidence.md from the cells. Every figure on it is computed here; where cells are missing it says so."""

import statistics
from collections.abc import Mapping
from typing import Final

from bench._common import table
from bench.evidence import claims, hour
from bench.evidence.arms import ARMS
from bench.evidence.asked import Evidence, times_faster, values
from bench.evidence.cells import Found
from bench.evidence.pairs import MARGIN, compared, spread
from bench.evidence.pictures import pictures
from bench.evidence.protocols import PROTOCOLS
from bench.evidence.tasks import plain
from bench.evidence.words import difference, percent, shown, to_pruned_s

PICTURES: Final = "evidence"
"""The folder beside the page with its pictures."""
REFERENCE: Final = "uniform"
"""The arm that all others are compared with in the tables of results."""

_INTRO: Final = f"""# Evidence

What do I get for an hour of this machine? Do networks that are pruned before training hold their accuracy, and which
reading of the papers is the better one? This page is written by `python -m bench.evidence table` from the cells in
`bench/results/evidence/`, one JSON file for every model that was trained. No figure stands here that no cell backs.

**Equal terms.** All arms of a table start from the same initial weights for each seed, see the same images in the same
order for the same epochs under the same recipe, and meet the same budget, of parameters or of multiply-adds (macs).
Masks are held to the budget by the weights that are left, though they are stored densely. Batch norm is folded into the
convolutions for everyone before latency is measured, on one thread of ONNX Runtime, in turns with the dense model.
Pruning after training trains the dense model by the whole recipe, cuts it, and trains by the whole recipe once more:
twice the training of every other arm, an upper reference. Its first training, and what a search trains, count among the
seconds to a pruned model.
The arms `equal-*` and `trained-start-equal-time` train for other epochs, which is what they are about: the first
question compares them by the time of all training.
Accuracy is that after the last epoch, in percent, mean ± standard deviation over seeds, their number in brackets.

**Tests.** Differences are of pairs: same setting, budget and seed. The interval is that of a paired t test at 95 %.
"better" and "worse": it lies on one side of 0, and p, corrected after Holm for all tests of the table, is below 0.05.
The default was chosen on some seeds of `cpu`; it is tested on others.
"same": it lies within ±{MARGIN} points. Everything else is "undecided", which is not "same". Pairs of one seed at
several budgets are not independent of each other, so an interval over several budgets is somewhat too narrow.

**Again.** `python -m bench.evidence again FILE` fills one cell once more and compares; it keeps the same channels
exactly. To fill what is missing, with the data sets in the folder DATA:

```
python -m bench.evidence run cpu --jobs 2 --minutes 60 --data-dir DATA     # again and again: some hours
python -m bench.evidence run vgg16 --jobs 2 --data-dir DATA                # an hour or two
python -m bench.evidence run gpu --jobs 8 --minutes 7 --data-dir DATA      # again and again, until nothing is missing
python -m bench.evidence run cpu32 --minutes 60 --data-dir DATA            # again and again, over days
python -m bench.evidence steps cpu --data-dir DATA                         # steps of cells that were made without
python -m bench.evidence latency gpu --data-dir DATA                       # on a machine that does nothing else
python -m bench.evidence table
```

A run may be killed at any moment: cells that are done stay, and trainings go on from their last epoch where the folder
`--work` is still there. `python -m bench.evidence merge FOLDER` takes in cells from another machine.
With `--ray ADDRESS` cells are tasks of Ray, of `--cpus-per-trial` threads each; all nodes must see the folders of
`--work`, `--cells` and `--data-dir` at the same place.
"""


def render(found: Mapping[str, Found]) -> str:
    """The page of some protocols."""
    evidence = {name: Evidence(cells, PROTOCOLS[name].choosing) for name, cells in found.items()}
    parts = [
        _INTRO,
        "## What do I get for an hour of this machine?\n\n" + hour.section(evidence),
        "## What is there\n\n" + _coverage(found),
        "## What is claimed, and what holds\n\n" + claims.section(evidence),
        *(_results(name, each) for name, each in evidence.items() if each.found.cells),
        "## The arms\n\n"
        + table(("arm", "family", "what it is"), [(f"`{n}`", a.family, a.line) for n, a in ARMS.items()]),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _coverage(found: Mapping[str, Found]) -> str:
    rows = [
        (
            f"`{name}`",
            PROTOCOLS[name].about,
            len(each.cells),
            each.tasks - len(each.cells),
            len(each.stale),
            _made(each),
        )
        for name, each in found.items()
    ]
    incomplete = [name for name, each in found.items() if each.missing or each.stale]
    told = (
        f"\n\n**Incomplete: {', '.join(incomplete)}.** What is missing is left out below, and said."
        if incomplete
        else ""
    )
    head = ("protocol", "what it is", "cells", "missing", "of these out of date", "made with")
    return table(head, rows) + told


def _made(found: Found) -> str:
    """Machines, versions and commits of the cells."""
    machines = {c["device"]["accelerator"] or c["device"]["cpu"] for c in found.cells.values()}
    torch = {f"torch {c['versions']['torch']}" for c in found.cells.values()}
    commits = {f"commit {c['versions']['commit'] or 'unknown'}" for c in found.cells.values()}
    measured = {f"latency on {c.get('measured', c)['device']['cpu']}" for c in found.cells.values()}
    return "; ".join([*sorted(machines), *sorted(measured), *sorted(torch), *sorted(commits)]) or "–"


def _results(name: str, evidence: Evidence) -> str:
    parts = [f"## Results of `{name}`", _ranking(evidence)]
    drawn = pictures(evidence)
    for setting in evidence.settings:
        parts.append(_dense(evidence, setting))
        for budget in evidence.budgets(setting):
            parts.append(f"### {setting}, {budget.partition('@')[0]}\n\n{_table(evidence, setting, budget)}")
        mine = [file for file in drawn if file.startswith(f"{plain(setting)}-")]
        parts += [f"![{setting}]({PICTURES}/{file})" for file in mine]
    return "\n\n".join(parts)


def _ranking(evidence: Evidence) -> str:
    """All arms by their mean difference to the reference, over all settings and budgets that both have."""
    rows: list[tuple[float, tuple[str, ...]]] = []
    asked = {task.budget.partition("=")[0] for task in evidence.declared()}
    keys = [key for key in ("params", "macs", "ram", "latency") if key in asked]
    for arm in (name for name, about in ARMS.items() if about.amount == "epochs"):
        tests = [
            compared(evidence.accuracies(arm, budget=key), evidence.accuracies(REFERENCE, budget=key)) for key in keys
        ]
        means = [test.mean for test in tests if test]
        if means and arm != REFERENCE:
            told = [", ".join(difference(t)[:2]) + f" ({t.n} pairs)" if t else "not measured" for t in tests]
            rows.append((statistics.fmean(means), (shown(arm), *told)))
    if not rows:
        return f"No pair of an arm and `{REFERENCE}` is there yet."
    rows.sort(key=lambda row: -row[0])
    words = (
        f"All arms by their mean difference to `{REFERENCE}` over all settings and budgets, in points, with its 95 %"
        " interval. An arm of which cells are missing is compared on fewer pairs."
    )
    head = ("arm", *(f"at equal {key}" for key in keys))
    return f"{words}\n\n{table(head, [row for _, row in rows])}"


def _dense(evidence: Evidence, setting: str) -> str:
    found = evidence.of("dense", setting=setting)
    accuracy = spread(values(found.values(), "accuracy"))
    if accuracy is None:
        return f"The dense model of {setting}: not measured."
    cell = next(iter(found.values()))
    latency = " and ".join(f"{each['p50_ms']:.2f} ms at batch {each['batch']}" for each in cell["latency"])
    return (
        f"The dense model of {setting}: {percent(accuracy)} %, {cell['params']:,} parameters, {cell['macs']:,} macs,"
        f" {latency}, trained in {statistics.median(values(found.values(), 'seconds', 'train')):.0f} s."
    )


def _table(evidence: Evidence, setting: str, budget: str) -> str:
    rows: list[tuple[object, ...]] = []
    reference = evidence.accuracies(REFERENCE, setting=setting, budget=budget)
    for arm in ARMS:
        wanted = evidence.wanted(arm, setting, budget)
        if not wanted:
            continue
        cells = list(evidence.of(arm, setting=setting, budget=budget).values())
        accuracy = spread(values(cells, "accuracy"))
        label = shown(arm)
        if accuracy is None:
            why = "; ".join(dict.fromkeys(evidence.errors(arm, setting, budget))) or f"not measured (0 of {wanted})"
            rows.append((label, why.replace("|", "/")[:160], *["–"] * 9))
            continue
        test = compared(evidence.accuracies(arm, setting=setting, budget=budget), reference)
        rows.append(
            (
                label,
                percent(accuracy) + (f" of {wanted}" if accuracy.n < wanted else ""),
                *(difference(test)[:2] if test and arm != REFERENCE else ("–", "–")),
                *(f"{statistics.fmean(c['dense'][k] / c[k] for c in cells):.1f}×" for k in ("params", "macs")),
                f"{statistics.fmean(c['dense']['params'] / c['stored_params'] for c in cells):.1f}×",
                *(f"{statistics.fmean(times_faster(c, batch) for c in cells):.2f}×" for batch in (1, 32)),
                f"{statistics.median(values(cells, 'peak_memory_bytes')) / 1e6:.1f}",
                f"{statistics.median(to_pruned_s(c) for c in cells):.1f}",
            )
        )
    head = ("arm", "accuracy", f"− {REFERENCE}", "95 % interval", "fewer params", "fewer macs", "smaller stored")
    return table((*head, "faster, batch 1", "faster, batch 32", "memory, MB", "s to prune"), rows)
