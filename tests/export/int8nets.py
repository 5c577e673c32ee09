"""Float networks written by hand, operator by operator, whose int8 twins can be reckoned on paper."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from prunit.edge.portfolio import Artifact, Output
from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, expected_key, outputs_of
from prunit.files import sha256_of

Node = tuple[str, Sequence[str], str, dict[str, object]]
"""Operator, inputs, output, attributes."""


def written(
    folder: Path,
    nodes: Sequence[Node],
    constants: dict[str, Array],
    shape_CHW: tuple[int, int, int],
    outputs: dict[str, Sequence[int | str]],
    *,
    name: str = "float",
) -> Artifact:
    """The artifact of a network of these operators, its self-test made of what ONNX Runtime answers to noise."""
    graph = helper.make_graph(
        [helper.make_node(op, ins, [out], name=f"node_{out}", **about) for op, ins, out, about in nodes],  # type: ignore
        "net",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", *shape_CHW])],
        [helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, ["batch", *s]) for o, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(value, np.float32), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    x_BCHW = noise(4, shape_CHW, seed=9)
    expected = outputs_of(runtime("onnxruntime").open(path), x_BCHW)
    test = folder / f"{name}.selftest.npz"
    np.savez(test, allow_pickle=False, input=x_BCHW, **{expected_key(i): y for i, y in enumerate(expected)})
    return Artifact(
        path=path.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        input_name="input",
        input_shape=shape_CHW,
        output_name=next(iter(outputs)),
        outputs=tuple(
            Output(name=o, shape=y.shape[1:], tolerance=1e-3) for o, y in zip(outputs, expected, strict=True)
        ),
        self_test=test.name,
        self_test_sha256=sha256_of(test),
        tolerance=1e-3,
    )


def noise(count: int, shape_CHW: tuple[int, int, int], *, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (count, *shape_CHW)).astype(np.float32)


def one_conv(folder: Path, weight: Array, bias: Array | None = None, *, side: int = 4) -> Artifact:
    """A 1x1 convolution and a ReLU, nothing more; the answer is a map."""
    weight = np.asarray(weight, np.float32)
    constants = {"c.weight": weight[:, :, None, None]} | ({} if bias is None else {"c.bias": np.asarray(bias)})
    nodes: list[Node] = [("Conv", ["input", *constants], "c", {}), ("Relu", ["c"], "answer", {})]
    return written(folder, nodes, constants, (weight.shape[1], side, side), {"answer": [len(weight), side, side]})


def tensor(path: Path, name: str) -> np.ndarray:
    """A constant of a file, by name."""
    found = {t.name: t for t in onnx.load(path).graph.initializer}
    return numpy_helper.to_array(found[name])


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]
