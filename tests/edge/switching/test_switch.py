"""The switcher: nothing is lost, the right variant answers, and what goes wrong leaves the last good one serving."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunit.edge import install as installing
from prunit.edge.install import place_of
from prunit.edge.portfolio import Portfolio
from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, Session
from prunit.edge.switching.events import LOG, Event, log_event, read_events
from prunit.edge.switching.switch import Switcher
from prunit.errors import ConfigError, DataError, DeviceError, PortfolioError, UnknownNameError
from tests.edge.folders import FACTORS, SHAPE, X_BCHW, gives, portfolio_in, variant_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    portfolio_in(tmp_path / "portfolio")
    return tmp_path / "portfolio"


def until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


class Wrapped:
    """ONNX Runtime, whose sessions of chosen files do something else; none is opened while `gate` is closed."""

    name = "onnxruntime"

    def __init__(self, act: Callable[[str, Session, Array], Array] | None = None) -> None:
        self.inner, self.act, self.gate = runtime(), act, threading.Event()
        self.gate.set()
        self.closed: list[str] = []
        self.opened: list[str] = []

    def version(self) -> str:
        return self.inner.version()

    def open(self, path: Path, *, threads: int = 1) -> Session:
        return self._wrap(path.stem, self.inner.open(path, threads=threads))

    def install(self, path: Path, into: Path) -> Path:
        return self.inner.install(path, into)

    def open_installed(self, path: Path, *, threads: int = 1) -> Session:
        return self._wrap(path.parent.name.rpartition("-")[0], self.inner.open_installed(path, threads=threads))

    def _wrap(self, name: str, session: Session) -> Session:
        runtime = self
        assert self.gate.wait(10)
        self.opened.append(name)

        class Own:
            closed = False

            def run(self, x_BCHW: Array, /) -> Array:
                assert not self.closed
                return runtime.act(name, session, x_BCHW) if runtime.act else session.run(x_BCHW)

            def close(self) -> None:
                assert not self.closed
                self.closed = True
                runtime.closed.append(name)
                session.close()

        return Own()


# ── switching ──


def test_it_starts_with_the_most_accurate_variant_and_switches(folder: Path) -> None:
    with Switcher(folder) as switcher:
        assert switcher.active == "large"
        for name in ("small", "middle", "large", "small"):
            wish = switcher.switch(name)
            assert wish.wait(5)
            assert wish.error is None
            assert switcher.active == name
            answer = switcher.run(X_BCHW)
            assert answer.variant == name
            assert gives(answer.output, X_BCHW, name)
        kinds = [event.kind for event in switcher.events]
        assert kinds.count("switched") == 4
        assert kinds.count("loaded") == 2
    with Switcher(folder, start="small") as switcher:
        assert switcher.active == "small"
    with pytest.raises(DeviceError, match="closed"):
        switcher.run(X_BCHW)


def test_a_thousand_switches_under_load_lose_nothing(folder: Path) -> None:
    names = list(FACTORS)
    answers: list[list[tuple[int, bool]]] = [[] for _ in range(3)]
    stop = threading.Event()
    with Switcher(folder, resident=2) as switcher:

        def ask(mine: list[tuple[int, bool]], seed: int) -> None:
            rng = np.random.default_rng(seed)
            while not stop.is_set():
                x_BCHW = rng.standard_normal((1, *SHAPE), dtype=np.float32)
                answer = switcher.run(x_BCHW)
                mine.append((len(mine), gives(answer.output, x_BCHW, answer.variant)))

        threads = [threading.Thread(target=ask, args=(mine, i)) for i, mine in enumerate(answers)]
        for thread in threads:
            thread.start()
        wishes = []
        for i in range(1000):
            wishes.append(switcher.switch(names[i % 3]))
            if i % 10 == 0:
                assert wishes[-1].wait(10)
        assert all(wish.wait(10) for wish in wishes)
        stop.set()
        for thread in threads:
            thread.join()
        assert len(switcher.residents) <= 3
        assert switcher.failed == {}
    for mine in answers:
        assert [i for i, _ in mine] == list(range(len(mine)))
        assert mine
        assert all(right for _, right in mine)


def test_requests_end_on_the_variant_that_they_began_on(folder: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def act(name: str, session: Session, x_BCHW: Array) -> Array:
        if name == "large" and x_BCHW.shape[0] == 3:
            begun.set()
            assert go_on.wait(5)
        return session.run(x_BCHW)

    engine = Wrapped(act)
    found: list[Any] = []
    with Switcher(folder, runtime=engine, resident=1) as switcher:
        thread = threading.Thread(target=lambda: found.append(switcher.run(np.ones((3, *SHAPE), np.float32))))
        thread.start()
        assert begun.wait(5)
        assert switcher.switch("small").wait(5)
        assert switcher.run(X_BCHW).variant == "small"
        time.sleep(0.1)
        assert "large" not in engine.closed  # it still answers
        go_on.set()
        thread.join()
        assert found[0].variant == "large"
        assert until(lambda: engine.closed.count("large") == 1)


def test_while_the_next_one_is_opened_requests_go_on(folder: Path) -> None:
    engine = Wrapped()
    with Switcher(folder, runtime=engine, start="large") as switcher:
        engine.gate.clear()
        wish = switcher.switch("small")
        assert switcher.run(X_BCHW).variant == "large"
        assert not wish.wait(0.3)
        engine.gate.set()
        assert wish.wait(5)
        assert switcher.active == "small"
        assert wish.ms >= 300


def test_the_last_wish_counts(folder: Path) -> None:
    engine = Wrapped()
    with Switcher(folder, runtime=engine, start="large") as switcher:
        engine.gate.clear()
        first, second, third = switcher.switch("middle"), switcher.switch("small"), switcher.switch("large")
        engine.gate.set()
        assert all(wish.wait(5) for wish in (first, second, third))
        assert third.error is None
        assert "asked for before this one was over" in str(first.error)
        assert "asked for before this one was over" in str(second.error)
        assert switcher.active == "large"


@pytest.mark.parametrize("limits", [{"resident": 2}, {"memory_bytes": 5_500_000}])
def test_the_longest_unused_variants_are_closed(folder: Path, limits: dict[str, int]) -> None:
    engine = Wrapped()
    with Switcher(folder, runtime=engine, start="large", **limits) as switcher:
        assert switcher.switch("small").wait(5)
        assert switcher.residents == ("large", "small")
        assert switcher.switch("middle").wait(5)
        assert until(lambda: switcher.residents == ("small", "middle"))
        assert until(lambda: engine.closed[-1:] == ["large"])
        switcher.preload()  # as far as the limits allow: there is no room for more
        assert switcher.residents == ("small", "middle")
    assert sorted(engine.closed) == sorted(engine.opened)


def test_with_all_open_a_switch_opens_nothing(folder: Path) -> None:
    engine = Wrapped()
    with Switcher(folder, runtime=engine) as switcher:
        switcher.preload()
        before = len(engine.opened)
        for name in FACTORS:
            wish = switcher.switch(name)
            assert wish.wait(0)  # it was over at once
        assert len(engine.opened) == before


def test_wrong_settings(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="resident=0"):
        Switcher(folder, resident=0)
    with pytest.raises(UnknownNameError, match="did you mean 'large'"):
        Switcher(folder, start="larg")
    with pytest.raises(PortfolioError, match="is no portfolio"):
        Switcher(tmp_path)
    portfolio_in(tmp_path / "none", {})
    with pytest.raises(ConfigError, match="has no variant"):
        Switcher(tmp_path / "none")
    with Switcher(folder) as switcher, pytest.raises(UnknownNameError, match="unknown variant 'tiny'"):
        switcher.switch("tiny")


# ── what goes wrong ──


def test_a_variant_that_fails_on_a_request_is_put_aside_and_another_answers(folder: Path) -> None:
    def act(name: str, session: Session, x_BCHW: Array) -> Array:
        if name == "large" and x_BCHW.shape[0] == 1 and x_BCHW.any():
            raise RuntimeError("out of registers")
        return session.run(x_BCHW)

    with Switcher(folder, runtime=Wrapped(act)) as switcher:
        answer = switcher.run(X_BCHW)
        assert answer.variant == "middle"
        assert gives(answer.output, X_BCHW, "middle")
        assert switcher.active == "middle"
        assert "failed on a request: RuntimeError: out of registers" in switcher.failed["large"]
        wish = switcher.switch("large")
        assert wish.wait(1)
        assert "put aside" in str(wish.error)
        assert switcher.active == "middle"
        assert [e.variant for e in switcher.events if e.kind == "failed"] == ["large"]
        switcher.retry("large")
        assert switcher.failed == {}


def test_a_batch_that_nobody_can_answer_is_the_batch_s_fault(folder: Path) -> None:
    def act(name: str, session: Session, x_BCHW: Array) -> Array:
        if x_BCHW.shape[0] == 5:
            raise RuntimeError("no")
        return session.run(x_BCHW)

    with Switcher(folder, runtime=Wrapped(act)) as switcher:
        with pytest.raises(DeviceError, match=r"no variant answers this batch of shape \(5, 3, 4, 4\)"):
            switcher.run(np.zeros((5, *SHAPE), np.float32))
        assert switcher.failed == {}
        with pytest.raises(DataError, match="takes input of shape"):
            switcher.run(np.zeros((1, 1, 4, 4), np.float32))
        assert switcher.run(X_BCHW).variant == "large"


@pytest.mark.parametrize("harm", ["missing", "cut", "altered", "no self-test", "other output"])
@pytest.mark.parametrize("installed", [True, False])
def test_a_damaged_variant_leaves_the_last_good_one(folder: Path, harm: str, installed: bool) -> None:
    file = folder / "small.onnx"
    with Switcher(folder, installed=installed) as switcher:
        if harm == "missing":
            file.unlink()
        elif harm == "cut":
            file.write_bytes(file.read_bytes()[:-100])
        elif harm == "altered":
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
        elif harm == "no self-test":
            (folder / "small.npz").unlink()
        else:
            np.savez(folder / "small.npz", input=X_BCHW, expected=X_BCHW * 7)
        if installed and harm in ("missing", "cut", "altered"):
            shutil.rmtree(folder / installing.FOLDER)  # else the installed form would still serve
        wish = switcher.switch("small")
        assert wish.wait(5)
        assert wish.error is not None
        assert switcher.active == "large"
        assert switcher.run(X_BCHW).variant == "large"
        assert "small" in switcher.failed
        assert switcher.switch("small").wait(1)
        assert [e.variant for e in switcher.events if e.kind == "failed"] == ["small"]  # told once
    assert [e.variant for e in read_events(place_of(folder) / LOG) if e.kind == "failed"] == ["small"]


def test_no_memory_while_a_variant_is_opened(folder: Path) -> None:
    engine = Wrapped()
    with Switcher(folder, runtime=engine) as switcher:

        def full(*_: object, **__: object) -> Session:
            raise MemoryError

        engine.open = engine.open_installed = full  # type: ignore[method-assign]
        wish = switcher.switch("small")
        assert wish.wait(5)
        assert "no memory to open 'small'" in str(wish.error)
        assert switcher.run(X_BCHW).variant == "large"


def test_a_variant_of_another_input_shape_is_put_aside(folder: Path) -> None:
    found = Portfolio.read(folder)
    odd = variant_in(folder, "odd", 1.0, shape=(3, 5, 5))
    found.model_copy(update={"variants": (*found.variants, odd)}).write(folder)
    with Switcher(folder) as switcher:
        assert "it takes images of shape (3, 5, 5)" in switcher.failed["odd"]
        assert switcher.active == "large"


def test_where_the_first_variant_is_damaged_the_next_one_begins(folder: Path) -> None:
    for name in ("large", "middle"):
        (folder / f"{name}.npz").unlink()
    with Switcher(folder) as switcher:
        assert switcher.active == "small"
        assert set(switcher.failed) == {"large", "middle"}
    (folder / "small.npz").unlink()
    with pytest.raises(PortfolioError, match="self-test"):
        Switcher(folder)


def test_a_portfolio_of_a_newer_prunit_is_refused(folder: Path) -> None:
    manifest = folder / "portfolio.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": 9}))
    with pytest.raises(PortfolioError, match="'version' is 9"):
        Switcher(folder)


def test_the_log_of_events_stays_short(tmp_path: Path) -> None:
    log = tmp_path / "here" / LOG
    for i in range(3000):
        log_event(log, Event(float(i), "failed", "small", "x" * 200))
    assert log.stat().st_size < 300_000
    assert read_events(log)[-1].at == 2999
    with log.open("a") as file:
        file.write("no event\n{}\n")
    assert read_events(log)[-1].at == 2999
    assert read_events(tmp_path / "none") == []
