"""What cells say, counted: for the screen, for the page of timm and for the table of what is beyond it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bench.coverage import ours

Cell = dict[str, Any]
Row = Mapping[str, Any]

WRONG: Final = "🔴 **silently wrong**"
_WORDS: Final = {
    "wrong": WRONG,
    "miscounted": "**cost mispredicted**",
    "unclear": "not comparable",
    "uncut": "nor uncut",
    "timeout": "out of time",
    "memory": "out of memory",
    "died": "crashed",
    "runs": "runs, not compared",
}
_LIMITS: Final = ("timeout", "memory", "died")
_OUTPUT: Final = re.compile(r"output", re.IGNORECASE)


def line(name: str, cell: Cell) -> str:
    """One line about a cell, for the screen."""
    share = f", {cell['shares'].get('macs', float('nan')):.0%} of the macs" if "shares" in cell else ""
    return f"{name}: {status(cell)}{share}, {cell.get('cpu_s', '?')} s{_why(cell)}"


def _why(cell: Cell) -> str:
    if "error_line" in cell:
        return f" [{cell['stage']}] {cell['error_line'][:150]}"
    if cell["status"] in _LIMITS:
        return f" [{cell['stage']}]"
    if cell["status"] == "wrong":
        return f" {error(cell)}"
    return f" {cell['backward']}" if cell.get("backward") else ""


def status(cell: Cell | None) -> str:
    """How a cell ended, in words for a table."""
    if cell is None:
        return "–"
    if cell.get("tool") == "torch-pruning":
        if cell["status"] == "wrong":
            return "runs, differs"
        if cell["status"] in _LIMITS:
            return f"{_WORDS[cell['status']]} ({cell['stage']})"
    return _WORDS.get(cell["status"], str(cell["status"]))


def error(cell: Cell) -> str:
    """The largest error of a cell."""
    errors = [cell[key] for key in (*ours.ERRORS, "error") if isinstance(cell.get(key), float)]
    return f"{max(errors):.0e}" if errors else "–"


def counts(rows: Iterable[Row], tool: str) -> Counter[str]:
    """How many models ended how; `tried` is all that run uncut, `half` those that are exact at half the macs."""
    found = [row[tool] for row in rows if row.get(tool) and row[tool]["status"] != "uncut"]
    tally = Counter(cell["status"] for cell in found)
    tally["tried"] = len(found)
    tally["half"] = sum(c["status"] == "exact" and c["shares"]["macs"] <= 0.55 for c in found if "shares" in c)
    tally["late"] = sum(tally[status] for status in _LIMITS)
    return tally


def summed_up(words: str, rows: Sequence[Row]) -> list[str]:
    """Lines for some models: how many are exact, by the second check too, and what the other tools make of them."""
    n = counts(rows, "prunit")
    lines = [
        f"- **{words}: {n['exact']} of {n['tried']} exact**, {n['half']} of them at half the macs or within a"
        f" tenth of it; silently wrong {n['wrong']}, cost mispredicted {n['miscounted']}, refused or failed"
        f" {n['failed']}, out of time or memory {n['late']}"
        + (f", not comparable {n['unclear']}" if n["unclear"] else "")
        + _within_rounding(rows),
        _second(rows),
    ]
    them = counts(rows, "torch-pruning")
    if them["tried"]:
        lines.append(
            f"  - Torch-Pruning: {them['exact'] + them['wrong'] + them['runs']} of {them['tried']} run and train"
            f" after the cut, {them['exact']} of these equal to the masked network; failed {them['failed']},"
            f" out of time or memory {them['late']}{_inside(rows)}"
        )
    onnx = counts(rows, "onnx")
    if onnx["tried"]:
        lines.append(f"  - ONNX: {onnx['exact']} of {onnx['tried']} exported with equal outputs{_exporter(rows)}")
    return lines


def slowest(rows: Iterable[Row]) -> str:
    """The line about the slowest; '' where nothing ran."""
    found = [row for row in rows if {"trace_ms", "compact_ms"} <= (row.get("prunit") or {}).keys()]
    if not found:
        return ""
    traced, cut = (max(found, key=lambda row: row["prunit"][key]) for key in ("trace_ms", "compact_ms"))
    return (
        f"- slowest: `trace` {traced['prunit']['trace_ms'] / 1e3:.1f} s ({traced['name']}),"
        f" `compact` {cut['prunit']['compact_ms'] / 1e3:.2f} s ({cut['name']})"
    )


def second(cell: Cell) -> str:
    """What the check without prunit's mask says: equal, or not, which a norm over channels excuses."""
    for mode in ("", "train_"):
        found = cell.get(f"second_{mode}error")
        if found is None and not mode:
            return "–"
        if found is not None and found >= max(ours.EXACT, min(ours.MOST, 10 * cell.get(f"{mode}rounding", 0.0))):
            return "norm" if cell.get("mixed") else "differs"
    return "equal"


def _exact(rows: Iterable[Row]) -> list[tuple[str, Cell]]:
    found = [(row["name"], row["prunit"]) for row in rows if row.get("prunit")]
    return [(name, cell) for name, cell in found if cell["status"] == "exact"]


def _second(rows: Iterable[Row]) -> str:
    """The count of the check that does without prunit's mask."""
    found = [(name, second(cell)) for name, cell in _exact(rows)]
    n = Counter(word for _, word in found)
    rest = [name for name, word in found if word == "differs"]
    return (
        f"  - of these, {n['equal']} also equal the uncut network with the weights that are gone set to zero, found"
        f" without prunit's mask; of the other {len(found) - n['equal']}, {n['norm']} compute something over all"
        " channels (a layer norm), which that check cannot follow" + (f"; not so {', '.join(rest)}" if rest else "")
    )


