"""`--target`, budgets of parts and .tflite files on the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunit.cli.options import Options, config_of
from prunit.errors import ConfigError
from prunit.mcu.flatbuffer import flatbuffer_of
from tests.cli.running import prunit
from tests.mcu.drawn import residual

NPU = "ethos-u55-128"


@pytest.fixture(autouse=True)
def _own_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNIT_CACHE", str(tmp_path / "tables"))


def asked(*texts: str) -> tuple[str, ...]:
    nothing: list[Any] = [None] * 10
    return config_of(Options(*nothing, targets=list(texts)), None, None).parts.targets


def test_targets_with_commas_or_one_by_one() -> None:
    assert asked("tflm,ethos-u55-128", "ethos-u65-256") == ("tflm", NPU, "ethos-u65-256")
    assert asked() == ()
    with pytest.raises(ConfigError, match="unknown part 'esp32'"):
        asked("esp32")


def test_a_plan_shows_where_cycles_go(tmp_path: Path) -> None:
    pytest.importorskip("ethosu.vela")
    pytest.importorskip("tflite_micro")
    net = tmp_path / "net.py"
    net.write_text("from tests.recipe.nets import residual\ndef make(**_):\n    return residual(((16, 1), (32, 1)))\n")
    command = ("plan", f"{net}:make", "--input", "1x8x8", "--budget", f"cycles=15k@{NPU}", "--target", "tflm")
    given = (*command, "--out", tmp_path / "plan.json", "--set", "prune.rounds=6")
    found = prunit(*given)
    assert found.code == 0, found.err
    assert f"cycles on {NPU}: " in found.out
    assert f"on {NPU}" in found.out
    assert "stages.0.0.residual.0.0" in found.out
    assert "tflm (tflite-micro; untrained weights): arena " in found.out
    told = json.loads(prunit(*given, "--json").out)
    assert [part["part"] for part in told["parts"]] == [NPU, "tflm"]
    assert told["parts"][0]["figures"]["cycles"] <= 15_000
    assert told["parts"][0]["figures"]["cycles"] == told["predicted"]["cycles"]["compact"]


def test_a_flatbuffer_is_explained(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    file = tmp_path / "net.tflite"
    file.write_bytes(flatbuffer_of(residual()))
    found = prunit("inspect", file)
    assert found.code == 0, found.err
    assert "int8 1×12×12×3, real = 0.05 · (q − 0)" in found.out
    assert "CONV_2D 3, " in found.out
    assert "no portfolio in its folder" in found.out
    facts = json.loads(prunit("inspect", file, "--json").out)
    assert facts["operators"] == {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 1, "ADD": 1}


def test_constants_behind_a_flatbuffer_are_warned_of(tmp_path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(flatbuffer_of(residual()), 0)
    held = next(buffer for buffer in model.buffers if buffer.data is not None)
    held.data, held.offset, held.size = None, 4096, 27
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    file = tmp_path / "net.tflite"
    file.write_bytes(bytes(builder.Output()) + bytes(np.zeros(8192, np.uint8)))
    found = prunit("inspect", file)
    assert "TensorFlow Lite Micro does not look behind the flatbuffer" in found.out


def test_a_plan_of_an_arena_is_told_and_one_of_other_tensors_warned_of(tmp_path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    import flatbuffers

    network = residual()
    (tmp_path / "net.tflite").write_bytes(flatbuffer_of(network, offsets=dict.fromkeys(network.inputs, 0)))
    found = json.loads(prunit("inspect", tmp_path / "net.tflite", "--json").out)
    assert "says where tensors lie" in found["arena"]
    assert "beware" not in found
    model = schema.ModelT.InitFromPackedBuf((tmp_path / "net.tflite").read_bytes(), 0)
    model.subgraphs[0].tensors.append(schema.TensorT())
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "net.tflite").write_bytes(bytes(builder.Output()))
    assert "is of other tensors" in prunit("inspect", tmp_path / "net.tflite").out


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"hello, I am text", "is not a TensorFlow Lite file"), (b"\x1c\0\0\0TFL3" + bytes(8), "cut short or damaged")],
)
def test_what_is_no_flatbuffer_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "net.tflite").write_bytes(content)
    found = prunit("inspect", tmp_path / "net.tflite")
    assert found.code == 2
    assert message in found.complaint


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("cycles=1M@ethos-u55-129", "unknown part 'ethos-u55-129'; did you mean 'ethos-u55-128'"),
        ("cycles=1M", "needs a part: write cycles=1M@ethos-u55-32"),
        ("arena=64KB@ethos-u55-128", "of 'ethos-u55-128' there is no arena"),
    ],
)
def test_budgets_of_parts_that_make_no_sense(tmp_path: Path, budget: str, message: str) -> None:
    found = prunit("plan", "resnet20", "--budget", budget, "--out", tmp_path / "plan.json")
    assert found.code == 2
    assert message in found.complaint
    assert not (tmp_path / "plan.json").exists()
