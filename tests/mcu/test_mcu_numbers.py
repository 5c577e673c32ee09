"""Real numbers as int8 and back."""

import numpy as np
import pytest

from prunit.errors import DataError, ModelError
from prunit.mcu.network import Tensor
from prunit.mcu.numbers import quantised, real

ROW = Tensor("row", (1, 5), scales=(0.5,), zero_point=3)
IMAGE = Tensor("image", (1, 2, 3, 4), scales=(0.1,), zero_point=-1)


def test_halves_go_away_from_zero_and_ends_are_cut_off() -> None:
    x = np.array([[0.25, -0.25, 0.75, 1e9, -np.inf]])
    assert quantised(x, ROW).tolist() == [[4, 2, 5, 127, -128]]
    assert real(quantised(x, ROW), ROW).tolist() == [[0.5, -0.5, 1.0, 62.0, -65.5]]


def test_images_come_channels_first_or_last_and_any_number_of_them() -> None:
    x_BHWC = np.random.default_rng(0).uniform(-12, 12, (6, 2, 3, 4)).astype(np.float32)
    q_BHWC = quantised(x_BHWC, IMAGE)
    assert q_BHWC.dtype == np.int8
    np.testing.assert_array_equal(quantised(x_BHWC.transpose(0, 3, 1, 2), IMAGE, layout="NCHW"), q_BHWC)
    assert np.abs(real(q_BHWC, IMAGE) - x_BHWC).max() <= 0.0501
    np.testing.assert_array_equal(real(q_BHWC, IMAGE, layout="NCHW"), real(q_BHWC, IMAGE).transpose(0, 3, 1, 2))


def test_it_rounds_as_tensorflow_lite_does() -> None:
    pytest.importorskip("ai_edge_litert")
    from prunit.mcu.flatbuffer import flatbuffer_of
    from prunit.mcu.network import IntegerNetwork, Operator

    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    steps = Tensor("q", (1, 4001), scales=(float(np.float32(0.1)),), zero_point=-7)
    net = IntegerNetwork(
        "net", [Tensor("x", (1, 4001), "int8"), steps], [Operator("QUANTIZE", "", ("x",), ("q",))], ("x",), ("q",)
    )
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(flatbuffer_of(net), 0)
    model.subgraphs[0].tensors[0].type = schema.TensorType.FLOAT32
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    opened = interpreter.Interpreter(
        model_content=bytes(builder.Output()), experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_REF
    )
    opened.allocate_tensors()
    x = (np.arange(-2000, 2001, dtype=np.float32) / 200)[None] + np.float32(0.0)
    opened.set_tensor(0, x)
    opened.invoke()
    np.testing.assert_array_equal(opened.get_tensor(1), quantised(x, steps))


def test_other_shapes_nan_and_tensors_without_a_scale_are_refused() -> None:
    with pytest.raises(DataError, match=r"'image' holds \(1, 2, 3, 4\) for one image, got \(1, 4, 2, 3\) as NHWC"):
        quantised(np.zeros((1, 4, 2, 3)), IMAGE)
    with pytest.raises(DataError, match="it holds NaN"):
        quantised(np.full((1, 5), np.nan), ROW)
    with pytest.raises(DataError, match=r"got \(1, 6\)"):
        real(np.zeros((1, 6), np.int8), ROW)
    with pytest.raises(ModelError, match="'b' is int32 with 2 scales"):
        real(np.zeros((2,), np.int32), Tensor("b", (2,), "int32", scales=(0.1, 0.2)))
