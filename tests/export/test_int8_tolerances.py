"""Tolerances for engines that compute with fewer bits: taken from what one is off, and refused where that is far."""

from pathlib import Path

import numpy as np
import pytest

from prunit.edge.portfolio import Artifact
from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, self_test
from prunit.errors import ModelError, PortfolioError
from prunit.export.quantising import computed_in_bf16, loosened
from tests.export.int8nets import one_conv


class Off:
    """An engine whose answers are off by a constant."""

    def __init__(self, folder: Path, artifact: Artifact, by: float) -> None:
        self.session, self.by = runtime("onnxruntime").open(folder / artifact.path), by

    def run(self, x_BCHW: Array, /) -> Array:
        return self.session.run(x_BCHW) + np.float32(self.by)

    def close(self) -> None:
        self.session.close()


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """Its answers on the stored images lie between 0 and nearly 2, and may be off by 0.001."""
    return one_conv(tmp_path, np.array([[1.0, 1.0]]), side=16)


def test_an_output_may_be_off_by_three_times_what_it_is_now(tmp_path: Path, artifact: Artifact) -> None:
    session = Off(tmp_path, artifact, 0.01)
    with pytest.raises(PortfolioError, match="failed its self-test"):
        self_test(session, artifact, tmp_path)
    loose = computed_in_bf16(artifact, tmp_path, session)
    assert loose.outputs[0].tolerance == pytest.approx(0.03, rel=1e-4)
    assert loose.tolerance == loose.outputs[0].tolerance
    assert loose.sha256 == artifact.sha256
    assert self_test(session, loose, tmp_path) == pytest.approx(0.01, rel=1e-4)
    with pytest.raises(PortfolioError, match="failed its self-test"):
        self_test(Off(tmp_path, artifact, 0.04), loose, tmp_path)


def test_a_tolerance_never_shrinks(tmp_path: Path, artifact: Artifact) -> None:
    assert loosened(artifact, tmp_path, Off(tmp_path, artifact, 0)).outputs[0].tolerance == 1e-3


@pytest.mark.parametrize("by", [0.3, float("nan")])
def test_an_engine_that_is_far_off_is_refused(tmp_path: Path, artifact: Artifact, by: float) -> None:
    with pytest.raises(ModelError, match=r"in bf16: 'answer' is off by .* of its range where 10% is allowed"):
        computed_in_bf16(artifact, tmp_path, Off(tmp_path, artifact, by))


def test_openvino_in_bf16_is_within_the_tolerance_it_gets(tmp_path: Path, artifact: Artifact) -> None:
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().compile_model(str(tmp_path / artifact.path), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})

    class InBf16:
        def run(self, x_BCHW: Array, /) -> Array:
            return model(x_BCHW)[0]

        def close(self) -> None: ...

    assert self_test(InBf16(), computed_in_bf16(artifact, tmp_path, InBf16()), tmp_path) < 0.02
