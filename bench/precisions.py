"""What precisions and engines are worth on this CPU: `python -m bench.precisions`, on an idle machine.

Three networks of the zoo at 32 pixels and three of timm at 96, with all widths, a half and a quarter of each group's
channels, untrained. Of each the exported float file and the int8 one that a build makes of it (calibrated on noise)
take turns in every engine that runs them, with one thread, at batch 1 and 32. How many times faster than float in ONNX
Runtime is the median of the ratios of single turns. `picked` is the fastest at batch 1. A cell, one network and width,
is a file in `--work`.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch

from bench._common import RESULTS, commit, percentile, record, write
from bench._nets import SMALL, Net, plan_at
from prunit.cut.surgery import compact
from prunit.edge.measuring.probe import ProbeSettings, turns
from prunit.edge.runtimes import RUNTIMES, precisions_of
from prunit.edge.session import Session
from prunit.errors import PrunitError
from prunit.export import EXPORTERS
from prunit.export.quantising import quantised
from prunit.files import staged
from prunit.graph import trace
from prunit.prices.costs import cost_of

TIMM: Final = ("resnet18", "mobilenetv3_small_100", "efficientnet_lite0")
NETS: Final[Mapping[str, Net]] = {
    **SMALL,
    **{f"timm-{name}": Net(f"{name} (timm), 96×96", f"timm:{name}", 96) for name in TIMM},
}
SHARES: Final = (Fraction(1), Fraction(1, 2), Fraction(1, 4))
BATCHES: Final = (1, 32)
FLOAT: Final = "onnxruntime fp32"
CALIBRATION: Final = 64
"""Images of noise: what they are changes ranges, and no latency."""


@dataclass(frozen=True)
class Times:
    """Of one route at one batch size."""

    n: int
    p50_ms: float
    p90_ms: float
    times_faster: float
    """Than float in ONNX Runtime: the median of the ratios within a turn."""


def routes(fp32: Path, int8: Path | None, closing: ExitStack) -> tuple[dict[str, Session], dict[str, str]]:
    """An open session for each engine and precision, by name; and why there is none."""
    found: dict[str, Session] = {}
    absent: dict[str, str] = {}
    files = {"fp32": fp32, "bf16": fp32, "int8": int8}
    for name, engine in RUNTIMES.items():
        if name == "reference":
            continue
        for precision in precisions_of(engine):
            path, key = files[precision], f"{name.removesuffix('-bf16')} {precision}"
            if path is None:
                continue
            try:
                found[key] = engine.open(path, threads=1)
            except PrunitError as error:
                absent[key] = str(error)
            else:
                closing.callback(found[key].close)
    return found, absent


def cell(net: Net, share: Fraction, seconds: float) -> dict[str, Any]:
    """What is found of a network with a share of its channels."""
    model, example = net.make()
    graph = trace(model, example)
    plan = plan_at(model, graph, example, share)
    small = compact(model, graph, plan) if share < 1 else model
    shape = (3, net.image_size, net.image_size)
    noise = np.random.default_rng(0).standard_normal((2, CALIBRATION, *shape), dtype=np.float32)
    with TemporaryDirectory() as place, ExitStack() as closing:
        folder = Path(place)
        artifact = EXPORTERS["onnx"](small, example, folder, name="fp32")
        refused, lower, floats = "", None, ()
        try:
            lower, facts = quantised(artifact, folder, [noise[0]], name="int8", holdout_BCHW=[noise[1]])
            floats = facts.float_layers
        except PrunitError as error:
            refused = str(error)
        sessions, absent = routes(folder / artifact.path, lower and folder / lower.path, closing)
        settings = ProbeSettings(
            batches=BATCHES, min_runs=100, max_runs=4000, seconds=seconds * len(sessions), limit_seconds=120, warm_up=5
        )
        times = turns(sessions, dict.fromkeys(sessions, shape), settings)
    cost = cost_of(graph, plan)
    by_route = {name: {b: _times(of[name], of[FLOAT]) for b, of in times.items()} for name in sessions}
    return {
        "title": net.title,
        "share": str(share),
        "params": cost.params,
        "macs": cost.macs,
        "file_bytes": {"fp32": artifact.bytes, "int8": lower and lower.bytes},
        "float_layers": list(floats),
        "refused": refused,
        "absent": absent,
        "routes": {name: {str(b): asdict(of) for b, of in each.items()} for name, each in by_route.items()},
        "picked": max(by_route, key=lambda name: by_route[name][1].times_faster),
    }


def _times(mine_ns: Sequence[int], float_ns: Sequence[int]) -> Times:
    ratio = statistics.median(float(f) / m for f, m in zip(float_ns, mine_ns, strict=True))
    p50, p90 = (round(percentile(mine_ns, share) / 1e6, 5) for share in (0.5, 0.9))
    return Times(len(mine_ns), p50, p90, round(ratio, 3))


def cells(names: Sequence[str], work: Path, seconds: float) -> Iterator[dict[str, Any]]:
    """All cells; those of this commit and these seconds from their files."""
    asked = {"seconds": seconds, "commit": commit()}
    for name in names:
        for share in SHARES:
            file = work / f"{name}--{str(share).replace('/', '-')}.json"
            if file.exists():
                found = json.loads(file.read_text(encoding="utf-8"))
                if found["asked"] == asked:
                    yield found
                    continue
            found = {"net": name, **cell(NETS[name], share, seconds), "asked": asked}
            with staged(file) as new:
                new.write_text(json.dumps(found, indent=1), encoding="utf-8")
            yield found


def line(row: Mapping[str, Any]) -> str:
    """A row in words: how many times faster than float in ONNX Runtime each route is at batch 1 and 32."""
    parts = (
        f"{name}{' *' * (name == row['picked'])} {each['1']['times_faster']:.2f}/{each['32']['times_faster']:.2f}"
        for name, each in row["routes"].items()
    )
    p50 = row["routes"][FLOAT]["1"]["p50_ms"]
    return f"{row['title']} {row['share']}: {FLOAT} {p50:.3f} ms; " + ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.precisions", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "precisions.json", metavar="FILE", help="to write")
    parser.add_argument("--work", type=Path, default=Path("precisions.work"), metavar="FOLDER", help="of the cells")
    parser.add_argument("--only", nargs="+", default=list(NETS), choices=NETS, help="networks")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each route and batch size; default 1")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for row in cells(options.only, options.work, options.seconds):
        rows.append({key: value for key, value in row.items() if key != "asked"})
        print(line(row), flush=True)
    n = min(each[batch]["n"] for row in rows for each in row["routes"].values() for batch in each)
    config = {"seconds": options.seconds, "order": "in turn, shuffled", "calibration": f"{CALIBRATION} images of noise"}
    write(record("precisions", rows, config=config, n=n, percentile="p50 and p90", threads=1), options.json)


if __name__ == "__main__":
    main()
