"""The tables of docs/benchmarks.md about sparse models and about switching."""

from collections.abc import Mapping
from typing import Any

from bench._common import table

Result = Mapping[str, Any]


def removal(result: Result) -> str:
    """Parameters after the removal of zeros in four ways, and how wrong each is, by network and compression."""
    rows = [
        (
            f"{row['net']}, {row['compression']}",
            f"{row['weights'] / 1e3:,.0f} k",
            f"{row['ways']['merge']['params'] / 1e6:.2f} ({row['ways']['merge']['error']:.0e})",
            f"{row['ways']['keep']['params'] / 1e6:.2f}",
            f"{row['ways']['fold']['params'] / 1e6:.2f} ({row['ways']['fold']['error']:.1%})",
            f"{row['ways']['drop']['error']:.1%}",
            f"{row['published'] / 1e6:.2f}",
            f"{row['seconds']:.2f}",
        )
        for row in result["rows"]
    ]
    head = (
        "network, fewer weights",
        "weights",
        "M params (error)",
        "constants kept",
        "folded (error)",
        "dropped, error",
        "published",
        "s",
    )
    return table(head, rows)


def switching(result: Result) -> str:
    """First answers, memory, the run under load, and the traces."""
    parts: dict[str, list[Result]] = {}
    for row in result["rows"]:
        parts.setdefault(row["part"], []).append(row)
    existing = parts["first answer"][-1]
    answers = [
        (
            row["way"],
            row["n"],
            *(f"{row['ms'][p]:.2f}" for p in ("p50", "p99")),
            *(f"{row['overhead_ms'][p]:.2f}" for p in ("p50", "p99")),
            f"{existing['ms']['p50'] / row['ms']['p50']:.1f}×",
            f"{existing['overhead_ms']['p50'] / row['overhead_ms']['p50']:.0f}×",
        )
        for row in parts["first answer"]
    ]
    (swap,), (load,) = parts["swap"], parts["under load"]
    memory = {row["way"]: row for row in parts["memory"]}
    sessions, ours = memory["sessions"], memory["switcher"]
    sizes = [
        (name, *(f"{row[key] / 1e6:.0f}" for key in ("Anonymous", "Pss")))
        for name, row in (("eight sessions of the files", sessions), ("a switcher with all eight open", ours))
    ]
    texts = [
        "From the decision to the first answer, ms, and how much longer that is than the variant's usual answer:",
        table(("way", "n", "p50", "p99", "longer, p50", "longer, p99", "less", "less of the longer"), answers),
        f"The swap between open variants alone: {swap['us']['p50']:.1f} µs at p50, {swap['us']['p99']:.1f} at p99"
        f" (n = {swap['n']}).",
        "Memory, MB more than before the first one was opened:",
        table(("eight variants of VGG-16", "anonymous", "proportional share"), sizes),
        f"{sessions['Anonymous'] / ours['Anonymous']:.1f} times less anonymous memory; the rest are pages of files,"
        " which processes share and the system may drop.",
        f"Under load, {load['switches']:,} switches in turn while {load['requests']:,} requests came at a steady"
        f" {result['config']['requests_per_s']} a second: {load['lost']} lost, {load['late']} later than"
        f" {result['config']['target_ms']:g} ms; p50 {load['ms']['p50']:.1f} ms, p99 {load['ms']['p99']:.1f}, longest"
        f" {load['ms']['p100']:.1f}.",
    ]
    for name in dict.fromkeys(row["trace"] for row in parts.get("trace", ())):
        mine = [row for row in parts["trace"] if row["trace"] == name]
        rows = [
            (
                row["policy"],
                *(f"{row[key]:.2%}" for key in ("in_time", "accuracy", "delivered")),
                f"{row['p99_ms']:,.1f}",
                f"{row['switches']:,}",
            )
            for row in mine
        ]
        first = mine[0]
        texts += [
            f"{first['seconds'] / 3600:g} hours of the trace {name}, rates times {first['scale']:.1f},"
            f" {first['requests']:,} requests, target {first['target_ms']:.1f} ms, simulated:",
            table(("policy", "in time", "accuracy", "delivered", "p99, ms", "switches"), rows),
        ]
    return "\n\n".join(texts)
