"""All cells as one result, and the results as docs/coverage.md."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from bench._common import record
from bench.coverage import beyond_page, cells, ours, theirs
from bench.coverage.beyond import case
from bench.coverage.beyond.case import Beyond
from bench.coverage.selection import CLASSES, Case
from bench.coverage.tallies import (
    Cell,
    Row,
    error,
    failures,
    left,
    reasons,
    shares,
    slowest,
    states,
    status,
    summed_up,
    theirs_in_short,
    times,
)
from bench.tables import measured, table

Result = Mapping[str, Any]

KINDS: Final = {"cnn": "CNNs", "hybrid": "hybrids of convolution and attention"}


def merged(cases: Sequence[Case], found: Mapping[str, Mapping[str, Cell | None]]) -> dict[str, Any]:
    """The result of a sweep of timm: a row for each case with the cell of each tool, None where none is finished."""
    rows = _rows([(c.name, asdict(c)) for c in cases], found)
    rows.sort(key=lambda row: (row["kind"], row["family"]))
    result = _result("coverage", rows, onnx=True)
    result["versions"] |= {"timm": _version("timm"), "torchvision": _version("torchvision")}
    return result


def merged_beyond(
    cases: Sequence[Beyond],
    found: Mapping[str, Mapping[str, Cell | None]],
    packages: Mapping[str, str | None],
    absent: Mapping[str, str],
) -> dict[str, Any]:
    """The result of a sweep beyond timm, with the versions of its packages and why some are missing."""
    rows = _rows([(c.name, {"name": c.name, "package": c.package}) for c in cases], found)
    tried = [row for row in rows if row["prunit"]]
    return _result("coverage_beyond", tried, onnx=False) | {"packages": dict(packages), "absent": dict(absent)}


def _rows(
    cases: Sequence[tuple[str, dict[str, Any]]], found: Mapping[str, Mapping[str, Cell | None]]
) -> list[dict[str, Any]]:
    """What is known of each case, and its finished cell of each tool."""
    done = {
        tool: {name: cell for name, cell in of_tool.items() if cells.finished(cell)} for tool, of_tool in found.items()
    }
    return [about | {tool: _portable(of_tool.get(name)) for tool, of_tool in done.items()} for name, about in cases]


def _result(name: str, rows: Sequence[Row], *, onnx: bool) -> dict[str, Any]:
    config = {
        "classes": CLASSES if onnx else case.CLASSES,
        "budget": "macs=1/2, uniform width, channels at random",
        "exact": ours.EXACT,
        "torch_pruning": "GroupMagnitudeImportance(p=2), BasePruner, pruning_ratio=0.5",
        "torch_pruning_exact": theirs.EXACT,
        "cpu_seconds": cells.SECONDS,
        "torch_pruning_cpu_seconds": cells.THEIR_SECONDS,
        "gigabytes": cells.GIGABYTES,
    }
    result = record(name, rows, config=config, n=len(rows), percentile="one run of each model", threads=1)
    found = [row["prunit"] for row in rows if row.get("prunit")]
    commits = sorted({cell.get("commit") for cell in found} - {None})
    if commits:
        result["versions"]["commit"] = ", ".join(commits)
    dates = sorted({cell["date"] for cell in found if "date" in cell})
    if dates:  # of the cells, not of the day on which they became a page
        result["date"] = dates[-1]
    return result


def _portable(value: Any) -> Any:
    """The same value without the folders of this machine that lines of code are named with."""
    if isinstance(value, str):
        for folder in filter(None, sys.path):
            value = value.replace(f"{folder}/", "")
        return re.sub(r"[^\s`'\"]*/site-packages/", "", value)
    if isinstance(value, dict):
        return {key: _portable(inner) for key, inner in value.items()}
    return [_portable(inner) for inner in value] if isinstance(value, list | tuple) else value


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def headline(result: Result) -> str:
    """What comes first on the page: a line for each kind, and the slowest."""
    lines = states(result["rows"])
    for kind, words in KINDS.items():
        lines += summed_up(words, [row for row in result["rows"] if row["kind"] == kind])
    return "\n".join(filter(None, [*lines, slowest(result["rows"])]))


def _cells(row: Row) -> tuple[str, ...]:
    us, onnx = row["prunit"] or {}, row.get("onnx")
    exported = "–" if onnx is None else "yes" if onnx["status"] == "exact" else status(onnx)
    if onnx and onnx.get("dense_exports") is False:
        exported = "nor uncut"
    return (
        row["name"],
        str(row["image_size"]),
        f"{row['params'] / 1e6:.1f}",
        status(row["prunit"]),
        *shares(us),
        *times(us),
        error(us),
        exported,
        theirs_in_short(row.get("torch-pruning")),
        left(row),
    )


def render(result: Result, beyond: Result | None = None) -> str:
    """The page: the networks of timm, and those beyond it where they were tried."""
    head = ("model", "px", "M params", "prunit", "macs left", "params left", "trace, ms", "compact, ms")
    head += ("error", "ONNX", "Torch-Pruning", "left whole, why")
    parts = [_INTRODUCTION.format(**_numbers(result)), "## In short", headline(result), measured(result)]
    if beyond:
        parts += [beyond_page.headline(beyond), measured(beyond)]
    for kind, words in KINDS.items():
        rows = [_cells(row) for row in result["rows"] if row["kind"] == kind]
        parts += [f"## {words[0].upper()}{words[1:]}", table(head, rows)]
    if beyond:
        parts += beyond_page.parts(beyond)
    everything = [*result["rows"], *(beyond["rows"] if beyond else ())]
    found = [(why.replace("|", "/"), groups, models) for why, groups, models in reasons(everything)]
    parts += ["## Why groups stay whole", _REASONS, table(("reason", "groups", "models"), found)]
    failed = failures(everything)
    if failed:
        parts += ["## What prunit does not manage", table(("model", "at", "what it says"), failed)]
    return "\n\n".join(parts) + "\n"


def _numbers(result: Result) -> dict[str, Any]:
    config = result["config"]
    return {
        "classes": config["classes"],
        "seconds": config["cpu_seconds"]["prunit"],
        "onnx_seconds": config["cpu_seconds"]["onnx"],
        "their_seconds": config["torch_pruning_cpu_seconds"],
        "most": f"{ours.MOST:.0e}",
        "onnx_exact": f"{ours.ONNX_EXACT:.0e}",
        "onnx_most": f"{ours.ONNX_MOST:.0e}",
        "gigabytes": config["gigabytes"],
        "exact": f"{config['exact']:.0e}",
        "their_exact": f"{config['torch_pruning_exact']:.0e}",
        **{kind: sum(row["kind"] == kind for row in result["rows"]) for kind in KINDS},
    }


_REASONS: Final = (
    "Groups that had to stay whole, without those that go out of the network. Names and numbers of single models are"
    " left out of the reasons."
)
_INTRODUCTION: Final = """\
# Which architectures can be cut

