from pathlib import Path

import pytest
import torch
from torch import nn

from prunit.cut.plans import Plan, keep_all
from prunit.edge.session import Array, Session
from prunit.errors import ConfigError, MissingExtraError, ModelError, UnknownNameError
from prunit.export import export_onnx
from prunit.export import untrained as exporting
from prunit.export.translation import Translation
from prunit.graph import ChannelGraph, trace
from prunit.recipe.stopwatch import Stopwatch
from tests.export.toynets import build, example

MS = 1_000_000


class Engine:
    """Opens any file; the runs take the `ms` of the file's name for each image, over and over, by its own clock."""

    name = "fake"

    def __init__(self, **ms: float | tuple[float, ...]) -> None:
        self.ms = {name.strip("_"): each if isinstance(each, tuple) else (each,) for name, each in ms.items()}
        self.now_ns = 0
        self.open_paths: list[Path] = []
        self.most_open = 0
        self.log: list[tuple[str, int]] = []

    def version(self) -> str:
        return "1"

    def open(self, path: Path, *, threads: int = 1) -> "Running":
        assert path.is_file()
        self.open_paths.append(path)
        self.most_open = max(self.most_open, len(self.open_paths))
        return Running(self, path)

    def install(self, path: Path, into: Path) -> Path:
        raise NotImplementedError

    def open_installed(self, path: Path, *, threads: int = 1) -> Session:
        raise NotImplementedError


class Running:
    def __init__(self, engine: Engine, path: Path) -> None:
        self.engine, self.path, self.runs = engine, path, 0

    def run(self, x_BCHW: Array, /) -> Array:
        ms = self.engine.ms[self.path.stem]
        self.engine.log.append((self.path.stem, len(x_BCHW)))
        self.engine.now_ns += int(ms[self.runs % len(ms)] * len(x_BCHW) * MS)
        self.runs += 1
        return x_BCHW

    def close(self) -> None:
        self.engine.open_paths.remove(self.path)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return build("plain").eval()


@pytest.fixture(scope="module")
def graph(net: nn.Module) -> ChannelGraph:
    return trace(net, example())


