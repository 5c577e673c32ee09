"""Answers by LiteRT: its own kernels to the bit, XNNPACK's to a step or two."""

import numpy as np
import pytest

from prunit.errors import ConfigError, DataError, ModelError
from prunit.mcu import litert
from prunit.mcu.flatbuffer import flatbuffer_of
from tests.mcu.drawn import residual

pytest.importorskip("ai_edge_litert")


def images() -> np.ndarray:
    return np.random.default_rng(4).integers(-128, 128, (6, 12, 12, 3), dtype=np.int8)


@pytest.mark.parametrize("channels", [1, 7, 16])
def test_the_optimised_kernels_answer_as_the_reference(channels: int) -> None:
    data = flatbuffer_of(residual(channels))
    exact = litert.answers(data, images(), kernels="reference")
    fast = litert.answers(data, images())
    np.testing.assert_array_equal(fast[0], exact[0])
    assert exact[0].std() > 5
    other = litert.answers(data, images(), kernels="xnnpack", threads=2)
    assert np.abs(other[0].astype(int) - exact[0]).max() <= 3


def test_images_are_answered_one_by_one() -> None:
    data, x = flatbuffer_of(residual()), images()
    alone = [litert.answers(data, image[None])[0] for image in x]
    np.testing.assert_array_equal(litert.answers(data, x)[0], np.concatenate(alone))


def test_what_does_not_fit_is_said() -> None:
    data = flatbuffer_of(residual())
    with pytest.raises(DataError, match=r"takes int8 \(1, 12, 12, 3\), got int8 \(6, 5, 12, 3\)"):
        litert.answers(data, images()[:, :5])
    with pytest.raises(ConfigError, match="0 threads"):
        litert.answers(data, images(), threads=0)
    with pytest.raises(ModelError, match="LiteRT refuses"):
        litert.answers(b"something else altogether", images())
