"""All cells as one result, and the result as docs/coverage.md."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from bench._common import record
from bench.coverage import cells, ours, theirs
from bench.coverage.selection import CLASSES, Case
from bench.tables import measured, table

Cell = Mapping[str, Any]
Result = Mapping[str, Any]
Row = Mapping[str, Any]

KINDS: Final = {"cnn": "CNNs", "hybrid": "hybrids of convolution and attention"}
_WRONG: Final = "🔴 **silently wrong**"
_WORDS: Final = {
    "wrong": _WRONG,
    "miscounted": "**cost mispredicted**",
    "unclear": "not comparable",
    "timeout": "out of time",
    "memory": "out of memory",
    "died": "crashed",
    "runs": "runs, not compared",
}
_LIMITS: Final = ("timeout", "memory", "died")
_OUTPUT: Final = re.compile(r"output", re.IGNORECASE)


def merged(cases: Sequence[Case], found: Mapping[str, Mapping[str, Cell | None]]) -> dict[str, Any]:
    """The result of a sweep: a row for each case with the cell of each tool, None where it has not been finished."""
    done = {
        tool: {name: cell for name, cell in of_tool.items() if cells.finished(cell)} for tool, of_tool in found.items()
    }
    rows = [
        asdict(case) | {tool: _portable(of_tool.get(case.name)) for tool, of_tool in done.items()} for case in cases
    ]
    rows.sort(key=lambda row: (row["kind"], row["family"]))
    config = {
        "classes": CLASSES,
        "budget": "macs=1/2, uniform width, channels at random",
        "exact": ours.EXACT,
        "torch_pruning": "GroupMagnitudeImportance(p=2), BasePruner, pruning_ratio=0.5",
        "torch_pruning_exact": theirs.EXACT,
        "cpu_seconds": cells.SECONDS,
        "torch_pruning_cpu_seconds": cells.THEIR_SECONDS,
        "gigabytes": cells.GIGABYTES,
    }
    result = record("coverage", rows, config=config, n=len(rows), percentile="one run of each model", threads=1)
    result["versions"] |= {"timm": _version("timm"), "torchvision": _version("torchvision")}
    commits = sorted({row["prunit"].get("commit") for row in rows if row.get("prunit")} - {None})
    if commits:
        result["versions"]["commit"] = ", ".join(commits)
    return result


def _portable(value: Any) -> Any:
    """The same value without the folders of this machine that lines of code are named with."""
    if isinstance(value, str):
        return re.sub(r"[^\s`'\"]*/site-packages/", "", value)
    if isinstance(value, dict):
        return {key: _portable(inner) for key, inner in value.items()}
    return [_portable(inner) for inner in value] if isinstance(value, list | tuple) else value


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def line(case: Case, cell: Cell) -> str:
    """One line about a cell, for the screen."""
    share = f", {cell['shares']['macs']:.0%} of the macs" if "shares" in cell else ""
    return f"{case.name}: {_status(cell)}{share}, {cell.get('cpu_s', '?')} s{_why(cell)}"


def _why(cell: Cell) -> str:
    if "error_line" in cell:
        return f" [{cell['stage']}] {cell['error_line'][:150]}"
    if cell["status"] in ("timeout", "memory", "died"):
        return f" [{cell['stage']}]"
    if cell["status"] == "wrong":
        return f" {_error(cell)}"
    return f" {cell['backward']}" if cell.get("backward") else ""


def _status(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    if cell.get("tool") == "torch-pruning":
        if cell["status"] == "wrong":
            return "runs, differs"
        if cell["status"] in _LIMITS:
            return f"{_WORDS[cell['status']]} ({cell['stage']})"
    return _WORDS.get(cell["status"], cell["status"])


def _error(cell: Cell) -> str:
    """The largest error of a cell."""
    errors = [cell[key] for key in (*ours.ERRORS, "error") if isinstance(cell.get(key), float)]
    return f"{max(errors):.0e}" if errors else "–"


def _states(result: Result) -> str:
    """A warning where the cells are not of one state of the code: together they are then no result of any of them."""
    found = Counter(row["prunit"].get("commit") for row in result["rows"] if row.get("prunit"))
    if len(found) < 2:
        return ""
    parts = ", ".join(f"{n} of {state}" for state, n in found.most_common())
    return (
        f"- **Not yet one run:** prunit's cells are of {len(found)} states of the code ({parts}; + is one with"
        " changes that were not committed), and models that failed were tried again on later code. So the counts"
        " below are no result of one commit, and times were taken beside other work. `--tools prunit --fresh` makes"
        " them one."
    )


def counts(result: Result, tool: str, kind: str) -> Counter[str]:
    """How many models of a kind ended how; `tried` is all of them, `half` those that are exact at half the macs."""
    found = [row[tool] for row in result["rows"] if row["kind"] == kind and row.get(tool)]
    tally = Counter(cell["status"] for cell in found)
    tally["tried"] = len(found)
    tally["half"] = sum(c["status"] == "exact" and c["shares"]["macs"] <= 0.55 for c in found if "shares" in c)
    return tally


def headline(result: Result) -> str:
    """What comes first on the page: a line for each kind, and the slowest."""
    warning = _states(result)
    lines = [warning] if warning else []
    for kind, words in KINDS.items():
        n = counts(result, "prunit", kind)
        lines.append(
            f"- **{words}: {n['exact']} of {n['tried']} exact**, {n['half']} of them at half the macs or within a"
            f" tenth of it; silently wrong {n['wrong']}, cost mispredicted {n['miscounted']}, refused or failed"
            f" {n['failed']}, out of time or memory {sum(n[status] for status in _LIMITS)}"
            f"{_other(n)}{_within_rounding(result, kind)}"
        )
        lines.append(_second(result, kind))
        them = counts(result, "torch-pruning", kind)
        if them["tried"]:
            lines.append(
                f"  - Torch-Pruning: {them['exact'] + them['wrong'] + them['runs']} of {them['tried']} run and train"
                f" after the cut, {them['exact']} of these equal to the masked network; failed {them['failed']},"
                f" out of time or memory {sum(them[status] for status in _LIMITS)}{_inside(result, kind)}"
            )
        onnx = counts(result, "onnx", kind)
        if onnx["tried"]:
            lines.append(
                f"  - ONNX: {onnx['exact']} of {onnx['tried']} exported with equal outputs{_exporter(result, kind)}"
            )
    timed = [(row["prunit"]["trace_ms"], row["name"]) for row in result["rows"] if "trace_ms" in (row["prunit"] or {})]
    cut = [
        (row["prunit"]["compact_ms"], row["name"]) for row in result["rows"] if "compact_ms" in (row["prunit"] or {})
    ]
    if timed and cut:
        lines.append(
            f"- slowest: `trace` {max(timed)[0] / 1e3:.1f} s ({max(timed)[1]}), `compact` {max(cut)[0] / 1e3:.2f} s"
            f" ({max(cut)[1]})"
        )
    return "\n".join(lines)


def _second(result: Result, kind: str) -> str:
    """The count of the check that does without prunit's mask."""
    exact = [row["prunit"] for row in result["rows"] if row["kind"] == kind and (row["prunit"] or {})]
    exact = [cell for cell in exact if cell["status"] == "exact"]
    same = [cell for cell in exact if (error := cell.get("second_error")) is not None and error < ours.EXACT]
    mixed = sum(bool(cell.get("mixed")) for cell in exact if cell not in same)
    return (
        f"  - of these, {len(same)} also equal the uncut network with the weights that are gone set to zero, found"
        f" without prunit's mask; of the other {len(exact) - len(same)}, {mixed} compute something over all channels"
        " (a layer norm), which that check cannot follow"
    )