@pytest.fixture(scope="module")
def translation(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Translation:
    """The net's, so that the tests do not each translate it."""
    found: list[Translation] = []
    export_onnx(net, example(), tmp_path_factory.mktemp("dense"), name="dense", on_translated=found.append)
    return found[0]


def plan_of(graph: ChannelGraph, width: int) -> Plan:
    return Plan({"0.0": tuple(range(width))}, {g.name: g.size for g in graph.groups})


@pytest.fixture
def plans(graph: ChannelGraph) -> dict[str, Plan]:
    return {"half": plan_of(graph, 18), "quarter": plan_of(graph, 9)}


def test_ratios_are_those_of_the_rounds(
    net: nn.Module, graph: ChannelGraph, translation: Translation, plans: dict[str, Plan]
) -> None:
    # Before the rounds a plan's session runs twice and the dense one once.
    # So the rounds are 10, 20, 30, … beside 5, 5, 30, …: twice, four times and once as fast.
    engine = Engine(dense=(30, 10, 20), _0=(5, 30, 5), _1=32)
    with Stopwatch(
        net, graph, example(), engine=engine, seconds=0.1, translation=translation, clock_ns=lambda: engine.now_ns
    ) as stopwatch:
        found = stopwatch(plans)
    assert list(found) == ["half", "quarter"]
    ((half,), (quarter,)) = found.values()
    assert (half.batch, half.threads, half.n) == (1, 1, 16)  # five times the 0.2 seconds, in rounds of 47, 57, 92 ms
    assert (half.p50_ms, half.p90_ms, half.dense_p50_ms, half.times_faster) == (5, 30, 20, 2)
    assert (quarter.p50_ms, quarter.dense_p50_ms, quarter.times_faster) == (32, 20, 20 / 32)


def test_rounds_go_on_for_the_seconds_of_all_plans_and_for_each_batch(
    net: nn.Module, graph: ChannelGraph, translation: Translation, plans: dict[str, Plan]
) -> None:
    engine = Engine(dense=10, _0=5, _1=5)
    with Stopwatch(
        net,
        graph,
        example(),
        engine=engine,
        batches=(1, 4),
        seconds=3,
        translation=translation,
        clock_ns=lambda: engine.now_ns,
    ) as stopwatch:
        (alone,) = stopwatch({"half": plans["half"]}).values()
        both, _ = stopwatch(plans).values()
    assert [timing.batch for timing in both] == [1, 4]
    assert [timing.n for timing in alone] == [200, 50]  # 3 s in rounds of 15 and of 60 ms
    assert [timing.n for timing in both] == [300, 75]  # 6 s in rounds of 20 and of 80 ms
    assert both[1].p50_ms == 20


def test_a_slow_model_gets_twenty_rounds_but_not_for_ever(
    net: nn.Module, graph: ChannelGraph, translation: Translation, plans: dict[str, Plan]
) -> None:
    for dense_ms, rounds in ((100, 20), (900, 5)):  # 20 rounds of 0.2 s; 5 times the second in rounds of 1 s
        engine = Engine(dense=dense_ms, _0=100)
        with Stopwatch(
            net, graph, example(), engine=engine, translation=translation, clock_ns=lambda engine=engine: engine.now_ns
        ) as stopwatch:
            ((timing,),) = stopwatch({"half": plans["half"]}).values()
        assert timing.n == rounds


def test_what_does_not_fit_the_memory_is_timed_in_parts_each_with_the_dense_model(
    net: nn.Module, graph: ChannelGraph, translation: Translation
) -> None:
    plans = {str(width): plan_of(graph, width) for width in (4, 8, 12, 16, 20)}
    for memory_bytes, most_open, dense_warm_ups in ((1 << 30, 6, 1), (0, 2, 5)):
        engine = Engine(dense=2, **{f"_{i}": 1 for i in range(5)})
        with Stopwatch(
            net,
            graph,
            example(),
            engine=engine,
            seconds=0.001,
            memory_bytes=memory_bytes,
            translation=translation,
            clock_ns=lambda engine=engine: engine.now_ns,
        ) as stopwatch:
            found = stopwatch(plans)
            assert [path.stem for path in engine.open_paths] == ["dense"]
        assert list(found) == list(plans)
        assert all(timing.times_faster == 2 for (timing,) in found.values())
        assert engine.most_open == most_open
        rounds = {timing.n for (timing,) in found.values()}
        assert engine.log.count(("dense", 1)) == dense_warm_ups * (1 + min(rounds))


def test_sessions_and_files_go_at_the_end_and_after_an_error(
    net: nn.Module, graph: ChannelGraph, translation: Translation, plans: dict[str, Plan]
) -> None:
    engine = Engine(dense=1, _0=1)  # it cannot run "1"
    seen: list[Path] = []
    with Stopwatch(
        net, graph, example(), engine=engine, translation=translation, clock_ns=lambda: engine.now_ns
    ) as stopwatch:
        stopwatch({"half": plans["half"]})
        seen += engine.open_paths
        with pytest.raises(ModelError, match="cannot time plan 'quarter': KeyError: '1'"):
            stopwatch(plans)
        assert engine.open_paths == seen  # the dense model's is kept for the next plans
        assert all(path.parent.is_dir() for path in seen)
    assert seen
    assert not engine.open_paths
    assert not any(path.parent.exists() for path in seen)


def test_in_the_real_engine(net: nn.Module, graph: ChannelGraph, plans: dict[str, Plan]) -> None:
    with Stopwatch(net, graph, example(), batches=(1, 3), seconds=0.01) as stopwatch:
        found = stopwatch({**plans, "all": keep_all(graph)})
        assert stopwatch({}) == {}
    assert stopwatch.translated == 0
    for timings in found.values():
        assert [timing.batch for timing in timings] == [1, 3]
        assert all(0 < timing.p50_ms <= timing.p90_ms and timing.times_faster > 0 for timing in timings)
        assert timings[0].n >= 1


def test_a_plan_that_cannot_be_exported_is_named(
    net: nn.Module,
    graph: ChannelGraph,
    translation: Translation,
    plans: dict[str, Plan],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object, **__: object) -> bytes:
        raise ModelError("cannot export Sequential to ONNX: no")

    engine = Engine(dense=1, _0=1)
    with Stopwatch(
        net, graph, example(), engine=engine, translation=translation, clock_ns=lambda: engine.now_ns
    ) as stopwatch:
        stopwatch({"half": plans["half"]})
        monkeypatch.setattr(exporting, "finished", refused)
        with pytest.raises(ModelError, match="cannot time plan 'quarter': cannot export Sequential to ONNX: no"):
            stopwatch({"quarter": plans["quarter"]})


def test_a_missing_engine_is_said_before_anything_is_exported(
    net: nn.Module, graph: ChannelGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(self: Engine) -> str:
        raise MissingExtraError("the runtime 'fake'", "fake", "edge")

    monkeypatch.setattr(Engine, "version", missing)
    with pytest.raises(MissingExtraError, match="the runtime 'fake'"):
        Stopwatch(net, graph, example(), engine=Engine())
    with pytest.raises(UnknownNameError, match="runtime"):
        Stopwatch(net, graph, example(), engine="abacus")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, "on 0 threads"),
        ({"batches": ()}, r"batches \(\)"),
        ({"batches": (1, 0)}, r"batches \(1, 0\)"),
        ({"seconds": 0}, "for 0 seconds"),
        ({"seconds": float("nan")}, "for nan seconds"),
    ],
)
def test_settings_without_sense(net: nn.Module, graph: ChannelGraph, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Stopwatch(net, graph, example(), **settings)  # pyright: ignore[reportArgumentType]


def test_the_model_stays_as_it_was(net: nn.Module, graph: ChannelGraph, plans: dict[str, Plan]) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.train()
    with Stopwatch(net, graph, example(), seconds=0.001) as stopwatch:
        stopwatch(plans)
    assert all(module.training for module in net.modules())
    net.eval()
    after = net.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
