"""The tables of the page on microcontrollers and NPUs, each between its own markers, from what `bench.mcu` measured."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from bench._common import table
from bench._tiny_nets import NETS

Result = Mapping[str, Any]
Row = Mapping[str, Any]
Point = tuple[float, float]

WAYS: Final[Mapping[str, str]] = {
    "cycles": "prunit, cycles",
    "cycles-balanced": "prunit, cycles, balanced",
    "macs": "prunit, macs",
    "macs-1": "prunit, macs, round_to=1",
    "torch-pruning": "Torch-Pruning, macs, all layers",
    "torch-pruning-even": "Torch-Pruning, macs, even",
}
_OTHERS: Final = tuple(way for way in WAYS if way != "cycles")
_FINAL: Final = ("cycles", "sram_bytes", "flash_bytes", "arena_bytes", "file_bytes")


def _of(result: Result, *kinds: str) -> list[Row]:
    return [row for row in result["rows"] if row["kind"] in kinds and "error" not in row]


def _nets(rows: Sequence[Row]) -> list[str]:
    found = {row["net"] for row in rows}
    return [name for name in NETS if name in found]


def crossing(curve: Sequence[Point], at: float) -> float | None:
    """Where a curve of (x, y) first comes to y = `at`, x on a logarithmic scale; None if it never does.

    Of points that are dearer (a larger x) and no better than another, none counts: whoever has both takes the better.
    A curve that begins at a higher y gives its first x: what it would be below that nobody measured.
    """
    best: list[Point] = []
    for x, y in sorted(curve):
        if not best or y > best[-1][1]:
            best.append((x, y))
    if not best or at > best[-1][1]:
        return None
    if at <= best[0][1]:
        return best[0][0]
    for (x0, y0), (x1, y1) in pairwise(best):
        if at <= y1:
            return math.exp(math.log(x0) + (at - y0) / (y1 - y0) * (math.log(x1) - math.log(x0)))
    return None


def plans(result: Result) -> str:
    """Untrained: cycles at the same multiply-adds, of the other ways as a multiple of the plan by cycles."""
    rows = _of(result, "plan")
    lines = []
    for net in _nets(rows):
        mine = [row for row in rows if row["net"] == net]
        dense = next(row for row in mine if row["way"] == "dense")
        for row in (row for row in mine if row["way"] == "cycles"):
            others = []
            for way in _OTHERS:
                curve = [(float(r["cycles"]), float(r["macs"])) for r in (*mine, dense) if r["way"] in (way, "dense")]
                found = at_macs(curve, row["macs"])
                others.append("–" if found is None else f"{found / row['cycles']:.2f}")
            share = f"{row['macs'] / dense['macs']:.3f}"
            arena = f"{row['arena_bytes'] / 1e3:.1f}"
            lines.append((_title(net), row["share"], f"{row['cycles']:,}", share, arena, *others))
    head = ["network", "cycles=", "cycles", "macs of dense", "arena, kB", *(f"× {WAYS[way]}" for way in _OTHERS)]
    return table(head, lines)


def at_macs(curve: Sequence[Point], macs: float) -> float | None:
    """The cycles at so many multiply-adds between the two nearest points of (cycles, macs); None beyond the ends."""
    ordered = sorted(curve, key=lambda point: point[1])
    for (c0, m0), (c1, m1) in pairwise(ordered):
        if m0 <= macs <= m1:
            part = (math.log(macs) - math.log(m0)) / max(math.log(m1) - math.log(m0), 1e-12)
            return math.exp(math.log(c0) + part * (math.log(c1) - math.log(c0)))
    return None


def _title(net: str) -> str:
    return NETS[net].title


def _averaged(rows: Sequence[Row], net: str) -> dict[tuple[str, str], dict[str, Any]]:
    """By way and budget the mean over seeds; only seeds of which the dense network is there too."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    mine = [row for row in rows if row["net"] == net]
    for way, share in dict.fromkeys((row["way"], row["share"]) for row in mine):
        some = [row for row in mine if (row["way"], row["share"]) == (way, share)]
        found[way, share] = {
            "n": len(some),
            "float": statistics.mean(row["float"] for row in some),
            "int8": statistics.mean(row["int8"] for row in some),
            "spread": max(row["int8"] for row in some) - min(row["int8"] for row in some),
            **{name: statistics.mean(row["final"][name] for row in some) for name in _FINAL},
            "macs": statistics.mean(row["untrained"]["macs"] for row in some),
        }
    return found


def accuracy(result: Result) -> str:
    """Trained: every point of every curve, by cycles from many to few."""
    rows = _of(result, "dense", "trained")
    lines = []
    for net in _nets(rows):
        for (way, share), found in sorted(_averaged(rows, net).items(), key=lambda item: -item[1]["cycles"]):
            what = "dense" if way == "dense" else f"{WAYS[way]}, {share}"
            lines.append(
                (
                    *(_title(net), what, found["n"], f"{found['cycles']:,.0f}", f"{found['macs'] / 1e6:.2f}"),
                    *(f"{found['float']:.2f}", f"{found['int8']:.2f}"),
                    "–" if found["n"] == 1 else f"{found['spread']:.2f}",
                    *(f"{found[name] / 1e3:.1f}" for name in ("sram_bytes", "flash_bytes", "arena_bytes")),
                )
            )
    head = ("network", "way and budget", "seeds", "cycles", "M macs", "float, %", "int8, %", "apart", "SRAM, kB")
    return table((*head, "flash, kB", "arena, kB"), lines)