def _inside(result: Result, kind: str) -> str:
    """In how many of these Torch-Pruning itself was at work when the limit was reached."""
    found = [row["torch-pruning"] for row in result["rows"] if row["kind"] == kind and row.get("torch-pruning")]
    late = [cell for cell in found if cell["status"] in _LIMITS]
    inside = sum(cell["stage"] in ("graph", "prune") for cell in late)
    return f" ({inside} of them while it built its graph or pruned)" if late else ""


def _within_rounding(result: Result, kind: str) -> str:
    """How many models owe it to rounding that they count as exact."""
    found = [row["prunit"] for row in result["rows"] if row["kind"] == kind and row["prunit"]]
    over = [c for c in found if c["status"] == "exact" and any(c.get(key, 0.0) >= ours.EXACT for key in ours.ERRORS)]
    return f"; {len(over)} of the exact ones above {ours.EXACT:.0e}, by rounding alone" if over else ""


def _other(n: Counter[str]) -> str:
    return f", not comparable {n['unclear']}" if n["unclear"] else ""


def _exporter(result: Result, kind: str) -> str:
    """How many are equal by rounding alone, and how many exports failed for which the uncut model fails too."""
    found = [row["onnx"] for row in result["rows"] if row["kind"] == kind and row.get("onnx")]
    too = sum(cell.get("dense_exports") is False for cell in found)
    wider = sum(cell["status"] == "exact" and 10 * cell.get("float_rounding", 0.0) > ours.ONNX_EXACT for cell in found)
    said = f", {wider} of these by the wider measure for float32" if wider else ""
    return said + (f" (of the others, {too} cannot be exported uncut either)" if too else "")


