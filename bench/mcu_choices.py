"""What three choices of integer networks cost (ADR 039 and 040): `python -m bench.mcu_choices`, about ten minutes.

On networks trained for some epochs on scikit-learn's digits. The mean over the image: how far outputs are off where it
has steps of its own (MEAN) and where it has those of what it reads, as AVERAGE_POOL_2D demands. Linear layers: cycles
as 1x1 convolutions and as FULLY_CONNECTED. Made-up weights: the cycles of networks of the same shapes with trained
weights and with normal, uniform and narrow normal ones.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench._common import RESULTS, record, write
from prunit import build
from prunit.edge.runtimes import runtime
from prunit.export.quantising.choosing import answers, error_of
from prunit.export.quantising.network import Network
from prunit.export.quantising.ranges import Span, observed, span
from prunit.export.tflite import integer_network
from prunit.export.tflite.reading import float_graph
from prunit.export.tflite.spans import averages_image
from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.litert import answers as integer_answers
from prunit.mcu.network import IntegerNetwork, Operator, Tensor
from prunit.mcu.numbers import quantised, real
from prunit.mcu.parts import part
from prunit.mcu.vela import compiled, version
from prunit.recipe.twins import training_images
from prunit.zoo import data

NETS: Final = {"resnet20": 32, "mobilenetv2": 32}
"""By name the side of the images."""
PARTS: Final = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256")
IMAGES: Final = 512
LR: Final = 0.02
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
WEIGHTS: Final[dict[str, Draw]] = {
    "normal": lambda noise, shape: noise.standard_normal(shape),
    "uniform": lambda noise, shape: noise.uniform(-1, 1, shape),
    "normal, half the range": lambda noise, shape: noise.standard_normal(shape),
}


def cycles_of(network: IntegerNetwork) -> dict[str, int]:
    """By part what Vela says of it."""
    file = flatbuffer_of(network)
    return {name: compiled(file, part(name)).check().cycles for name in PARTS}


def with_weights(network: IntegerNetwork, kind: str) -> IntegerNetwork:
    """The network with other weights, the largest of each output channel 127, or 63 for half the range."""
    noise, most = np.random.default_rng(0), 63 if "half" in kind else 127

    def other(tensor: Tensor) -> Tensor:
        if tensor.values is None or tensor.kind != "int8" or len(tensor.scales) < 2:
            return tensor
        values = WEIGHTS[kind](noise, tensor.shape)
        others = tuple(index for index in range(values.ndim) if index != tensor.axis)
        return replace(
            tensor, values=np.rint(most * values / np.abs(values).max(axis=others, keepdims=True)).astype(np.int8)
        )

    return replace(network, tensors=[other(tensor) for tensor in network.tensors])


def fully_connected(network: IntegerNetwork) -> IntegerNetwork:
    """The network with FULLY_CONNECTED for every 1x1 convolution of a single pixel."""
    by_name, weights = network.by_name, dict[str, Tensor]()
    operators: list[Operator] = []
    for operator in network.operators:
        shape = by_name[operator.outputs[0]].shape
        if operator.code == "CONV_2D" and shape[1:3] == (1, 1) and by_name[operator.inputs[0]].shape[1:3] == (1, 1):
            name = operator.inputs[1]
            values = by_name[name].values
            assert values is not None
            flat = values.reshape(values.shape[0], -1)
            weights[name] = replace(by_name[name], shape=flat.shape, values=flat)
            options = {"fusedActivationFunction": operator.options["fusedActivationFunction"], "keepNumDims": True}
            operator = replace(operator, code="FULLY_CONNECTED", version=12, options=options)
        operators.append(operator)
    return replace(network, tensors=[weights.get(t.name, t) for t in network.tensors], operators=operators)


def of_network(name: str, side: int, epochs: int) -> dict[str, Any]:
    """A row: the three choices on one network."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = {"budgets": ["macs=1/16"], "train": {"epochs": epochs, "lr": LR}, "probe": {"seconds": 0.1}}
        digits = data.load("digits", image_size=side)
        dense = build(name, digits, folder, config=config).variants[0]
        path = folder / dense.artifact.path
        images, held_out = (np.concatenate(each) for each in training_images(digits, IMAGES, 0))
        network = Network(path)
        session = runtime("onnxruntime").open(path)
        expected = answers(session, held_out)[0]
        session.close()
        graph = float_graph(network)
        seen = observed(network, network.float_tensors({node.name for node in network.proto.graph.node}), images)
    spans = {tensor: span(one, "minmax") for tensor, one in seen.items()}
    found: dict[str, Any] = {"network": name, "side": side, "accuracy": dense.metrics.accuracy, "images": len(held_out)}
    shared: dict[str, Span] = dict(spans)
    for step in graph.steps:
        if averages_image(step, graph):
            shared[step.output] = spans[step.input(0)]
            widths = [high - low for low, high in (spans[step.input(0)], spans[step.output])]
            found["mean_finer"] = round(widths[0] / widths[1], 2)
    for kind, ends in (("own", spans), ("shared", shared)):
        made = integer_network(network, ends, name=name)
        taken, given = (made.by_name[ends[0]] for ends in (made.inputs, made.outputs))
        got = integer_answers(flatbuffer_of(made), quantised(held_out, taken, layout="NCHW"), kernels="reference")
        found[f"error_{kind}"] = round(error_of(real(got[0], given), expected), 4)
    made = integer_network(network, spans, name=name)
    found["cycles"] = {"trained": cycles_of(made), "FULLY_CONNECTED": cycles_of(fully_connected(made))}
    found["cycles"] |= {kind: cycles_of(with_weights(made, kind)) for kind in WEIGHTS}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mcu_choices", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "mcu_choices.json", metavar="FILE", help="to write")
    parser.add_argument("--epochs", type=int, default=4, help="of training on digits (default 4)")
    options = parser.parse_args()
    rows = []
    for name, side in NETS.items():
        rows.append(of_network(name, side, options.epochs))
        print(rows[-1])
    config = {"data": "digits", "epochs": options.epochs, "parts": PARTS, "vela": version()}
    write(record("mcu_choices", rows, config=config, n=1, percentile="one seed", threads=1), options.json)


if __name__ == "__main__":
    main()
