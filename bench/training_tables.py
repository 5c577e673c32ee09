"""Tables of the benchmarks of training."""

from collections.abc import Mapping
from typing import Any, Final

from bench._common import table

Result = Mapping[str, Any]

_PRECISIONS: Final = {"32-true": "float32", "bf16-mixed": "bfloat16"}


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
