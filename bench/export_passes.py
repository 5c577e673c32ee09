"""What the rewrites of an exported graph are worth: all of onnxscript's, the chosen ones, none; the files taking turns.

The weights are untrained: they change neither time nor size, but for biases of zero, which a rewrite leaves out.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from bench._common import arguments, quotient, record, spread, take_turns, write
from bench._nets import HALVED, MORE, SMALL, Net
from prunit.edge.runtimes import runtime
from prunit.edge.session import Session
from prunit.export import exporter
from prunit.export.passes import simplify

NETS: Final[Mapping[str, Net]] = {
    "resnet20-32": SMALL["resnet20-32"],
    "resnet18-224": HALVED["resnet18-224"],
    "mobilenetv2-224": HALVED["mobilenetv2-224"],
    "efficientnetb0-224": MORE["efficientnetb0-224"],
    "regnety-224": MORE["regnety-224"],
    "convnext-224": Net("ConvNeXt-Atto, 224×224", "timm:convnext_atto", 224),
    "vit-224": Net("ViT-Ti/16, 224×224", "timm:vit_tiny_patch16_224", 224),
}


def _everything(model: Any) -> None:
    from onnxscript import optimizer

    optimizer.optimize(model)


def _nothing(model: Any) -> None:
    del model


REWRITES: Final[Mapping[str, Callable[[Any], None]]] = {"all": _everything, "chosen": simplify, "none": _nothing}
"""What the exporter did before, what it does, and what it would be without."""


def exported(model: nn.Module, example: Tensor, folder: Path) -> dict[str, dict[str, Any]]:
    """A file for each set of rewrites, by name, with its size, its nodes and the seconds of its export."""
    found: dict[str, dict[str, Any]] = {}
    for name, rewrite in REWRITES.items():
        start = time.perf_counter()
        with mock.patch("prunit.export.translation.simplify", rewrite):
            artifact = exporter("onnx")(model, example, folder, name=name)
        file = folder / artifact.path
        nodes = len(onnx.load(file).graph.node)
        took = time.perf_counter() - start
        found[name] = {"rewrites": name, "file": file, "file_bytes": artifact.bytes, "nodes": nodes, "export_s": took}
    return found


def measure(make: Callable[[], tuple[nn.Module, Tensor]], rounds: int) -> list[dict[str, Any]]:
    """A row for each set of rewrites: size, nodes, milliseconds to open the file and to answer one image."""
    model, example = make()
    engine = runtime()
    with tempfile.TemporaryDirectory() as folder:
        variants = exported(model, example, Path(folder))
        files: dict[str, Path] = {name: variant.pop("file") for name, variant in variants.items()}
        opens = take_turns(
            {n: lambda f=f: _milliseconds(lambda: engine.open(f).close()) for n, f in files.items()}, rounds
        )
        sessions: dict[str, Session] = {name: engine.open(file) for name, file in files.items()}
        x_BCHW = np.random.default_rng(0).standard_normal(example.shape).astype(np.float32)
        answers = take_turns(
            {n: lambda s=s: _milliseconds(lambda: s.run(x_BCHW)) for n, s in sessions.items()},
            5 * rounds,
            warm_up=5,
            pause=False,
        )
        for session in sessions.values():
            session.close()
    return [
        {
            **variant,
            "open_ms": spread(opens[name]),
            "latency_ms": spread(answers[name]),
            "open_of_all": quotient(opens[name], opens["all"]),
            "latency_of_all": quotient(answers[name], answers["all"]),
        }
        for name, variant in variants.items()
    ]


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    options = arguments("export_passes", __doc__, rounds=21)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for key, net in NETS.items():
        mine = [{"model": key, "title": net.title, **row} for row in measure(net.make, options.rounds)]
        for row in mine:
            print(
                f"{net.title}, {row['rewrites']}: {row['file_bytes']:,} bytes, {row['nodes']} nodes, opened in"
                f" {row['open_ms']['median']:.1f} ms, answers in {row['latency_ms']['median']:.2f} ms"
            )
        rows += mine
    config = {"runtime": "onnxruntime", "batch": 1, "order": "in turn", "answers": 5 * options.rounds}
    result = record("export_passes", rows, config=config, n=options.rounds, percentile="median (p50)", threads=1)
    write(result, options.json)


if __name__ == "__main__":
    main()
