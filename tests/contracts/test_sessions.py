"""What every session of every engine does: keeps answers apart, and its own from the next run's; gives memory back."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from prunit.edge.portfolio import Artifact
from prunit.edge.runtimes import RUNTIMES
from prunit.edge.session import Array, outputs_of
from prunit.errors import FileError, MissingExtraError
from prunit.export.onnx import export_onnx
from tests.contracts.engines import NAMES, assert_near, engine_here
from tests.export.test_several_outputs import Returning
from tests.export.toynets import SHAPE_CHW, build, example

PACKAGES: Final = {
    "onnxruntime": ("onnxruntime", "edge"),
    "openvino": ("openvino", "openvino"),
    "openvino-bf16": ("openvino", "openvino"),
    "reference": ("onnx", "train"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def one(folder: Path) -> Artifact:
    return export_onnx(build("residual"), example(), folder, name="one")


@pytest.fixture(scope="module")
def two(folder: Path) -> Artifact:
    return export_onnx(Returning(lambda y, z: (y, z)).eval(), example(), folder, name="two")


def images(batch: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((batch, *SHAPE_CHW), dtype=np.float32)


@pytest.mark.parametrize("engine", NAMES)
def test_outputs_stay_what_they_are_when_the_next_batch_comes(engine: str, folder: Path, two: Artifact) -> None:
    session = engine_here(engine).open(folder / two.path)
    x_BCHW = images(3)
    first, alone = outputs_of(session, x_BCHW), session.run(x_BCHW)
    kept = [each.copy() for each in (*first, alone)]
    for seed in range(1, 4):
        outputs_of(session, images(3, seed))
        session.run(10 * images(3, seed))
    for found, before in zip((*first, alone), kept, strict=True):
        np.testing.assert_array_equal(found, before)
        found[:] = 0  # the caller's own
    np.testing.assert_array_equal(session.run(x_BCHW), kept[0])
    np.testing.assert_array_equal(x_BCHW, images(3))
    session.close()
    assert [each.shape for each in first] == [(3, 4, 6, 6), (3, 4)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engine", NAMES)
def test_threads_that_call_at_once_get_their_own_answers(
    engine: str, threads: int, folder: Path, one: Artifact
) -> None:
    session = engine_here(engine).open(folder / one.path, threads=threads)
    inputs = [images(1 + i % 4, seed=i) for i in range(8)]
    wanted = [session.run(x_BCHW) for x_BCHW in inputs]

    def answers(i: int) -> list[Array]:
        return [session.run(inputs[i]) for _ in range(3 if engine == "reference" else 50)]

    with ThreadPoolExecutor(8) as pool:
        for i, found in enumerate(pool.map(answers, range(8))):
            for each in found:
                np.testing.assert_allclose(each, wanted[i], rtol=1e-5, atol=1e-6)
    session.close()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engine", NAMES)
def test_the_installed_form_answers_as_the_file_does(
    engine: str, threads: int, folder: Path, two: Artifact, tmp_path: Path
) -> None:
    used = engine_here(engine)
    form = used.install(folder / two.path, tmp_path)
    assert form.parent == tmp_path
    plain, installed = used.open(folder / two.path), used.open_installed(form, threads=threads)
    for batch in (1, 5, 1, 32):
        for found, wanted in zip(outputs_of(installed, images(batch)), outputs_of(plain, images(batch)), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    plain.close()
    installed.close()
    with pytest.raises(ValueError, match="is closed"):
        installed.run(images(1))


@pytest.mark.parametrize("engine", NAMES)
def test_an_input_that_must_not_be_written_is_taken(engine: str, folder: Path, one: Artifact) -> None:
    session = engine_here(engine).open(folder / one.path)
    x_BCHW = images(2)
    x_BCHW.flags.writeable = False
    np.testing.assert_array_equal(session.run(x_BCHW), session.run(images(2)))
    session.close()


@pytest.mark.parametrize("engine", NAMES)
def test_an_engine_that_is_not_installed_is_named_with_the_command(
    engine: str, folder: Path, one: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, extra = PACKAGES[engine]
    monkeypatch.setitem(sys.modules, package, None)
    missing = rf"needs the package '{package}': pip install 'prunit\[{extra}\]'"
    with pytest.raises(MissingExtraError, match=missing):
        RUNTIMES[engine].version()
    with pytest.raises(MissingExtraError, match=missing):
        RUNTIMES[engine].open(folder / one.path)


@pytest.mark.parametrize("engine", NAMES)
def test_an_operator_that_the_engine_lacks_is_named_in_one_line(engine: str, tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("NoSuchThing", ["x"], ["y"])], "one", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "odd.onnx")
    used = engine_here(engine)
    with pytest.raises(FileError, match=r"cannot open '.*odd.onnx' with .*NoSuchThing") as caught:
        used.open(tmp_path / "odd.onnx")
    assert "\n" not in str(caught.value)
    if engine != "reference":  # it has nothing to do but to copy
        with pytest.raises(FileError, match=r"cannot install '.*odd.onnx' with .*NoSuchThing"):
            used.install(tmp_path / "odd.onnx", tmp_path)


MEMORY: Final = """
import json, sys
from pathlib import Path
import numpy as np
from prunit.edge.runtimes import runtime

def held():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

session = runtime(sys.argv[1]).open(Path(sys.argv[2]))
one, many = (np.ones((batch, 3, 64, 64), np.float32) for batch in (1, 64))
session.run(one)
figures = [held()]
session.run(many)
session.run(one)
figures.append(held())
for _ in range(100):
    session.run(one)
figures.append(held())
print(json.dumps(figures))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what the process holds from /proc")
@pytest.mark.parametrize("engine", [name for name in NAMES if name != "reference"])
def test_the_memory_of_a_large_batch_goes_back_after_many_small_ones(engine: str, tmp_path: Path) -> None:
    engine_here(engine)
    save_convolutions(tmp_path / "wide.onnx")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, engine, str(tmp_path / "wide.onnx")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
    before, peak, after = json.loads(done.stdout)
    assert peak - before > 64 * 1024, "the batch took no memory that could go back"
    assert after - before < 0.35 * (peak - before)


def save_convolutions(path: Path) -> None:
    """Three convolutions of 64 channels on 64x64 positions: 1 MiB for each image and layer, and few weights."""
    nodes: list[Any] = []
    weights: list[Any] = []
    name = "input"
    for i, channels in enumerate((3, 64, 64)):
        w_OI11 = np.full((64, channels, 1, 1), 0.01, np.float32)
        weights.append(onnx.numpy_helper.from_array(w_OI11, f"w{i}"))
        nodes += [
            helper.make_node("Conv", [name, f"w{i}"], [f"c{i}"]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
        ]
        name = f"r{i}"
    nodes.append(helper.make_node("GlobalAveragePool", [name], ["output"]))
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 64, 64])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 64, 1, 1])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def test_engines_of_less_precision_still_tell_classes_apart(folder: Path, one: Artifact) -> None:
    used, exact = engine_here("openvino-bf16"), engine_here("onnxruntime")
    x_BCHW = images(32)
    assert_near(used, used.open(folder / one.path).run(x_BCHW), exact.open(folder / one.path).run(x_BCHW))
