"""Detection and segmentation on real photos, by the commands that the README shows: `python -m bench.other_tasks`.

    python -m bench.other_tasks --bccd FOLDER --membrane FOLDER [--only detection]

BCCD: 364 photos of blood smears with boxes (Pascal VOC; its own train, val and test). A build judges by its 72 photos
of test; what stands in bench/results was judged by the 87 of val, by a version that left test aside. Membrane: 30
electron-microscope images with masks, of which a fifth, always the same, is held out. Dense networks are trained from
scratch for 60 epochs, the default of these tasks; variants of a half and a quarter of their macs begin with their
weights, and train for half as long. Run again, it goes on where it was stopped; where a training is done, it measures
size and latency anew. What the file of results says of the other example stays there.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import readme_example
from bench._common import RESULTS, ROOT, record, write
from prunit.edge.portfolio import Portfolio


@dataclass(frozen=True)
class Example:
    """A build: which network, for which task, on which data."""

    model: str
    data: str
    """The name of the folder, and of the option that says where it lies."""

    def command(self, task: str, folder: str) -> list[str]:
        """What the README shows, after `prunit`."""
        budgets = ("--budget", "macs=1/2", "--budget", "macs=1/4")
        start = ("--start", "trained", "--fine-tune", "30")
        return ["build", self.model, "--data", folder, "--task", task, "--image-size", "256", *budgets, *start]


EXAMPLES: Final[Mapping[str, Example]] = {
    "detection": Example("fcos-tiny", "bccd"),
    "segmentation": Example("unet-tiny", "membrane"),
}


def rows_of(task: str, portfolio: Portfolio) -> list[dict[str, Any]]:
    """What is kept of each variant, the dense one first."""
    return [
        row
        | {
            "task": task,
            "metric": portfolio.task.metric,
            "value": v.metrics.accuracy,
            "interval": v.metrics.interval,
            "against": v.metrics.against.model_dump() if v.metrics.against else None,
            "scores": v.metrics.scores,
        }
        for row, v in zip(readme_example.rows_of(portfolio), portfolio.variants, strict=True)
    ]


def result_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows of all examples as a result."""
    order = list(EXAMPLES)
    rows = sorted(rows, key=lambda row: order.index(row["task"]))
    latencies = [latency for row in rows for latency in row["latencies"]]
    return record(
        "other_tasks",
        rows,
        config={task: f"prunit {' '.join(one.command(task, f'{one.data}/'))}" for task, one in EXAMPLES.items()},
        n=min(latency["n"] for latency in latencies),
        percentile="median (p50) latencies of ONNX Runtime; a seed, a training each",
        threads=latencies[0]["threads"],
    )


def kept_rows(file: Path, *, without: str) -> list[dict[str, Any]]:
    """The rows that a file of results has of other tasks."""
    rows = json.loads(file.read_text("utf-8"))["rows"] if file.exists() else []
    return [row for row in rows if row["task"] != without]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.other_tasks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bccd", type=Path, metavar="FOLDER")
    parser.add_argument("--membrane", type=Path, metavar="FOLDER")
    parser.add_argument("--only", choices=tuple(EXAMPLES))
    parser.add_argument("--json", type=Path, default=RESULTS / "other_tasks.json", metavar="FILE")
    parser.add_argument("--out", type=Path, default=ROOT / "portfolios" / "other_tasks", metavar="FOLDER")
    options = parser.parse_args()
    for task, example in EXAMPLES.items():
        place = getattr(options, example.data)
        if place is None or options.only not in (None, task):
            continue
        folder = options.out / task
        whole = [sys.executable, "-m", "prunit", *example.command(task, str(place)), "--out", str(folder), "--resume"]
        subprocess.run(whole, check=True)
        write(result_of([*kept_rows(options.json, without=task), *rows_of(task, Portfolio.read(folder))]), options.json)


if __name__ == "__main__":
    main()