def faster(rows: Sequence[Row]) -> Iterator[tuple[str, str, float, float, dict[str, tuple[str, float | None]]]]:
    """At the int8 accuracy of each plan by cycles, how many times more cycles the other ways need.

    Network, budget, int8 accuracy, cycles, and by way the sign of a bound ('' where it is none) and the ratio; None
    where no network of that way is as accurate, the dense one included.
    """
    for net in _nets(rows):
        found = _averaged(rows, net)
        for (way, share), mine in found.items():
            if way != "cycles":
                continue
            others: dict[str, tuple[str, float | None]] = {}
            for other in _OTHERS:
                curve = [(one["cycles"], one["int8"]) for (of, _), one in found.items() if of in (other, "dense")]
                if not any(of == other for of, _ in found):
                    continue
                at = crossing(curve, mine["int8"])
                first = min(curve)
                below = at == first[0] and mine["int8"] < first[1]
                others[other] = ("≤ " if below else "", None if at is None else at / mine["cycles"])
            yield net, share, mine["int8"], mine["cycles"], others


def equal_accuracy(result: Result) -> str:
    """Trained: times fewer cycles at equal int8 accuracy."""
    lines = []
    for net, share, int8, cycles, others in faster(_of(result, "dense", "trained")):
        cells = [_times(others.get(way)) for way in _OTHERS]
        lines.append((_title(net), share, f"{int8:.2f}", f"{cycles:,.0f}", *cells))
    head = ["network", "cycles=", "int8, %", "cycles", *(f"times fewer than {WAYS[way]}" for way in _OTHERS)]
    return table(head, lines)


def _times(found: tuple[str, float | None] | None) -> str:
    if found is None:
        return "–"
    bound, ratio = found
    return "not reached" if ratio is None else f"{bound}{ratio:.2f}"


def budgets(result: Result) -> str:
    """How much of each limit is used, in percent."""
    rows = _of(result, "budget")
    nets = _nets(rows)
    at = {(row["net"], row["limit"]): row for row in rows}
    lines = []
    for limit in dict.fromkeys(row["limit"] for row in rows):
        cells = [at.get((net, limit)) for net in nets]
        lines.append((f"`{limit}`", *("–" if c is None else f"{100 * c['used']:.1f}" for c in cells)))
    return table(["limit", *(f"{_title(net)}, %" for net in nets)], lines)


def int8(result: Result) -> str:
    """What integers cost, and whether answers are the same to the bit."""
    rows = _of(result, "dense", "trained")
    lines = []
    for net in _nets(rows):
        mine = [row for row in rows if row["net"] == net]
        drops = [row["drop"] for row in mine]
        worst = min(mine, key=lambda row: row["drop"])
        lines.append(
            (
                *(_title(net), len(mine), mine[0]["images"]),
                f"{statistics.mean(drops):+.2f}",
                f"{worst['drop']:+.2f} ({worst['low']:+.2f} to {worst['high']:+.2f})",
                f"{sum(drop >= -0.5 for drop in drops)} of {len(mine)}",
                f"{sum(row['equal'] for row in mine):,} of {sum(row['compared'] for row in mine):,}",
                sum(row["left_to_cpu"] for row in mine),
            )
        )
    head = (
        "network",
        "variants",
        "test images",
        "int8 − float, mean",
        "worst (interval)",
        "within 0.5",
        "answers equal",
    )
    return table((*head, "operators left to the CPU"), lines)


def final(result: Result) -> str:
    """Trained and calibrated, as a multiple of the untrained plan: median (smallest to largest)."""
    rows = _of(result, "dense", "trained")
    lines = []
    for net in _nets(rows):
        mine = [row for row in rows if row["net"] == net]
        cells = []
        for name in _FINAL:
            ratios = [row["final"][name] / row["untrained"][name] for row in mine]
            cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
        lines.append((_title(net), len(mine), *cells))
    return table(("network", "variants", "cycles", "SRAM", "flash of the part", "arena", "file"), lines)


def deciding(result: Result) -> str:
    """Seconds of a first decision in cycles, and where they go."""
    rows = _of(result, "decide")
    lines = [
        (
            _title(row["net"]),
            *(f"{row[f'{state}_s']:.1f}" for state in ("empty", "filled")),
            *(f"{row['empty_parts_s'][part]:.1f}" for part in ("export", "table")),
            f"{row['filled_parts_s']['compiler']:.1f}",
        )
        for row in rows
    ]
    head = ("network", "empty table, s", "filled table, s", "of it export", "of it the table", "compiler's word, s")
    return table(head, lines)


def arenas(result: Result) -> str:
    """Arenas as TensorFlow Lite Micro plans them, with the places of tensors, and without paddings at the peak too."""
    lines = []
    for row in _of(result, "arena"):
        each, (lowered, written) = row["arena_bytes"], row["paddings"]
        lines.append(
            (
                *(
                    _title(row["net"]),
                    row["share"],
                    *(f"{each[n] / 1e3:.1f}" for n in ("lowered", "placed", "written")),
                ),
                f"{1 - each['written'] / each['lowered']:.0%}",
                f"{row['alive_bytes'] / 1e3:.1f}",
                f"{lowered} → {written}",
                f"{row['file_bytes']['written'] - row['file_bytes']['lowered']:+,}",
                "yes" if row["equal"] else "no",
            )
        )
    head = ("network", "macs", "as lowered, kB", "tensors placed, kB", "as written, kB", "less", "alive at once, kB")
    return table((*head, "PAD operators", "file, bytes", "same answers"), lines)


TABLES: Final[Mapping[str, Callable[[Result], str]]] = {
    "mcu.plans": plans,
    "mcu.accuracy": accuracy,
    "mcu.equal_accuracy": equal_accuracy,
    "mcu.budgets": budgets,
    "mcu.int8": int8,
    "mcu.final": final,
    "mcu.deciding": deciding,
    "mcu.arenas": arenas,
}
"""By the name between the markers."""
