"""The README's real example: ResNet-20 on CIFAR-10 at a half and a quarter of the macs, by the command shown there.

    python -m bench.readme_example --data-dir DATA

Run again, it goes on where it was stopped; where the training is done, it measures size and latency anew.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from bench._common import RESULTS, ROOT, record, write
from prunit.edge.portfolio import Portfolio
from prunit.recipe.folder import BUILD, STATE, read_json

MODEL: Final = "resnet20"
BUDGETS: Final = ("macs=1/2", "macs=1/4")


def command(data: str, epochs: int) -> list[str]:
    """What the README shows, after `prunit`."""
    budgets = [word for budget in BUDGETS for word in ("--budget", budget)]
    # What was the default when the figures were made: other widths, lengths or precisions give other figures.
    return [
        *("build", MODEL, "--data", data, *budgets, "--epochs", str(epochs)),
        *("--train", "equal-epochs", "--round-to", "1"),
        *("--set", "prune.evaluator=emptied", "--set", "train.precision=32-true"),
    ]


def rows_of(portfolio: Portfolio) -> list[dict[str, Any]]:
    """What the table shows of each variant, the dense one first."""
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.readme_example", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "readme_example.json", metavar="FILE")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", type=Path, help="default: PRUNIT_DATA")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=ROOT / "portfolios" / "readme_example", metavar="FOLDER")
    options = parser.parse_args()
    shown = command(options.data, options.epochs)
    place = ["--data-dir", str(options.data_dir)] if options.data_dir else []
    whole = [sys.executable, "-m", "prunit", *shown, *place, "--out", str(options.out), "--resume"]
    subprocess.run(whole, check=True)
    portfolio = Portfolio.read(options.out)
    rows = rows_of(portfolio)
    latencies = [latency for row in rows for latency in row["latencies"]]
    config = {"command": f"prunit {' '.join(shown)}", "settings": read_json(options.out / STATE / BUILD)}
    result = record(
        "readme_example",
        rows,
        config=config,
        n=min(latency["n"] for latency in latencies),
        percentile="median (p50) latencies of ONNX Runtime; accuracy of one training each",
        threads=latencies[0]["threads"],
    )
    write(result, options.json)


if __name__ == "__main__":
    main()
