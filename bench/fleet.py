"""Fewer variants than devices, and what they take: `python -m bench.fleet`, on an idle machine, a few minutes.

The devices are this machine in two ways, with one and with two threads of ONNX Runtime, each with a profile of its own,
and limits on the time for each: shares of what the dense model is predicted to take with one thread, the same
milliseconds for both; three far apart, or five close together. For several slacks the fewest variants that serve all
devices are worked out. Those of the first fleet at the default slack are exported and run as each device would, in
turns; beside it stands what the profile predicted.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench._common import RESULTS, record, write
from bench._nets import SMALL, Net
from bench.latency_profile import in_turns
from prunit.allocate import Budget
from prunit.batches import Batches
from prunit.cut.surgery import compact
from prunit.edge.measuring.probe_layers import LayerProbe, probe_layers
from prunit.edge.measuring.profile import DeviceProfile
from prunit.edge.runtimes import runtime
from prunit.export import exporter
from prunit.graph import trace
from prunit.prices.meters import LatencyMeter, layers_of
from prunit.recipe.config import FleetConfig, PruneConfig
from prunit.recipe.fleets.planning import Planned, fewest_of, fits_of
from prunit.recipe.source import task_of

NETS: Final = ("resnet20-32", "mobilenetv2-32")
THREADS: Final = (1, 2)
SHARES: Final = ((0.75, 0.55, 0.4), (0.8, 0.7, 0.6, 0.5, 0.4))
"""Of the dense model's time with one thread, the limits of the devices: of the one fleet, and of the other."""
SLACKS: Final = (0.0, 0.05, FleetConfig().slack, 0.2, 0.3)


def goals_of(profiles: Mapping[int, Path], dense_ms: float, shares: Sequence[float]) -> dict[str, Budget]:
    """A budget for each device: so many threads, so many milliseconds."""
    return {
        f"t{threads}-{share:.0%}".replace("%", ""): Budget.parse(
            f"latency={share * dense_ms:.6g}ms@{profiles[threads]}"
        )
        for threads in profiles
        for share in shares
    }


def measured(
    model: torch.nn.Module, example: torch.Tensor, planned: Planned, threads: int, seconds: float
) -> dict[str, dict[str, float]]:
    """By variant what it takes with so many threads, all of them in turns."""
    graph, engine, sessions = trace(model, example), runtime(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, decision in planned.decisions.items():
            small = compact(model, graph, decision.plan).eval()
            artifact = exporter("onnx")(small, example, Path(folder), name=name, tolerance=1e-2)
            sessions[name] = engine.open(Path(folder) / artifact.path, threads=threads)
        if not sessions:
            return {}
        x_BCHW = np.random.default_rng(0).standard_normal(tuple(example.shape), dtype=np.float32)
        found = in_turns(sessions, x_BCHW, seconds)
        for session in sessions.values():
            session.close()
    return {name: {"measured_ms": statistics.median(times), "n": len(times)} for name, times in found.items()}


def rows_of(
    title: str,
    model: torch.nn.Module,
    example: torch.Tensor,
    profiles: Mapping[int, Path],
    seconds: float,
    shares: Sequence[float],
    config: PruneConfig | None = None,
) -> list[dict[str, Any]]:
    """A row for each slack: how many variants serve how many devices, and of the default one each device's figures."""
    graph, config = trace(model, example), config or PruneConfig()
    dense = {t: LatencyMeter(graph, DeviceProfile.read(file))(graph.sizes) for t, file in profiles.items()}
    goals = goals_of(profiles, dense[1], shares)
    batches = Batches([(example, torch.empty(0, dtype=torch.int64))], task_of("classification"))
    fits = fits_of(model, graph, batches, goals, config)
    rows: list[dict[str, Any]] = []
    for slack in SLACKS:
        planned = fewest_of(model, graph, batches, fits, config, slack=slack)
        served = [each for each in planned.fleet.devices if each.variant]
        row: dict[str, Any] = {
            "net": title,
            "slack": slack,
            "devices": len(planned.fleet.devices),
            "served": len(served),
            "variants": len(planned.decisions),
            "by_dense": sum(each.variant == "dense" for each in served),
            "least_kept": min((each.kept for each in served if each.kept is not None), default=None),
            "seconds": planned.seconds,
        }
        if slack == FleetConfig().slack and seconds:
            by_threads = {t: measured(model, example, planned, t, seconds) for t in profiles}
            row["dense_predicted_ms"] = {str(t): ms for t, ms in dense.items()}
            row["found"] = [
                {
                    "device": each.device,
                    "threads": int(each.device[1]),
                    "variant": each.variant,
                    "limit_ms": each.limits["latency_ms"],
                    "predicted_ms": each.figures["latency_ms"],
                    "kept": each.kept,
                    **by_threads[int(each.device[1])][each.variant],
                }
                for each in served
                if each.variant in planned.decisions
            ]
        rows.append(row)
        print(f"{title}, slack {slack:.0%}: {row['variants']} variants for {row['served']} devices", flush=True)
    return rows


def main() -> None:
    """Probe, plan, measure, write the JSON."""
    options = _options()
    torch.set_num_threads(1)
    nets: dict[str, Net] = {key: SMALL[key] for key in options.nets or NETS}
    made = {key: net.make() for key, net in nets.items()}
    shapes = [shape for model, example in made.values() for shape in layers_of(trace(model, example))]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        folder, profiles = options.profiles or Path(place), dict[int, Path]()
        for threads in THREADS:
            profiles[threads] = folder / f"t{threads}.json"
            if not profiles[threads].exists():
                probe_layers(shapes, LayerProbe(threads=threads)).write(profiles[threads])
                print(f"profile with {threads} threads: {profiles[threads]}", flush=True)
        for key, (model, example) in made.items():
            for shares in SHARES:
                seconds = options.seconds if shares == SHARES[0] else 0.0
                rows += rows_of(nets[key].title, model, example, profiles, seconds, shares)
    runs = [each["n"] for row in rows for each in row.get("found", ())]
    result = record(
        "fleet",
        rows,
        config={"shares": SHARES, "slacks": SLACKS, "threads": THREADS, "load": os.getloadavg()[0]},
        n=min(runs, default=0),
        percentile="p50 of each variant",
        threads=THREADS,
    )
    write(result, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"of {', '.join(SMALL)}; default {', '.join(NETS)}")
    parser.add_argument("--json", type=Path, default=RESULTS / "fleet.json", metavar="FILE")
    parser.add_argument("--profiles", type=Path, metavar="DIR", help="keep the profiles there, and take those it has")
    parser.add_argument("--seconds", type=float, default=5.0, help="for the variants of a network together; default 5")
    return parser.parse_args()


if __name__ == "__main__":
    main()
