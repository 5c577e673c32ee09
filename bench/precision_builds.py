"""What int8 and bf16 cost trained networks, and how fast the routes are: `python -m bench.precision_builds FOLDER…`.

Each folder is a portfolio of `prunit build … --precision int8,bf16,fp32`, which the table shows with its command.
Accuracies are those of its manifest: all test images, answered by the engine, beside the float twin image by image.
Latencies are measured here as by `prunit bench --engines all`: all variants and engines take turns in one run, with one
thread.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench._common import RESULTS, record, write
from prunit.edge.measuring.engines import measure_engines, twin_of
from prunit.edge.measuring.probe import ProbeSettings
from prunit.edge.portfolio import Portfolio
from prunit.edge.routing import engines_named
from prunit.edge.runtimes import DEFAULT


def rows_of(folder: Path, command: str, seconds: float) -> list[dict[str, Any]]:
    """A row for each variant, the dense one first."""
    portfolio = Portfolio.read(folder)
    settings = ProbeSettings(
        batches=(1, 32), threads=1, min_runs=100, max_runs=4000, seconds=seconds, limit_seconds=180
    )
    _, routes = measure_engines(portfolio, folder, settings, engines_named("all"))
    by_name = {route.variant: route for route in routes.variants}
    dense = by_name["dense"].of(DEFAULT)
    assert dense is not None
    rows = []
    for variant in portfolio.variants:
        route, lowered, metrics = by_name[variant.name], variant.lowered, variant.metrics
        answers = metrics.answers
        rows.append(
            {
                "command": command,
                "model": portfolio.model,
                "name": variant.name,
                "precision": variant.precision,
                "twin": twin_of(variant),
                "accuracy": metrics.accuracy,
                "images": answers.images if answers else None,
                "lowered": lowered.model_dump(mode="json") if lowered else None,
                "params": metrics.params,
                "macs": metrics.macs,
                "file_bytes": metrics.file_bytes,
                "engine": route.engine,
                "dense_ms": {str(b): dense.latency_ms(batch=b) for b in settings.batches},
                "engines": {
                    each.engine: {
                        "why_not": each.why_not,
                        **{str(each_b.batch): each_b.model_dump() for each_b in each.latencies},
                    }
                    for each in route.measured
                },
            }
        )
    rows += [
        {"command": command, "model": portfolio.model, "left_out": each.model_dump(mode="json")}
        for each in portfolio.left_out
    ]
    return rows


def commands_of(texts: Sequence[str], folders: Sequence[Path]) -> dict[Path, str]:
    """How each portfolio was built."""
    if len(texts) != len(folders):
        raise SystemExit(f"{len(folders)} folders and {len(texts)} --command: give one for each, in the same order")
    return dict(zip(folders, texts, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.precision_builds", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--command", action="append", default=[], help="by which a folder was built, one for each")
    parser.add_argument("--json", type=Path, default=RESULTS / "precision_builds.json", metavar="FILE", help="to write")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each batch size, all together; default 20")
    options = parser.parse_args()
    rows = []
    for folder, command in commands_of(options.command, options.folders).items():
        rows += rows_of(folder, command, options.seconds)
    n = min(
        each[b]["n"]
        for row in rows
        if "engines" in row
        for each in row["engines"].values()
        for b in ("1", "32")
        if b in each
    )
    config = {"seconds": options.seconds, "order": "in turn, shuffled"}
    write(record("precision_builds", rows, config=config, n=n, percentile="p50", threads=1), options.json)


if __name__ == "__main__":
    main()
