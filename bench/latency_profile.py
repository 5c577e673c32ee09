"""Predicted against measured latency of whole models: `python -m bench.latency_profile`, on an idle machine.

Measures this machine's profile for the layers of some networks (or takes `--profile FILE`), makes each network at many
widths, measures all of them in ONNX Runtime in turns, and compares. Widths are drawn in three ways: the same share
everywhere, shares that differ by group, and these in multiples of 8. Beside the profile's prediction stands one from
multiply-adds alone, given the dense model's measured latency.
"""

import argparse
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from bench._common import RESULTS, ROOT, percentile, record, write
from bench._nets import SMALL, Net
from bench._scatter import scatter
from prunit.cut.plans import choose
from prunit.cut.surgery import compact
from prunit.edge.measuring.probe_layers import LayerProbe, probe_layers
from prunit.edge.measuring.profile import DeviceProfile
from prunit.edge.runtimes import runtime
from prunit.edge.session import Session
from prunit.export import exporter
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import cost_of, named_widths
from prunit.prices.meters import LatencyMeter, layers_of

NETS: Final = {
    **SMALL,
    "resnet18-64": Net("ResNet-18, 64×64", "resnet18", 64),
    "regnetx-64": Net("RegNetX-200MF (timm), 64×64", "timm:regnetx_002", 64),
}
PROFILES: Final = ROOT / "examples" / "profiles"
PICTURE: Final = ROOT / "docs" / "pictures" / "predicted-latency.svg"


def drawn(graph: ChannelGraph, models: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Widths of so many models, and how they were drawn; the dense ones first."""
    rng = np.random.default_rng(seed)
    yield "dense", graph.sizes
    for n in range(models - 1):
        share = rng.uniform(0.15, 1.0)
        by_group = 1.0 if n % 3 == 0 else rng.uniform(0.6, 1.4, len(graph.sizes))
        widths = np.clip(np.rint(share * by_group * graph.sizes), 1, graph.sizes)
        how = ("the same share", "shares by group", "multiples of 8")[n % 3]
        if n % 3 == 2:
            widths = np.minimum(np.maximum(np.rint(widths / 8), 1) * 8, graph.sizes)
        yield how, np.where(graph.free, widths, graph.sizes).astype(np.int64)


def compared(
    model: nn.Module, example: Tensor, profile: DeviceProfile, models: int, seconds: float
) -> list[dict[str, Any]]:
    """For each model of a network what was predicted and what was measured."""
    graph = trace(model, example)
    meter, engine = LatencyMeter(graph, profile), runtime()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for n, (how, widths) in enumerate(drawn(graph, models, seed=0)):
            plan = choose(graph, {g.name: torch.arange(g.size) for g in graph.groups}, named_widths(graph, widths))
            small = compact(model, graph, plan).eval()
            artifact = exporter("onnx")(small, example, Path(folder), name=str(n), tolerance=1e-2)
            sessions[str(n)] = engine.open(Path(folder) / artifact.path, threads=profile.threads)
            rows.append({"how": how, "macs": cost_of(graph, plan).macs, "predicted_ms": meter(widths)})
        x_BCHW = np.random.default_rng(0).standard_normal(example.shape, dtype=np.float32)
        found = in_turns(sessions, x_BCHW, seconds)
        for session in sessions.values():
            session.close()
    for n, row in enumerate(rows):
        row |= {"measured_ms": statistics.median(found[str(n)]), "n": len(found[str(n)])}
    for row in rows:
        row["by_macs_ms"] = rows[0]["measured_ms"] * row["macs"] / rows[0]["macs"]
    return rows


def in_turns(sessions: Mapping[str, Session], x_BCHW: np.ndarray, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each model: they take turns, and each runs five times in a turn, of which the first is left out.

    That first one finds its weights where the other models have pushed them, out of the caches; a model that is in use
    does not.
    """
    found: dict[str, list[float]] = {name: [] for name in sessions}
    order, shuffle, started = list(sessions), random.Random(0).shuffle, time.perf_counter()
    while time.perf_counter() - started < seconds or len(found[order[0]]) < 20:
        shuffle(order)
        for name in order:
            for n in range(5):
                before = time.perf_counter_ns()
                sessions[name].run(x_BCHW)
                if n:
                    found[name].append((time.perf_counter_ns() - before) / 1e6)
    return found


def errors(rows: list[dict[str, Any]], key: str) -> dict[str, float]:
    """How far predictions are from what was measured, as shares of it."""
    off = [abs(row[key] / row["measured_ms"] - 1) for row in rows]
    return {"median": statistics.median(off), "p90": percentile(off, 0.9), "worst": max(off)}


def main() -> None:
    """Probe, compare, write the JSON and the picture."""
    options = _options()
    torch.set_num_threads(1)
    nets = {key: net.make() for key, net in NETS.items() if not options.nets or key in options.nets}
    if options.profile:
        profile = DeviceProfile.read(options.profile)
    else:
        shapes = [shape for model, example in nets.values() for shape in layers_of(trace(model, example))]
        profile = probe_layers(shapes, LayerProbe(threads=1), on_point=_tell)
        name = f"{profile.device.name} {profile.device.engine} {profile.device.engine_version}"
        profile.write(PROFILES / f"{'-'.join(re.findall('[a-z0-9.]+', name.lower()))}.json")
    rows: list[dict[str, Any]] = []
    for key, (model, example) in nets.items():
        points = compared(model, example, profile, options.models, options.seconds)
        row = {"net": key, "title": NETS[key].title, "points": points}
        row |= {"profile": errors(points, "predicted_ms"), "macs": errors(points[1:], "by_macs_ms")}
        print(
            f"{NETS[key].title}: off by {row['profile']['median']:.1%}, by macs {row['macs']['median']:.1%}", flush=True
        )
        rows.append(row)
    every = [point for row in rows for point in row["points"]]
    config = {
        "models": options.models,
        "profile": {"date": profile.date, "layers": len(profile.layers), "engine": profile.device.engine_version},
        "all": {"profile": errors(every, "predicted_ms")},
    }
    result = record(
        "latency_profile", rows, config=config, n=min(p["n"] for p in every), percentile="p50 of each model", threads=1
    )
    write(result, options.json)
    picture = scatter(
        {row["title"]: [(p["measured_ms"], p["predicted_ms"]) for p in row["points"]] for row in rows},
        x="measured, ms",
        y="predicted from the profile, ms",
    )
    options.picture.write_text(picture, encoding="utf-8")


def _tell(done: int, total: int) -> None:
    if done % 500 == 0 or done == total:
        print(f"profile: {done} of {total} points", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.latency_profile", description=__doc__)
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"of {', '.join(NETS)}; default all")
    parser.add_argument("--json", type=Path, default=RESULTS / "latency_profile.json", metavar="FILE")
    parser.add_argument("--picture", type=Path, default=PICTURE, metavar="FILE", help="where to draw it")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="a profile of this machine; else it is measured")
    parser.add_argument("--models", type=int, default=16, help="of each network; default 16")
    parser.add_argument("--seconds", type=float, default=8.0, help="for the models of a network together; default 8")
    return parser.parse_args()


if __name__ == "__main__":
    main()