def general(reason: str) -> str:
    """A reason without the names and numbers of one model."""
    return re.sub(r"\d+", "N", re.sub(r"(?<!\w)'[^']*'", "'…'", reason))


def kept(row: Row) -> list[tuple[str, int, str]]:
    """Groups that had to stay whole: name, channels, reason; without what goes out of the network."""
    pinned = (row["prunit"] or {}).get("pinned", [])
    return [(name, size, why) for name, size, why in pinned if not _OUTPUT.search(why)]


def reasons(result: Result) -> list[tuple[str, int, int]]:
    """Every reason for which a group stayed whole, in how many groups and models; the most frequent first."""
    groups: Counter[str] = Counter()
    models: Counter[str] = Counter()
    for row in result["rows"]:
        found = Counter(general(why) for _, _, why in kept(row))
        groups += found
        models.update(found.keys())
    return [(why, n, models[why]) for why, n in groups.most_common()]


def _left(row: Row) -> str:
    """In short what stayed whole and why."""
    found = Counter(general(why) for _, _, why in kept(row))
    most = [f"{n} × {why}" for why, n in found.most_common(2)]
    return "; ".join(most).replace("|", "/") + ("; …" if len(found) > 2 else "")


def _cells(row: Row) -> tuple[str, ...]:
    us, onnx, them = row["prunit"] or {}, row.get("onnx"), row.get("torch-pruning")
    share = us.get("shares", {})
    exported = "–" if onnx is None else "yes" if onnx["status"] == "exact" else _status(onnx)
    if onnx and onnx.get("dense_exports") is False:
        exported = "nor uncut"
    their_share = f" ({them['shares']['macs']:.0%})" if them and "shares" in them else ""
    return (
        row["name"],
        str(row["image_size"]),
        f"{row['params'] / 1e6:.1f}",
        _status(row["prunit"]),
        *(f"{share[key]:.0%}" if share else "–" for key in ("macs", "params")),
        *(f"{us[key]:.0f}" if key in us else "–" for key in ("trace_ms", "compact_ms")),
        _error(us),
        exported,
        f"{_status(them)}{their_share}",
        f"{us['stage']}: {us['error_line'].replace('|', '/')[:160]}" if "error_line" in us else _left(row),
    )


def render(result: Result) -> str:
    """The page."""
    head = ("model", "px", "M params", "prunit", "macs left", "params left", "trace, ms", "compact, ms")
    head += ("error", "ONNX", "Torch-Pruning", "left whole, why")
    parts = [_INTRODUCTION.format(**_numbers(result)), "## In short", headline(result), measured(result)]
    for kind, words in KINDS.items():
        rows = [_cells(row) for row in result["rows"] if row["kind"] == kind]
        parts += [f"## {words[0].upper()}{words[1:]}", table(head, rows)]
    found = [(why.replace("|", "/"), groups, models) for why, groups, models in reasons(result)]
    parts += ["## Why groups stay whole", _REASONS, table(("reason", "groups", "models"), found)]
    failed = [
        (row["name"], row[tool]["stage"], row[tool].get("error_line", _status(row[tool])).replace("|", "/"))
        for tool in ("prunit",)
        for row in result["rows"]
        if row[tool] and row[tool]["status"] not in ("exact", "unclear")
    ]
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
