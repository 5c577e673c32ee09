"""The README's real example: ResNet-20 on CIFAR-10 at a half and a quarter of the macs, by the command shown there.

    python -m bench.readme_example --data-dir DATA --seeds 0 1 2

Run again, it goes on where it was stopped; where a training is done, it measures size and latency anew. What the file
of results says of other seeds stays there, if it was made by the same command.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench._common import RESULTS, ROOT, device, record, write
from prunit.edge.portfolio import Portfolio
from prunit.recipe.folder import BUILD, STATE, read_json

MODEL: Final = "resnet20"
BUDGETS: Final = ("macs=1/2", "macs=1/4")


def command(data: str, epochs: int) -> list[str]:
    """What the README shows, after `prunit`: variants are fine-tuned for as many epochs as the dense model trained."""
    budgets = [word for budget in BUDGETS for word in ("--budget", budget)]
    start = ["--start", "trained", "--fine-tune", str(epochs)]
    return ["build", MODEL, "--data", data, *budgets, "--epochs", str(epochs), *start]


def rows_of(portfolio: Portfolio) -> list[dict[str, Any]]:
    """What is kept of each variant, the dense one first."""
    return [
        {
            "name": v.name,
            "accuracy": v.metrics.accuracy,
            "params": v.metrics.params,
            "macs": v.metrics.macs,
            "file_bytes": v.metrics.file_bytes,
            "latencies": [latency.model_dump() for latency in v.metrics.latencies],
            "seconds": v.seconds,
            "epochs": v.epochs,
            "seed": v.seed,
        }
        for v in portfolio.variants
    ]


def kept_rows(file: Path, shown: str, *, without: int) -> list[dict[str, Any]]:
    """The rows that a file of results has of other seeds by the same command."""
    if not file.exists():
        return []
    found = json.loads(file.read_text("utf-8"))
    if found["config"]["command"] != shown:
        return []
    return [row for row in found["rows"] if row["seed"] != without]


def result_of(rows: list[dict[str, Any]], shown: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of all seeds as a result; where they come from several machines it names that of the latencies shown."""
    rows = sorted(rows, key=lambda row: row["seed"])
    where = f" on {rows[0]['cpu']}" if len({row["cpu"] for row in rows}) > 1 else ""
    latencies = [latency for row in rows for latency in row["latencies"]]
    seeds = len({row["seed"] for row in rows})
    return record(
        "readme_example",
        rows,
        config={"command": shown, "settings": dict(settings)},
        n=min(latency["n"] for latency in latencies),
        percentile=f"median (p50) latencies of ONNX Runtime{where}; {seeds} seed{'s' * (seeds > 1)}, a training each",
        threads=latencies[0]["threads"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.readme_example", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "readme_example.json", metavar="FILE")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path, help="default: PRUNIT_DATA")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=ROOT / "portfolios" / "readme_example", metavar="FOLDER")
    options = parser.parse_args()
    asked = command(options.data, options.epochs)
    shown = f"prunit {' '.join(asked)}"
    place = ["--data-dir", str(options.data_dir)] if options.data_dir else []
    for seed in options.seeds:
        folder = options.out / f"seed-{seed}"
        whole = [sys.executable, "-m", "prunit", *asked, *place, "--seed", str(seed), "--out", str(folder), "--resume"]
        subprocess.run(whole, check=True)
        rows = [row | {"cpu": device(1)["cpu"]} for row in rows_of(Portfolio.read(folder))]
        settings = read_json(folder / STATE / BUILD)
        write(result_of([*kept_rows(options.json, shown, without=seed), *rows], shown, settings), options.json)


if __name__ == "__main__":
    main()
