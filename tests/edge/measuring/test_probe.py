from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from prunit.edge.measuring import probe as probing
from prunit.edge.measuring.probe import ProbeSettings, device, peak_memory, probe
from prunit.edge.session import Array
from prunit.errors import ConfigError, DeviceError, UnknownNameError

MS = 1_000_000


class Clock:
    """Time that passes only when a session runs."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class Scripted:
    """A session whose runs take the given ms one after the other, over and over; it notes who ran with what batch."""

    def __init__(self, name: str, clock: Clock, log: list[tuple[str, int]], *times_ms: float) -> None:
        self.name, self.clock, self.log, self.times_ms = name, clock, log, times_ms
        self.runs = 0

    def run(self, x_BCHW: Array, /) -> Array:
        self.clock.now_ns += int(self.times_ms[self.runs % len(self.times_ms)] * MS)
        self.runs += 1
        self.log.append((self.name, len(x_BCHW)))
        return x_BCHW

    def close(self) -> None:
        return None


def test_percentiles_by_hand_without_warm_up() -> None:
    clock = Clock()
    # The warm-up takes the 1000 ms; the runs that count take 1 to 101 ms.
    session = Scripted("a", clock, [], 1000, *range(1, 102))
    settings = ProbeSettings(batches=(1,), threads=2, min_runs=101, max_runs=101, limit_seconds=100, warm_up=1)
    (latency,) = probe({"a": session}, {"a": (1, 2, 2)}, settings, clock_ns=clock)["a"]
    assert (latency.batch, latency.threads, latency.n) == (1, 2, 101)
    assert (latency.p50_ms, latency.p90_ms, latency.p99_ms) == (51, 91, 100)


def test_sessions_take_turns_in_a_changing_order() -> None:
    clock, log = Clock(), list[tuple[str, int]]()
    sessions = {name: Scripted(name, clock, log, 1) for name in "abc"}
    settings = ProbeSettings(batches=(1, 8), min_runs=20, seconds=0, warm_up=0)
    found = probe(sessions, dict.fromkeys("abc", (3, 4, 4)), settings, clock_ns=clock)
    assert [latency.n for latency in found["b"]] == [20, 4]
    rounds = [log[i : i + 3] for i in range(0, len(log), 3)]
    assert all(sorted(name for name, _ in turn) == ["a", "b", "c"] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 2
    assert [turn[0][1] for turn in rounds] == [1] * 20 + [8] * 4


@pytest.mark.parametrize(
    ("run_ms", "runs"),
    [
        (100, 50),  # past `seconds`, until min_runs
        (1000, 30),  # the limit comes before min_runs
        (31_000, 1),  # one round in any case
        (20, 100),  # `seconds` is reached after min_runs
        (0.5, 1000),  # max_runs
    ],
)
def test_number_of_runs_follows_from_time(run_ms: float, runs: int) -> None:
    clock = Clock()
    session = Scripted("a", clock, [], run_ms)
    (latency,) = probe({"a": session}, {"a": (1, 1, 1)}, ProbeSettings(batches=(1,)), clock_ns=clock)["a"]
    assert latency.n == runs


def test_progress_ends_at_the_total_and_never_goes_back() -> None:
    clock, calls = Clock(), list[tuple[int, int]]()
    sessions = {name: Scripted(name, clock, [], 7) for name in "ab"}
    probe(
        sessions,
        dict.fromkeys("ab", (1, 1, 1)),
        ProbeSettings(),
        on_run=lambda done, total: calls.append((done, total)),
        clock_ns=clock,
    )
    done = [done for done, _ in calls]
    assert done == sorted(set(done))
    assert all(done <= total for done, total in calls)
    assert calls[-1][0] == calls[-1][1]
    assert calls[0][1] == 2 * (142 + 10)  # 2 s of rounds of 14 ms, and the fewest of the second batch size


def test_collection_is_on_again_after_an_error() -> None:
    class Failing(Scripted):
        def run(self, x_BCHW: Array, /) -> Array:
            assert not probing.gc.isenabled()
            raise MemoryError("too large")

    with pytest.raises(MemoryError, match="too large"):
        probe({"a": Failing("a", Clock(), [])}, {"a": (1, 1, 1)})
    assert probing.gc.isenabled()


def test_no_sessions_and_a_missing_shape() -> None:
    assert probe({}, {}) == {}
    with pytest.raises(ConfigError, match=r"cannot probe 'a': no input shape was given for it, only for \['b'\]"):
        probe({"a": Scripted("a", Clock(), [], 1)}, {"b": (1, 1, 1)})


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution with 64 MiB of float32 weights, on images of one pixel."""
    channels = 4096
    weights = np.zeros((channels, channels, 1, 1), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w"], ["logits"])],
        "conv",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", channels, 1, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", channels, 1, 1])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path_factory.mktemp("model") / "conv.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_peak_memory_holds_the_weights(model_file: Path) -> None:
    # The file's bytes, its parsed form and the engine's own layout: several times the weights, never less.
    assert 64 << 20 <= peak_memory(model_file, (4096, 1, 1)) <= 64 * 6 << 20


def test_peak_memory_of_this_process_can_be_taken(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wish = f'{{"path": "{model_file}", "shape": [4096, 1, 1], "runtime": "onnxruntime", "threads": 1, "batch": 2}}'
    assert probing._child(wish) == 0
    assert int(capsys.readouterr().out) >= 0


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"memory of '.*no.onnx' in a process of its own: .*there is no such file"):
        peak_memory(tmp_path / "no.onnx", (1, 1, 1))


def test_device_is_described() -> None:
    found = device()
    assert found.name
    assert found.cores >= 1
    assert found.engine == "onnxruntime"
    assert found.engine_version[0].isdigit()
    with pytest.raises(UnknownNameError, match="unknown runtime 'onnx'"):
        device("onnx")
