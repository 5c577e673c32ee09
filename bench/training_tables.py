"""Tables of the benchmarks of training."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench._common import table

Result = Mapping[str, Any]

_PRECISIONS: Final = {"32-true": "float32", "bf16-mixed": "bfloat16"}


def other_tasks(result: Result) -> str:
    """A table for each task, below the command: a row for each variant, compared with the dense one."""
    parts = []
    for task, command in result["config"].items():
        rows = [row for row in result["rows"] if row["task"] == task]
        if not rows:
            continue
        dense, metric = rows[0], rows[0]["metric"]
        batches = [latency["batch"] for latency in dense["latencies"]]
        head = ["variant", f"{metric}, % (95 % interval)", "of dense, points (95 % interval)", "epochs"]
        head += ["training, min", "params", "macs", "ONNX file", *(f"latency, batch {b}" for b in batches)]
        body = [
            (
                row["name"],
                f"{100 * row['value']:.1f}{_ends(row['interval'])}",
                _difference(row["against"]),
                row["epochs"],
                f"{row['seconds']['train'] / 60:.0f}",
                f"{row['params'] / 1e3:.0f} k{_times(dense['params'], row['params'])}",
                f"{row['macs'] / 1e6:.0f} M{_times(dense['macs'], row['macs'])}",
                f"{row['file_bytes'] / 1e3:.0f} kB{_times(dense['file_bytes'], row['file_bytes'])}",
                *(
                    f"{mine['p50_ms']:.1f} ms{_times(own['p50_ms'], mine['p50_ms'])}"
                    for own, mine in zip(dense["latencies"], row["latencies"], strict=True)
                ),
            )
            for row in rows
        ]
        parts.append(f"`{command}`\n\n{table(head, body)}")
    return "\n\n".join(parts)


def _ends(interval: Sequence[float] | None) -> str:
    return f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""


def _difference(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    return f"{100 * found['difference']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"


def _times(before: float, after: float) -> str:
    return "" if before == after else f" ({before / after:.1f}×)"


def training_step(result: Result) -> str:
    """A step of each variant and precision, of the dense step in float32 and in the same precision."""
    rows = [
        (
            row["title"],
            row["threads"],
            "dense" if row["budget"] == "none" else f"{row['budget']}, {row['widths']}",
            _PRECISIONS.get(row["precision"], row["precision"]),
            f"{1000 * row['step_s']['median']:,.0f}",
            f"{row['of_dense_float32']:.2f}",
            f"{row['of_dense']:.2f}",
        )
        for row in result["rows"]
    ]
    head = ("model", "threads", "variant", "precision", "step, ms", "of dense in float32", "of dense in the same")
    return table(head, rows)


def bf16_accuracy(result: Result) -> str:
    """What bfloat16 costs in accuracy, in pairs of trainings."""
    rows = []
    for row in result["rows"]:
        means = [
            sum(run["accuracy"] for run in row["runs"] if run["precision"] == precision) * 2 / len(row["runs"])
            for precision in _PRECISIONS
        ]
        found = row["bf16_minus_float32"]
        difference = f"{found['mean']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"
        rows.append((row["title"], found["n"], *(f"{mean:.2f}" for mean in means), difference, found["verdict"]))
    return table(("model", "pairs", "float32", "bfloat16", "difference, 95 % interval", "verdict"), rows)
