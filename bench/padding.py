"""What do odd widths cost, and what does padding them win? `python -m bench.padding`, on an idle machine.

Networks of the zoo at 32 pixels and one of timm, untrained, with zeros as a sparse training leaves them: half of the
single weights, and a share of the filters of every layer, drawn at random, so that widths come out as they like. Their
zeros are removed as `prunit shrink --pad off` does it, and with widths padded to multiples of 4 and of 16. These models
and the dense one take turns in ONNX Runtime with one thread, at batch 1 and 32; how many times faster is the median of
the ratios of the single turns. `chosen` is what `--pad auto` takes by these figures.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from bench import edge_tables
from bench._common import RESULTS, percentile, record, write
from bench.default_speed import CLOCKS, TenClasses, measure
from prunit.cut.zeros import Removed, difference, remove_zeros
from prunit.export import EXPORTERS
from prunit.graph import trace
from prunit.prices.costs import cost_of
from prunit.recipe.padding import fastest, without_zeros

NETS: Final = {
    "vgg16": TenClasses("VGG-16, 32×32", "vgg16", 32),
    "resnet20": TenClasses("ResNet-20, 32×32", "resnet20", 32),
    "mobilenetv2": TenClasses("MobileNetV2, 32×32", "mobilenetv2", 32),
    "timm-mobilenetv3": TenClasses("MobileNetV3 small (timm), 64×64", "timm:mobilenetv3_small_100", 64),
}
LEAST: Final = "off"
MULTIPLES: Final = (4, 16)


def emptied(model: nn.Module, share: float, seed: int) -> nn.Module:
    """In place: half of the weights of convolutions zero, and this share of their filters; batch norms shift.

    The shift makes constants of empty filters that are not all zero, as a training does.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                weight = module.weight
                weight *= torch.rand(weight.shape, generator=generator) > 0.5
                weight[torch.rand(len(weight), generator=generator) < share] = 0
            if isinstance(module, nn.BatchNorm2d):
                module.bias.copy_(torch.rand(len(module.bias), generator=generator) - 0.5)
    return model.eval()


def row(net: TenClasses, share: float, seed: int, seconds: float, clock: str) -> dict[str, Any]:
    """What is found of a network with this share of its filters empty."""
    model, example = net.make()
    emptied(model, share, seed)
    graph = trace(model, example)
    arms: dict[str, Removed] = {LEAST: remove_zeros(model, example, graph=graph)}
    for multiple in MULTIPLES:
        found = without_zeros(model, example, graph=graph, pad=multiple)
        arms[f"multiples of {multiple}"] = found.removed
    channels, height, width = example.shape[1:]
    with TemporaryDirectory(prefix="prunit-") as folder:
        models: dict[str, nn.Module] = {"dense": model} | {name: arm.model for name, arm in arms.items()}
        files = {
            name: Path(folder) / EXPORTERS["onnx"](each, example, Path(folder), name=f"{number}").path
            for number, (name, each) in enumerate(models.items())
        }
        times = measure(files, (channels, height, width), seconds, CLOCKS[clock])
    faster = {
        name: {batch: _ratio(of_batch[LEAST], of_batch[name]) for batch, of_batch in times.items()}
        for name in arms
        if name != LEAST
    }
    return {
        "net": net.title,
        "share": share,
        "seed": seed,
        "dense": {"params": cost_of(graph).params, "latency": _latencies(times, "dense")},
        "arms": {
            name: {
                "params": cost_of(graph, arm.plan).params,
                "spare": arm.spare,
                "widths": list(arm.plan.widths.values()),
                "difference": difference(model, arm.model, example),
                "latency": _latencies(times, name),
            }
            for name, arm in arms.items()
        },
        "chosen": fastest(faster) or LEAST,
    }


def _latencies(times: Mapping[int, Mapping[str, Sequence[int]]], name: str) -> dict[str, Any]:
    """By batch size; with how many times faster than the dense model and than the one without padding, turn by turn."""
    return {
        str(batch): {
            "n": len(of_batch[name]),
            "p50_ms": round(percentile(of_batch[name], 0.5) / 1e6, 5),
            "times_faster": round(_ratio(of_batch["dense"], of_batch[name]), 4),
            "than_off": round(_ratio(of_batch[LEAST], of_batch[name]), 4),
        }
        for batch, of_batch in times.items()
    }


def _ratio(slower_ns: Sequence[int], faster_ns: Sequence[int]) -> float:
    return float(np.median(np.divide(slower_ns, faster_ns)))


def main() -> None:
    options = _arguments()
    torch.set_num_threads(1)
    config = {"runtime": "onnxruntime", "order": "in turn, shuffled"}
    config |= {"seconds": options.seconds, "clock": options.clock}
    rows: list[dict[str, Any]] = []
    for name in options.only or NETS:
        for share in options.shares:
            rows.append(row(NETS[name], share, options.seed, options.seconds, options.clock))
            print(edge_tables.padding_line(rows[-1]), flush=True)
            n = min(arm["latency"]["32"]["n"] for each in rows for arm in each["arms"].values())
            # After each: what is there counts, should the rest be stopped.
            write(record("padding", rows, config=config, n=n, percentile="p50", threads=1), options.json)
    print(edge_tables.padding({"rows": rows}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.padding", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "padding.json", metavar="FILE", help="where to write")
    parser.add_argument("--only", nargs="*", choices=NETS, default=[], help="networks; default all")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.3, 0.6], help="of empty filters")
    parser.add_argument("--seed", type=int, default=0, help="of the draw; default 0")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each model and batch size; default 0.5")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu where other processes run; default wall")
    return parser.parse_args()


if __name__ == "__main__":
    main()