Written by `python -m bench.coverage`; nothing here was picked or typed by hand. The models are the smallest member
of each family of timm that is a CNN ({cnn}) or a hybrid of convolution and attention ({hybrid}), untrained, with
{classes} classes, at 64 pixels or at the first larger size at which the model runs. A family is the file that
builds the model and the name up to its first size; what it is made of is seen while it runs
(`bench/coverage/selection.py` has the rule). Transformers and MLPs are left out. No model gets a hint or a setting
of its own.

What is asked of prunit: `trace`; a plan of uniform width that halves the macs, its channels drawn at random (where
half cannot be reached, every group that may shrink is cut to its minimum); `compact`; then the small model must
run, train a step, and have the parameters and macs that were predicted. At last the model gets random weights and
statistics as after some training, in float64, and the compact model must equal the masked one in evaluation mode
and in training mode, under this plan and under one of uneven random widths. **Exact** is all of this, with a
relative error below {exact}; where a change of the images in the last place alone makes more than a tenth of that,
up to ten times what it makes, but never above {most}. *Error* is the largest of the four. Some groups may stay
whole in an exact model; the share of macs says how much that costs.

ONNX: the compact model exported and run in ONNX Runtime, float32, equal within {onnx_exact} of the largest output;
where float32 instead of float64 makes more than a tenth of that in PyTorch already, within ten times what it makes,
but never more than {onnx_most}. "Nor uncut" is a model that the exporter does not manage before the cut either.

What is asked of Torch-Pruning: `BasePruner` with `GroupMagnitudeImportance(p=2)` and ratio 0.5, the classifier
ignored; then the model must run, keep its output shape and train a step. It is exact if it equals the uncut model
with the same weights set to zero (below {their_exact}); where it differs ("runs, differs"), the cause may also be a
norm over channels, which now sees fewer of them. In brackets the share of macs by its own counter.

Limits for each model, in CPU time on one thread: {seconds} s, most of which go into the comparisons, {onnx_seconds} s
for the export; of these Torch-Pruning has {their_seconds} s to build its graph and {their_seconds} s to prune; three
times that by the clock; {gigabytes} GB of address space. Where Torch-Pruning reached a limit, the table says in
brackets what was being done: 'graph' and 'prune' are its own work, the rest is ours around it."""
