"""What the cells of `bench.default_speed` say: a line for each, the criteria that must be met, the table."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench._common import table

Row = Mapping[str, Any]

BATCHES: Final = ("1", "32")
AT: Final = "macs=1/4"
FASTER: Final = {"1": 2.5, "32": 3.0}
"""How many times faster than the dense network the median variant at `AT` must be, by batch size."""
THAN_FIRST: Final = 1.8
"""How many times faster than with widths of any size, the median over networks with depthwise convolutions."""


def line(row: Row) -> str:
    """A cell in a line: milliseconds of the dense network, then how many times faster each arm is."""
    told = [f"{row['title']}, {row['budget']}:"]
    if latency := row["dense"]["latency"]:
        told.append("dense " + " / ".join(f"{latency[b]['p50_ms']:.2f}" for b in BATCHES) + " ms;")
    for arm, found in row["arms"].items():
        times = _times(found)
        params = _share(row, found)
        told.append(
            f"{arm}: " + (f"{' / '.join(f'{t:.2f}' for t in times)}× ({params} params)," if times else "refused,")
        )
    return " ".join(told).rstrip(",") + f" [scored in {row['scoring_s']:.1f} s, written in {row['writing_s']:.1f} s]"


def criteria(rows: Sequence[Row]) -> str:
    """For each arm what must hold and what does: lines of text."""
    arms = list(dict.fromkeys(arm for row in rows for arm in row["arms"]))
    return "\n".join(text for arm in arms for text in _of_arm(rows, arm))


def _of_arm(rows: Sequence[Row], arm: str) -> list[str]:
    mine = [(row, row["arms"][arm]) for row in rows if arm in row["arms"]]
    met = [(row, found) for row, found in mine if "latency" in found]
    slower = [
        f"{row['title']}, {row['budget']}, batch {batch}: {found['latency'][batch]['times_faster']:.2f}×"
        for row, found in met
        for batch in BATCHES
        if found["latency"][batch]["times_faster"] < 1
    ]
    told = [f"arm {arm}: {len(met)} variants, {len(slower)} of {2 * len(met)} times slower than dense (must be 0)"]
    told += [f"    slower: {each}" for each in slower]
    told += [f"    refused: {row['title']}, {row['budget']}" for row, found in mine if "refused" in found]
    at = [found for row, found in met if row["budget"] == AT]
    told += [
        f"    median at {AT}, batch {batch}: {median:.2f}× (must be {FASTER[batch]}×){_verdict(median, FASTER[batch])}"
        for batch in BATCHES
        if at
        for median in [statistics.median(found["latency"][batch]["times_faster"] for found in at)]
    ]
    ratios = {b: [f["latency"][b]["than_first"] for row, f in met if row["depthwise"]] for b in BATCHES}
    told += [
        f"    depthwise networks, of the first arm's speed, batch {batch}: {median:.2f}× (must be {THAN_FIRST}×)"
        f"{_verdict(median, THAN_FIRST)}"
        for batch, found in ratios.items()
        if found
        for median in [statistics.median(found)]
    ]
    return told


def _verdict(found: float, wanted: float) -> str:
    return ": met" if found >= wanted else ": NOT met"


def _times(found: Mapping[str, Any]) -> list[float]:
    return [found["latency"][batch]["times_faster"] for batch in BATCHES] if "latency" in found else []


def _share(row: Row, found: Mapping[str, Any]) -> str:
    return f"{found['params'] / row['dense']['params']:.1%}" if "params" in found else ""


def default_speed(result: Mapping[str, Any]) -> str:
    """A row for each network and budget, and what must hold."""
    arms = result["config"]["arms"]
    head = ["network", "budget", "dense, batch 1, ms", "batch 32, ms"]
    head += [f"{_title(arm)}, 1 / 32" for arm in arms]
    head += [f"params, {arm}" for arm in arms] + ["n"]
    rows = []
    for row in result["rows"]:
        latency = row["dense"]["latency"]
        dense = [f"{latency[b]['p50_ms']:.2f} ({latency[b]['p90_ms']:.2f})" if latency else "" for b in BATCHES]
        found = [row["arms"][arm] for arm in arms]
        faster = [
            " / ".join(f"{'**' * (t < 1)}{t:.2f}×{'**' * (t < 1)}" for t in _times(a)) or "refused" for a in found
        ]
        n = " / ".join(str(latency[b]["n"]) for b in BATCHES) if latency else ""
        rows.append((row["title"], row["budget"], *dense, *faster, *(_share(row, a) for a in found), n))
    met = criteria(result["rows"])
    return f"{table(head, rows)}\n\nWhat must hold, and what does:\n\n```\n{met}\n```"


def _title(arm: str) -> str:
    return f"multiples of {arm}" if arm.isdigit() and arm != "1" else {"1": "any width"}.get(arm, f"`{arm}`")


def in_short(result: Mapping[str, Any]) -> str:
    """For each budget the median network: how many times faster than dense with any width, and by default."""
    first, last = result["config"]["arms"][0], result["config"]["arms"][-1]
    rows = []
    for budget in dict.fromkeys(row["budget"] for row in result["rows"]):
        both = [(row["arms"][first], row["arms"][last]) for row in result["rows"] if row["budget"] == budget]
        met = [[arm["latency"] for arm in pair] for pair in both if all("latency" in arm for arm in pair)]
        if not met:
            continue
        cells = [
            f"{statistics.median(times):.1f}× ({min(times):.1f} to {max(times):.1f})"
            for which in (0, 1)
            for batch in BATCHES
            for times in [[pair[which][batch]["times_faster"] for pair in met]]
        ]
        rows.append((budget, len(met), *cells))
    titles = (_title(first), "by default" if last == "chosen" else _title(last))
    head = ("budget", "networks", *(f"{title}, batch {batch}" for title in titles for batch in BATCHES))
    return table(head, rows)
