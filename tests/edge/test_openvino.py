"""What is OpenVINO's own: its precision is said, never taken from the CPU, its import tells nobody, its blob is trusted
only as install.py recorded it.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from prunit.edge.install import install, opened, place_for, place_of, read
from prunit.edge.measuring import onnx_writer
from prunit.edge.measuring.probe import peak_memory
from prunit.edge.portfolio import Portfolio
from prunit.edge.runtimes import openvino as module
from prunit.edge.runtimes import precisions_of
from prunit.edge.runtimes.openvino import OpenVino
from prunit.edge.runtimes.peaks import PATIENCE, Peak
from prunit.edge.switching.switch import Switcher
from prunit.errors import DeviceError, FileError
from tests.contracts.engines import engine_here
from tests.edge.folders import FACTORS, SHAPE, X_BCHW, gives, portfolio_in

ENGINE: Final = "openvino"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    engine_here(ENGINE)
    portfolio_in(tmp_path / "portfolio")
    return tmp_path / "portfolio"


def settings_of(session: Any) -> tuple[str, int, int, bool]:
    names = ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS", "NUM_STREAMS", "ENABLE_CPU_PINNING")
    hint, threads, streams, pinned = (session._compiled.get_property(name) for name in names)
    return hint.get_type_name(), threads, streams, pinned


@pytest.mark.parametrize(("engine", "type_name"), [("openvino", "f32"), ("openvino-bf16", "bf16")])
def test_precision_and_threads_are_those_asked_for_in_both_forms(
    engine: str, type_name: str, folder: Path, tmp_path: Path
) -> None:
    used = engine_here(engine)
    form = used.install(folder / "large.onnx", tmp_path)
    for threads in (1, 2):
        for session in (used.open(folder / "large.onnx", threads=threads), used.open_installed(form, threads=threads)):
            assert settings_of(session) == (type_name, threads, 1, False)
            session.close()


def test_a_cpu_without_bf16_is_told_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return ["FP32", "INT8"]

    monkeypatch.setattr(module, "_core", Old)
    runtime = OpenVino("openvino-bf16", "bf16", ("bf16",))
    said = r"'openvino-bf16' computes in BF16, which this CPU cannot \(it has FP32, INT8\); use the runtime 'openvino'"
    for ask in (runtime.version, lambda: runtime.open(folder / "large.onnx")):
        with pytest.raises(DeviceError, match=said):
            ask()
    assert precisions_of(runtime) == ("bf16",)


IMPORT: Final = """
import sys
told = []
def hook(event, arguments):
    written = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if event.startswith(("socket.", "urllib.", "subprocess.", "os.fork")) or written:
        told.append((event, str(arguments)))
sys.addaudithook(hook)
import os, threading
from pathlib import Path
from prunit.edge.runtimes import runtime
session = runtime("openvino").open(Path(sys.argv[1]))
assert "openvino" in sys.modules
print(told, [thread.name for thread in threading.enumerate()])
assert not told and threading.active_count() == 1
"""


def test_importing_it_writes_nothing_and_tells_nobody(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    kept = {"PATH": "", "HOME": str(home), "PYTHONPATH": str(Path(module.__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT, str(folder / "large.onnx")],
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-500:]
    assert list(home.iterdir()) == []


def test_a_portfolio_is_installed_and_switched_in_it(folder: Path) -> None:
    portfolio, place = Portfolio.read(folder), place_of(folder)
    made = install(portfolio, folder, runtime=ENGINE)
    assert made.failed == {}
    assert all(held.model.endswith("model.blob") for held in made.variants.values())
    assert read(place, ENGINE) == made
    assert read(place, "onnxruntime") is None  # of another engine
    with Switcher(folder, runtime=ENGINE) as switcher:
        for name in FACTORS:
            assert gives(switcher.run(X_BCHW, name).output, X_BCHW, name)
        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(lambda name: answered(switcher, name), [*FACTORS, *FACTORS]))
        assert [event for event in switcher.events if event.kind == "note"] == []


def answered(switcher: Switcher, name: str) -> bool:
    return all(gives(switcher.run(i * X_BCHW, name).output, i * X_BCHW, name) for i in range(20))


def test_a_blob_that_is_not_the_recorded_one_never_reaches_the_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    portfolio, place = Portfolio.read(folder), place_of(folder)
    made = install(portfolio, folder, runtime=ENGINE)
    blob = place_for(place, engine_here(ENGINE)) / made.variants["small"].model
    blob.write_bytes(b"x" * blob.stat().st_size)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the engine was given a blob that is not its own")

    monkeypatch.setattr(OpenVino, "open_installed", refuse)
    session, note = opened(portfolio.variant("small"), folder, runtime=ENGINE, place=place, installed=made)
    assert "was changed" in note
    assert gives(session.run(X_BCHW), X_BCHW, "small")


def test_a_model_without_a_node_is_refused(folder: Path) -> None:
    (folder / "empty.onnx").write_bytes(b"")
    with pytest.raises(FileError, match=r"cannot open '.*empty.onnx' with openvino: there is no model in it"):
        engine_here(ENGINE).open(folder / "empty.onnx")


def test_peak_memory_is_measured_in_it(folder: Path) -> None:
    assert 0 < peak_memory(folder / "large.onnx", SHAPE, runtime=ENGINE) < 500e6


def test_memory_goes_back_after_many_batches_that_are_much_smaller() -> None:
    peak = Peak()
    assert not any(peak.over(batch) for batch in [1] * 500 + [32] * 500 + [9] * 500)
    assert [peak.over(8) for _ in range(PATIENCE)] == [False] * (PATIENCE - 1) + [True]
    # From now on 8 is the peak, and a large one in between counts from the start.
    assert not any(peak.over(8) for _ in range(500))
    assert not any(peak.over(2) for _ in range(PATIENCE - 1))
    assert not peak.over(32)
    assert not any(peak.over(2) for _ in range(PATIENCE - 1))
    assert peak.over(2)


def test_a_fixed_batch_is_taken_too(tmp_path: Path) -> None:
    node = onnx_writer.node("Relu", ["x"], "y")
    (tmp_path / "two.onnx").write_bytes(onnx_writer.model([node], [], ("x", (2, 3, 4, 4)), "y"))
    session = engine_here(ENGINE).open(tmp_path / "two.onnx")
    x_BCHW = np.ones((2, 3, 4, 4), np.float32)
    np.testing.assert_array_equal(session.run(-x_BCHW), 0 * x_BCHW)
