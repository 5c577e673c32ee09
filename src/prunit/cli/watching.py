"""The screen of `prunit top`."""

import time
from collections.abc import Sequence
from typing import Any, Final

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from prunit.cli.safe import safe
from prunit.shown import NUMBERS

_BARS: Final = "▁▂▃▄▅▆▇█"


def screen(status: dict[str, Any]) -> Group:
    """A status of a server as three tables."""
    return Group(_head(status), _variants(status), _events(status))


def _head(status: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    p50, p99, share = status["p50_ms"], status["p99_ms"], status["in_time"]
    late = p99 is not None and p99 > status["target_ms"]
    latency = Text(f"p50 {_ms(p50)}, p99 ")
    latency.append(_ms(p99), style="red" if late else "green")
    latency.append(f", target {status['target_ms']:g} ms")
    if share is not None:
        latency.append(f"; {share:.1%} in time")
    pinned = " (pinned)" if status["pinned"] else f" (policy {status['policy']})"
    history = [point["rate"] or 0 for point in status.get("history", [])][-40:]
    totals = status["totals"]
    told = (("late", "late"), ("refused", "refused"), ("expired", "past their deadline"), ("failed", "failed"))
    table.add_row("model", safe(f"{status['model']}: {status['state']}, {len(status['workers'])} worker(s)"))
    table.add_row("active", safe(status["active"] + pinned))
    table.add_row("requests", f"{status['rate']:.1f}/s  {_spark(history)}")
    table.add_row("latency", latency)
    table.add_row("queue", f"{status['waiting']} of {status['queue']}")
    table.add_row("device", _device(status))
    table.add_row(
        "so far", f"{totals['answered']:,} answered; " + ", ".join(f"{totals[k]:,} {text}" for k, text in told)
    )
    return table


def _variants(status: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, header_style="bold")
    for name in ("variant", "precision", "engine"):
        table.add_column(name)
    for name in (safe(status.get("metric", "accuracy")), "ms measured", "kB"):
        table.add_column(name, justify="right")
    table.add_column("state")
    for variant in status["variants"]:
        accuracy, ms = variant["accuracy"], variant["latency_ms"]
        style = {"active": "bold green", "put aside": "red"}.get(variant["state"], "")
        table.add_row(
            safe(variant["name"]),
            # A server of an older prunit tells neither.
            safe(variant.get("precision", "")),
            safe(variant.get("engine", "")),
            "" if accuracy is None else f"{accuracy:.4f}" if status.get("metric") in NUMBERS else f"{accuracy:.2%}",
            "" if ms is None else f"{ms:.2f}",
            f"{variant['file_bytes'] / 1000:,.0f}",
            safe(variant["state"]),
            style=style,
        )
    return table


def _events(status: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, header_style="bold")
    for name in ("when", "what", "variant", "why"):
        table.add_column(name, no_wrap=name != "why")
    for event in status["events"][-8:]:
        when = time.strftime("%H:%M:%S", time.localtime(event["at"]))
        table.add_row(when, safe(event["kind"]), safe(event["variant"]), safe(event["why"]))
    return table


def _device(status: dict[str, Any]) -> str:
    parts = [f"{status['memory_bytes'] / 1e6:.0f} MB held"]
    if status["celsius"] is not None:
        parts.append(f"{status['celsius']:.0f} °C")
    if status["battery"] is not None:
        parts.append(f"battery {status['battery']:.0%}")
    if status["throttled"]:
        parts.append("throttled")
    return ", ".join(parts) + f"; answers take {status['slowdown']:.2f}× the measured time"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def _spark(values: Sequence[float]) -> str:
    most = max(values, default=0)
    return "".join(_BARS[round(value / most * (len(_BARS) - 1))] for value in values) if most else ""
