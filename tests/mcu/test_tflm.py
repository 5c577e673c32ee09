"""The arena of TensorFlow Lite Micro, and its answers."""

import numpy as np
import pytest

from prunit.errors import DataError, ModelError
from prunit.mcu import litert, tflm
from prunit.mcu.flatbuffer import flatbuffer_of
from tests.mcu.drawn import residual, unary

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tflite_micro.python.tflite_micro.runtime")


def images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(3).integers(-128, 128, (count, 12, 12, 3), dtype=np.int8)


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (2, 8), (9, 12), (16, 12)])
def test_the_arena_is_the_smallest_that_works(channels: int, size: int) -> None:
    data = flatbuffer_of(residual(channels, size))
    found = tflm.arena(data)
    assert found.total_bytes >= found.head_bytes + found.tail_bytes
    assert found.head_bytes >= 2 * size * size * channels
    assert tflm.fits(data, found.total_bytes)
    assert not tflm.fits(data, found.total_bytes - 16)


def test_a_wider_network_takes_more() -> None:
    heads = [tflm.arena(flatbuffer_of(residual(channels))).head_bytes for channels in (8, 9, 32)]
    assert heads == sorted(set(heads))


def test_after_an_arena_of_nearly_nothing_it_still_answers() -> None:
    data = flatbuffer_of(residual())
    before = tflm.arena(data)
    assert not tflm.fits(data, 16)
    assert tflm.arena(data) == before


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    tflm.arena(flatbuffer_of(residual()))
    with pytest.raises(ModelError):
        tflm.arena(unary("GELU"))
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_it_does_not_have_is_named() -> None:
    with pytest.raises(ModelError, match="has no operator GELU"):
        tflm.arena(unary("GELU"))


def test_it_answers_as_the_reference_kernels() -> None:
    data, x = flatbuffer_of(residual()), images()
    found = tflm.tflm_answers(data, x)
    assert [array.shape for array in found] == [(5, 6, 6, 6)]
    np.testing.assert_array_equal(found[0], litert.answers(data, x, kernels="reference")[0])
    assert found[0].std() > 5


def test_answers_of_two_outputs() -> None:
    network = residual()
    from dataclasses import replace

    data = flatbuffer_of(replace(network, outputs=("end", "deep")))
    found = tflm.tflm_answers(data, images(2))
    assert [array.shape for array in found] == [(2, 6, 6, 6), (2, 12, 12, 9)]


def test_other_inputs_are_refused() -> None:
    data = flatbuffer_of(residual())
    with pytest.raises(DataError, match=r"takes int8 \(1, 12, 12, 3\)"):
        tflm.tflm_answers(data, images()[:, :5])
    with pytest.raises(DataError, match="float32"):
        tflm.tflm_answers(data, images().astype(np.float32))  # pyright: ignore[reportArgumentType]
