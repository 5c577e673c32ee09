"""A network of integers as a file: what LiteRT reads out of it, and what the schema does not have."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from prunit.errors import ModelError
from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.network import IntegerNetwork, Operator, Tensor

_CONV = {
    "padding": "SAME",
    "strideW": 2,
    "strideH": 2,
    "dilationWFactor": 1,
    "dilationHFactor": 1,
    "fusedActivationFunction": "RELU",
}


def tensors(channels: int = 5) -> list[Tensor]:
    generator = np.random.default_rng(0)
    weights = generator.integers(-127, 128, (channels, 3, 3, 3), dtype=np.int8)
    return [
        Tensor("x", (1, 8, 8, 3), scales=(0.05,), zero_point=-1),
        Tensor("w", weights.shape, scales=(0.01, *[0.02] * (channels - 1)), values=weights),
        Tensor("b", (channels,), "int32", scales=(0.0005,) * channels, values=np.arange(channels, dtype=np.int32)),
        Tensor("y", (1, 4, 4, channels), scales=(0.05,), zero_point=-128),
    ]


def network(of: Sequence[Tensor] | None = None, operator: Operator | None = None) -> IntegerNetwork:
    conv = operator or Operator("CONV_2D", "stem", ("x", "w", "b"), ("y",), 3, _CONV)
    return IntegerNetwork("net", of or tensors(), [conv], ("x",), ("y",))


def test_litert_reads_what_was_written() -> None:
    pytest.importorskip("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    opened = Interpreter(model_content=flatbuffer_of(network()))
    opened.allocate_tensors()
    found = {detail["name"]: detail for detail in opened.get_tensor_details()}
    for tensor in tensors():
        detail = found[tensor.name]
        assert tuple(detail["shape"]) == tensor.shape
        scales = detail["quantization_parameters"]["scales"]
        np.testing.assert_array_equal(scales, np.array(tensor.scales, np.float32))
        if tensor.values is not None:
            np.testing.assert_array_equal(opened.get_tensor(detail["index"]), tensor.values)


def test_it_computes_the_convolution() -> None:
    pytest.importorskip("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    opened = Interpreter(
        model_content=flatbuffer_of(network()), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    opened.allocate_tensors()
    x_NHWC = np.random.default_rng(1).integers(-128, 128, (1, 8, 8, 3), dtype=np.int8)
    opened.set_tensor(opened.get_input_details()[0]["index"], x_NHWC)
    opened.invoke()
    found = opened.get_tensor(opened.get_output_details()[0]["index"])

    _, weights, biases, _ = tensors()
    assert weights.values is not None
    assert biases.values is not None
    real = np.pad((x_NHWC.astype(np.float64) + 1) * 0.05, ((0, 0), (0, 1), (0, 1), (0, 0)))  # 8 by 2: one row below
    w_OHWI = weights.values * np.array(weights.scales)[:, None, None, None]
    expected = np.empty((1, 4, 4, 5))
    for row in range(4):
        for column in range(4):
            patch = real[0, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            expected[0, row, column] = np.einsum("hwi,ohwi->o", patch, w_OHWI)
    expected += biases.values * np.array(biases.scales)
    steps = np.clip(np.rint(expected / 0.05) - 128, -128, 127)
    assert np.abs(found - steps).max() <= 1


def test_large_constants_stand_inside_the_file() -> None:
    pytest.importorskip("ai_edge_litert")
    from ai_edge_litert import schema_py_generated as schema

    wide = Tensor("big", (300, 1024), scales=(0.01,), values=np.ones((300, 1024), np.int8))
    model = schema.ModelT.InitFromPackedBuf(flatbuffer_of(network([*tensors(), wide])), 0)
    held = model.buffers[model.subgraphs[0].tensors[-1].buffer]
    assert len(held.data) == 300 * 1024
    assert held.offset == held.size == 0


def test_the_same_network_gives_the_same_bytes() -> None:
    pytest.importorskip("ai_edge_litert")
    assert flatbuffer_of(network()) == flatbuffer_of(network())


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (Operator("CONV_9D", "stem", ("x",), ("y",)), "no operator called 'CONV_9D'"),
        (
            Operator("CONV_2D", "stem", ("x",), ("y",), options={"stride": 2}),
            "CONV_2D of 'stem' has no option 'stride'",
        ),
        (Operator("PAD", "edge", ("x",), ("y",), options={"by": 2}), "PAD of 'edge' has no options"),
    ],
)
def test_what_the_schema_does_not_have_is_named(operator: Operator, message: str) -> None:
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(ModelError, match=message):
        flatbuffer_of(network(operator=operator))


def test_networks_that_do_not_hold_together_are_refused() -> None:
    with pytest.raises(ModelError, match="reads 'z' before anything makes it"):
        network(operator=Operator("RELU", "act", ("z",), ("y",)))
    with pytest.raises(ModelError, match="makes its output 'y'"):
        network(operator=Operator("RELU", "act", ("x",), ("other",)))
    with pytest.raises(ModelError, match="more than one tensor called x"):
        network([*tensors(), tensors()[0]])
    with pytest.raises(ModelError, match=r"int8 \(2,\), but its values are int64 \(2,\)"):
        replace(tensors()[0], shape=(2,), values=np.arange(2))


def test_what_an_interpreter_has_to_know() -> None:
    net = network()
    assert net.codes == ("CONV_2D",)
    assert net.constant_bytes == 5 * 27 + 4 * 5
