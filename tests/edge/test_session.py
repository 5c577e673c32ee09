import io
from pathlib import Path

import numpy as np
import pytest

from prunit.edge.portfolio import Artifact
from prunit.edge.session import Array, engine, self_test
from prunit.errors import MissingExtraError, PortfolioError
from prunit.files import sha256_of

X_BCHW = np.ones((2, 1, 1, 3), np.float32)


class Adds:
    """A session that adds a number to its input and flattens it."""

    def __init__(self, number: float) -> None:
        self.number = number

    def run(self, x_BCHW: Array, /) -> Array:
        return x_BCHW.reshape(len(x_BCHW), -1) + np.float32(self.number)

    def close(self) -> None:
        return None


def stored(folder: Path, content: bytes | None = None) -> Artifact:
    """An artifact whose self-test wants input + 1, or is `content`."""
    if content is None:
        np.savez(folder / "t.npz", input=X_BCHW, expected=X_BCHW.reshape(2, 3) + 1)
    else:
        (folder / "t.npz").write_bytes(content)
    return Artifact(
        path="m.onnx",
        sha256="0" * 64,
        bytes=1,
        input_name="input",
        input_shape=(1, 1, 3),
        output_name="logits",
        self_test="t.npz",
        self_test_sha256=sha256_of(folder / "t.npz"),
        tolerance=0.25,
    )


def test_the_largest_difference_comes_back(tmp_path: Path) -> None:
    artifact = stored(tmp_path)
    assert self_test(Adds(1), artifact, tmp_path) == 0
    assert self_test(Adds(0.875), artifact, tmp_path) == 0.125


@pytest.mark.parametrize(("number", "shown"), [(1.5, "0.5"), (float("nan"), "nan"), (float("inf"), "inf")])
def test_too_large_a_difference_names_file_and_difference(tmp_path: Path, number: float, shown: str) -> None:
    with pytest.raises(PortfolioError, match=rf"'m.onnx' failed its self-test: an output is off by {shown}, .* 0.25"):
        self_test(Adds(number), stored(tmp_path), tmp_path)


def test_another_output_shape_fails(tmp_path: Path) -> None:
    class Short(Adds):
        def run(self, x_BCHW: Array, /) -> Array:
            return super().run(x_BCHW)[:, :2]

    with pytest.raises(PortfolioError, match=r"the output has shape \(2, 2\), expected \(2, 3\)"):
        self_test(Short(1), stored(tmp_path), tmp_path)


def test_a_changed_or_missing_self_test_is_named(tmp_path: Path) -> None:
    artifact = stored(tmp_path)
    (tmp_path / "t.npz").write_bytes(b"other")
    with pytest.raises(PortfolioError, match=r"t.npz' was changed: its SHA-256 is not the manifest's"):
        self_test(Adds(1), artifact, tmp_path)
    (tmp_path / "t.npz").unlink()
    with pytest.raises(PortfolioError, match=r"t.npz', the self-test of 'm.onnx', is missing"):
        self_test(Adds(1), artifact, tmp_path)


def _pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, input=np.array([{"an": "object"}], dtype=object), expected=X_BCHW)
    return file.getvalue()


def _without_expected() -> bytes:
    file = io.BytesIO()
    np.savez(file, input=X_BCHW)
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04cut", _pickled(), _without_expected()])
def test_what_is_no_self_test_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(PortfolioError, match=r"t.npz' is no self-test of 'm.onnx'"):
        self_test(Adds(1), stored(tmp_path, content), tmp_path)


def test_a_missing_engine_says_what_installs_it() -> None:
    with pytest.raises(MissingExtraError, match=r"needs the package 'no_such_engine': pip install 'prunit\[edge\]'"):
        engine("no_such_engine", extra="edge")
