"""Every exporter and every runtime that accepts its format: the exported file gives torch's outputs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from prunit.edge.portfolio import Artifact
from prunit.edge.runtimes import RUNTIMES, runtime
from prunit.edge.session import Session, self_test
from prunit.errors import ConfigError, DataError, FileError, UnknownNameError
from prunit.export import EXPORTERS
from tests.contracts.engines import NAMES, assert_near, engine_here, exact
from tests.export.toynets import NETS, SHAPE_CHW, build, example

Exported = dict[tuple[str, str], Artifact]
CASES = [(format, net, engine) for format in EXPORTERS for net in NETS for engine in NAMES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("portfolio")


@pytest.fixture(scope="module")
def exported(folder: Path) -> Exported:
    return {
        (format, net): export(build(net), example(), folder, name=f"{format}-{net}")
        for format, export in EXPORTERS.items()
        for net in NETS
    }


@pytest.fixture(params=NAMES)
def session(request: pytest.FixtureRequest, folder: Path, exported: Exported) -> Iterator[Session]:
    session = engine_here(request.param).open(folder / exported["onnx", "plain"].path)
    yield session
    session.close()


@pytest.mark.parametrize(("format", "net", "engine"), CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_of_any_batch_are_torchs(
    format: str, net: str, engine: str, threads: int, folder: Path, exported: Exported
) -> None:
    used = engine_here(engine)
    session, model = used.open(folder / exported[format, net].path, threads=threads), build(net).eval()
    for batch in (1, 5, 32, 2, 1):
        x_BCHW = np.random.default_rng(batch).standard_normal((batch, *SHAPE_CHW)).astype(np.float32)
        with torch.no_grad():
            assert_near(used, session.run(x_BCHW), model(torch.from_numpy(x_BCHW)).numpy())
    session.close()


@pytest.mark.parametrize(("format", "net", "engine"), CASES)
def test_self_test_passes(format: str, net: str, engine: str, folder: Path, exported: Exported) -> None:
    artifact, used = exported[format, net], engine_here(engine)
    session = used.open(folder / artifact.path, threads=2)
    if exact(used):
        assert 0 <= self_test(session, artifact, folder) <= artifact.tolerance
    else:  # an artifact of that precision has a tolerance of its own
        wide = 500 * artifact.tolerance
        loose = artifact.model_copy(
            update={
                "tolerance": wide,
                "outputs": tuple(o.model_copy(update={"tolerance": wide}) for o in artifact.outputs),
            }
        )
        assert self_test(session, loose, folder) <= wide
    session.close()


def test_wrong_input_shape_names_file_and_shapes(session: Session) -> None:
    with pytest.raises(DataError, match=r"plain.onnx' takes input of shape \(batch, 3, 8, 8\), got \(1, 3, 9, 8\)"):
        session.run(np.zeros((1, 3, 9, 8), np.float32))
    with pytest.raises(DataError, match=r"got \(3, 8, 8\)"):
        session.run(np.zeros((3, 8, 8), np.float32))


def test_strided_and_double_input_is_accepted(session: Session) -> None:
    x_BCHW = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    strided = np.moveaxis(np.ascontiguousarray(np.moveaxis(x_BCHW, 1, -1)), -1, 1)
    np.testing.assert_array_equal(session.run(strided), session.run(x_BCHW.astype(np.float32)))


def test_closed_session_answers_no_more(session: Session) -> None:
    session.close()
    with pytest.raises(ValueError, match=r"onnx-plain.onnx' is closed"):
        session.run(np.zeros((1, *SHAPE_CHW), np.float32))


@pytest.mark.parametrize("engine", NAMES)
def test_what_cannot_be_opened_is_named(engine: str, tmp_path: Path, folder: Path, exported: Exported) -> None:
    used = engine_here(engine)
    whole = (folder / exported["onnx", "plain"].path).read_bytes()
    for content in (b"", b"junk", whole[: len(whole) // 2]):
        (tmp_path / "broken.onnx").write_bytes(content)
        with pytest.raises(FileError, match=r"cannot open '.*broken.onnx' with"):
            used.open(tmp_path / "broken.onnx")
    with pytest.raises(FileError, match=r"cannot open '.*absent.onnx': there is no such file"):
        used.open(tmp_path / "absent.onnx")
    with pytest.raises(ConfigError, match="with 0 threads: at least 1 is needed"):
        used.open(tmp_path / "broken.onnx", threads=0)


@pytest.mark.parametrize("engine", NAMES)
def test_runtime_has_the_name_it_is_registered_under(engine: str) -> None:
    assert RUNTIMES[engine].name == engine
    assert engine_here(engine).version()[0].isdigit()
    assert runtime(engine) is runtime(RUNTIMES[engine])


def test_unknown_runtime_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown runtime 'onnxruntim'; did you mean 'onnxruntime'"):
        runtime("onnxruntim")