def _inside(rows: Iterable[Row]) -> str:
    """In how many of these Torch-Pruning itself was at work when the limit was reached."""
    found = [row["torch-pruning"] for row in rows if row.get("torch-pruning")]
    late = [cell for cell in found if cell["status"] in _LIMITS]
    inside = sum(cell["stage"] in ("graph", "prune") for cell in late)
    return f" ({inside} of them while it built its graph or pruned)" if late else ""


def _within_rounding(rows: Iterable[Row]) -> str:
    """How many models owe it to rounding that they count as exact."""
    over = [c for _, c in _exact(rows) if any(c.get(key, 0.0) >= ours.EXACT for key in ours.ERRORS)]
    return f"; {len(over)} of the exact ones above {ours.EXACT:.0e}, by rounding alone" if over else ""


def _exporter(rows: Iterable[Row]) -> str:
    """How many are equal by rounding alone, and how many exports failed for which the uncut model fails too."""
    found = [row["onnx"] for row in rows if row.get("onnx")]
    too = sum(cell.get("dense_exports") is False for cell in found)
    wider = sum(cell["status"] == "exact" and 10 * cell.get("float_rounding", 0.0) > ours.ONNX_EXACT for cell in found)
    said = f", {wider} of these by the wider measure for float32" if wider else ""
    return said + (f" (of the others, {too} cannot be exported uncut either)" if too else "")


def states(rows: Sequence[Row]) -> list[str]:
    """Lines about cells that are of several states of the code, and about those that were kept from earlier runs."""
    found = Counter(row["prunit"].get("commit") for row in rows if row.get("prunit"))
    lines: list[str] = []
    if len(found) > 1:
        parts = ", ".join(f"{n} of {state}" for state, n in found.most_common())
        lines.append(
            f"- **Not yet one run:** prunit's cells are of {len(found)} states of the code ({parts}; + is one with"
            " changes that were not committed), and models that failed were tried again on later code. So the counts"
            " below are no result of one commit, and times were taken beside other work. `--tools prunit --fresh` makes"
            " them one."
        )
    for tool, words in (("onnx", "the cells of ONNX"), ("torch-pruning", "Torch-Pruning's cells")):
        cells = [row[tool] for row in rows if row.get(tool)]
        kept = Counter((c.get("commit"), c.get("date")) for c in cells if c.get("commit") not in found)
        if kept:
            parts = ", ".join(f"{n} of {commit} ({date or 'undated'})" for (commit, date), n in kept.most_common())
            both = tool == "onnx" or all("train_error" in c for c in cells if c["status"] == "exact")
            lines.append(
                f"- {words} are of earlier runs: {parts}"
                + ("" if both else "; these were compared with the masked network in evaluation mode alone")
            )
    return lines


def general(reason: str) -> str:
    """A reason without the names and numbers of one model."""
    return re.sub(r"\d+", "N", re.sub(r"(?<!\w)'[^']*'", "'…'", reason))


def kept(row: Row) -> list[tuple[str, int, str]]:
    """Groups that had to stay whole: name, channels, reason; without what goes out of the network."""
    pinned = (row["prunit"] or {}).get("pinned", [])
    return [(name, size, why) for name, size, why in pinned if not _OUTPUT.search(why)]


def reasons(rows: Iterable[Row]) -> list[tuple[str, int, int]]:
    """Every reason for which a group stayed whole, in how many groups and models; the most frequent first."""
    groups: Counter[str] = Counter()
    models: Counter[str] = Counter()
    for row in rows:
        found = Counter(general(why) for _, _, why in kept(row))
        groups += found
        models.update(found.keys())
    return [(why, n, models[why]) for why, n in groups.most_common()]


def left(row: Row) -> str:
    """In short what stayed whole and why, or what went wrong."""
    us = row["prunit"] or {}
    if "error_line" in us:
        return f"{us['stage']}: {us['error_line'].replace('|', '/')[:160]}"
    found = Counter(general(why) for _, _, why in kept(row))
    most = [f"{n} × {why}" for why, n in found.most_common(2)]
    return "; ".join(most).replace("|", "/") + ("; …" if len(found) > 2 else "")


def failures(rows: Iterable[Row]) -> list[tuple[str, str, str]]:
    """Model, stage and words of everything that prunit does not manage."""
    return [
        (row["name"], row["prunit"]["stage"], row["prunit"].get("error_line", status(row["prunit"])).replace("|", "/"))
        for row in rows
        if row["prunit"] and row["prunit"]["status"] not in ("exact", "unclear", "uncut")
    ]


def shares(cell: Cell) -> tuple[str, ...]:
    """Macs and parameters that are left."""
    share = cell.get("shares", {})
    return tuple(f"{share[key]:.0%}" if key in share else "–" for key in ("macs", "params"))


def times(cell: Cell) -> tuple[str, ...]:
    """What tracing and cutting took, in ms."""
    return tuple(f"{cell[key]:.0f}" if key in cell else "–" for key in ("trace_ms", "compact_ms"))


def theirs_in_short(cell: Cell | None) -> str:
    """What became of Torch-Pruning's cut; in brackets the share of macs that it left."""
    share = (cell or {}).get("shares", {}).get("macs")
    return status(cell) + (f" ({share:.0%})" if share is not None else "")
