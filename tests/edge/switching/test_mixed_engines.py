"""A switcher whose variants run in several engines: nothing is lost, and what one does wrong costs that engine."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from prunit.edge.install import RECORD, install, place_of, read
from prunit.edge.portfolio import Portfolio
from prunit.edge.session import Array, Session
from prunit.edge.switching.events import Event
from prunit.edge.switching.reload import ReloadingSwitcher
from prunit.edge.switching.switch import Switcher
from prunit.errors import DeviceError, PortfolioError
from tests.edge.engines import Other, add, routes_in
from tests.edge.folders import FACTORS, SHAPE, X_BCHW, gives, portfolio_in, variant_in

ROUTES = {"large": "other", "middle": "onnxruntime", "small": "third"}


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> tuple[Other, Other]:
    found = Other("other"), Other("third")
    add(monkeypatch, *found)
    return found


@pytest.fixture
def folder(tmp_path: Path, engines: tuple[Other, Other]) -> Path:
    portfolio_in(tmp_path / "portfolio")
    routes_in(tmp_path / "portfolio", ROUTES)
    return tmp_path / "portfolio"


def of_kind(switcher: Switcher, kind: str) -> list[Event]:
    return [event for event in switcher.events if event.kind == kind]


def failing(when: Callable[[Array], bool]) -> Callable[[Session, Array], Array]:
    def act(session: Session, x_BCHW: Array) -> Array:
        if when(x_BCHW):
            raise RuntimeError("out of registers")
        return session.run(x_BCHW)

    return act


def is_request(x_BCHW: Array) -> bool:
    """Neither the warm-up, which is zeros, nor the self-test, which has two images."""
    return len(x_BCHW) == 1 and bool(x_BCHW.any())


# ── as it should be ──


def test_each_variant_answers_in_the_engine_of_its_route(folder: Path) -> None:
    with Switcher(folder) as switcher:
        for name in ("small", "middle", "large", "small"):
            wish = switcher.switch(name)
            assert wish.wait(5)
            answer = switcher.run(X_BCHW)
            assert (answer.variant, answer.engine) == (name, ROUTES[name])
            assert gives(answer.output, X_BCHW, name)
            assert switcher.engine(switcher.portfolio.variant(name)) == ROUTES[name]
        # What a policy counts with was measured in these engines.
        assert [v.metrics.latency_ms() for v in switcher.portfolio.variants] == [0.5, 1.0, 0.5]
        assert switcher.failed == {}
        assert {event.variant: event.engine for event in of_kind(switcher, "switched")} == ROUTES
        assert {event.variant: event.engine for event in of_kind(switcher, "loaded")} == {
            "small": "third",
            "middle": "onnxruntime",
        }
        assert of_kind(switcher, "note") == []
    place = place_of(folder)
    assert sorted(path.name for path in place.iterdir() if path.is_dir() and "-" not in path.name) == ["other", "third"]


def test_another_engine_for_all_but_those_of_one_engine(folder: Path, engines: tuple[Other, Other]) -> None:
    portfolio = Portfolio.read(folder)
    own = portfolio.variant("small").model_copy(update={"engine": "third"})
    portfolio.adding(own).write(folder)
    for runtime, expected in (("onnxruntime", "onnxruntime"), ("other", "other"), (engines[0], "other")):
        with Switcher(folder, runtime=runtime) as switcher:
            found = {v.name: switcher.engine(v) for v in switcher.portfolio.variants}
            assert found == {"large": expected, "middle": expected, "small": "third"}
            assert switcher.run(X_BCHW, "small").engine == "third"
            assert switcher.run(X_BCHW).engine == expected
    with Switcher(folder, runtime="auto") as switcher:
        assert switcher.run(X_BCHW).engine == "other"


def test_what_is_installed_for_one_engine_outlives_the_others(folder: Path, engines: tuple[Other, Other]) -> None:
    portfolio, place = Portfolio.read(folder), place_of(folder)
    old = install(portfolio, folder)  # as a prunit that knows no routes leaves it
    with Switcher(folder) as switcher:
        assert read(place) == old
    assert set(getattr(read(place, "other"), "variants", {})) == {"large"}
    assert set(getattr(read(place, "third"), "variants", {})) == {"small"}
    assert (place / "other" / RECORD).exists()
    made = list(engines[0].installed)
    with Switcher(folder) as switcher:
        assert switcher.switch("middle").wait(5)
    assert engines[0].installed == made
    # Of another file, the new form takes the place of the old one in its engine, and nowhere else.
    portfolio.adding(variant_in(folder, "large", 3.0)).write(folder)
    routes_in(folder, ROUTES)
    with Switcher(folder) as switcher:
        assert np.allclose(switcher.run(X_BCHW).output, 3 * X_BCHW, atol=1e-4)
    assert len([path for path in (place / "other").iterdir() if path.is_dir()]) == 1
    assert len([path for path in place.iterdir() if path.name.startswith("large-")]) == 0
    assert len([path for path in place.iterdir() if path.name.startswith(("small-", "middle-"))]) == 2


# ── what goes wrong ──


def test_an_engine_that_is_gone(folder: Path, engines: tuple[Other, Other]) -> None:
    engines[0].gone = True
    with Switcher(folder) as switcher:
        assert (switcher.active, switcher.run(X_BCHW).engine) == ("large", "onnxruntime")
        (note,) = of_kind(switcher, "note")
        assert "what was to run in other goes on in onnxruntime" in note.why
        assert switcher.portfolio.variant("large").metrics.latency_ms() == 1.0  # of the default engine, in the same run


@pytest.mark.parametrize("installed", [True, False])
def test_an_engine_that_cannot_open_a_variant(folder: Path, engines: tuple[Other, Other], installed: bool) -> None:
    engines[0].refuses = {"large"}
    with Switcher(folder, installed=installed) as switcher:
        answer = switcher.run(X_BCHW)
        assert (answer.variant, answer.engine) == ("large", "onnxruntime")
        assert gives(answer.output, X_BCHW, "large")
        (told,) = of_kind(switcher, "rerouted")
        assert told.variant == "large"
        assert "it goes on in onnxruntime; in other: cannot open" in told.why
        assert switcher.failed == {}
        # Policies count with the figures of the engine that it is in now.
        assert switcher.portfolio.variant("large").metrics.latency_ms() == 1.0
        engines[0].refuses = set()
        switcher.retry("large")
        assert switcher._opener.engine(switcher.portfolio.variant("large")) == "other"


def test_an_engine_that_gives_other_outputs(folder: Path, engines: tuple[Other, Other]) -> None:
    engines[1].act = lambda session, x_BCHW: session.run(x_BCHW) * np.float32(1.5)
    with Switcher(folder) as switcher:
        assert switcher.switch("small").wait(5)
        answer = switcher.run(X_BCHW)
        assert (answer.variant, answer.engine) == ("small", "onnxruntime")
        assert gives(answer.output, X_BCHW, "small")
        assert "failed its self-test" in of_kind(switcher, "rerouted")[0].why


def test_an_engine_that_fails_on_a_request(folder: Path, engines: tuple[Other, Other]) -> None:
    engines[0].act = failing(is_request)
    with Switcher(folder) as switcher:
        answer = switcher.run(X_BCHW)
        assert (answer.variant, answer.engine) == ("large", "onnxruntime")
        assert gives(answer.output, X_BCHW, "large")
        assert switcher.active == "large"
        assert "failed on a request: RuntimeError: out of registers" in of_kind(switcher, "rerouted")[0].why
        assert switcher.failed == {}
        assert switcher.run(X_BCHW, "large").engine == "onnxruntime"


def test_an_engine_that_fails_on_a_request_for_a_variant_by_name(folder: Path, engines: tuple[Other, Other]) -> None:
    engines[1].act = failing(is_request)
    with Switcher(folder) as switcher:
        assert switcher.run(X_BCHW, "small").engine == "onnxruntime"
        assert switcher.active == "large"
        assert switcher.run(X_BCHW).engine == "other"


def test_where_both_engines_fail_the_variant_is_put_aside(folder: Path, engines: tuple[Other, Other]) -> None:
    engines[0].refuses = {"large"}
    with Switcher(folder, start="middle") as switcher:
        (folder / "large.npz").unlink()
        wish = switcher.switch("large")
        assert wish.wait(5)
        assert "no operator" in str(wish.error)
        assert switcher.run(X_BCHW).variant == "middle"
        assert list(switcher.failed) == ["large"]
        assert of_kind(switcher, "rerouted") == []


def test_a_batch_that_no_engine_answers_is_the_batch_s_fault(
    folder: Path, engines: tuple[Other, Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    default = Other("onnxruntime")
    add(monkeypatch, default)
    for engine in (*engines, default):
        engine.act = failing(lambda x_BCHW: len(x_BCHW) == 5)
    routes_in(folder, ROUTES)
    with Switcher(folder) as switcher:
        with pytest.raises(DeviceError, match="no variant answers this batch"):
            switcher.run(np.zeros((5, *SHAPE), np.float32))
        assert switcher.failed == {}
        assert of_kind(switcher, "rerouted") == []
        assert switcher.run(X_BCHW).engine == "other"


def test_a_variant_of_one_engine_alone_has_no_other(folder: Path, engines: tuple[Other, Other]) -> None:
    portfolio = Portfolio.read(folder)
    portfolio.adding(portfolio.variant("large").model_copy(update={"engine": "other"})).write(folder)
    engines[0].act = failing(is_request)
    with Switcher(folder) as switcher:
        assert switcher.run(X_BCHW).variant == "middle"
        assert list(switcher.failed) == ["large"]


def test_many_requests_meet_an_engine_that_dies(folder: Path, engines: tuple[Other, Other]) -> None:
    """Those that it was answering too are answered, by the same variant; all sessions are closed in the end."""
    dead, wrong, answered = threading.Event(), list[object](), [0] * 4
    engines[0].act = failing(lambda x_BCHW: dead.is_set() and is_request(x_BCHW))
    with Switcher(folder) as switcher:

        def ask(number: int) -> None:
            while answered[number] < 300:
                try:
                    answer = switcher.run(X_BCHW)
                    if answer.variant != "large" or not gives(answer.output, X_BCHW, "large"):
                        wrong.append(answer)
                except Exception as error:
                    wrong.append(error)
                answered[number] += 1
                if answered[number] == 100:
                    dead.set()

        asking = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert wrong == []
        assert len(of_kind(switcher, "rerouted")) == 1
        assert switcher.failed == {}
        assert switcher.residents == ("large",)


# ── a folder that changes ──


@pytest.fixture
def reloading(folder: Path) -> Iterator[ReloadingSwitcher]:
    with ReloadingSwitcher(folder) as found:
        found.preload()
        yield found


def test_new_routes_are_taken_with_the_manifest(reloading: ReloadingSwitcher) -> None:
    assert reloading.run(X_BCHW).engine == "other"
    routes_in(reloading.folder, {"large": "third", "middle": "other", "small": "onnxruntime"})
    reloading.reload()
    assert reloading.run(X_BCHW).engine == "third"
    assert {name: reloading.run(X_BCHW, name).engine for name in FACTORS} == {
        "large": "third",
        "middle": "other",
        "small": "onnxruntime",
    }
    assert all(gives(reloading.run(X_BCHW, name).output, X_BCHW, name) for name in FACTORS)


def test_what_was_rerouted_stays_so_until_it_is_measured_anew(
    reloading: ReloadingSwitcher, engines: tuple[Other, Other]
) -> None:
    engines[0].act = failing(is_request)
    assert reloading.run(X_BCHW).engine == "onnxruntime"
    engines[0].act = lambda session, x_BCHW: session.run(x_BCHW)
    reloading.reload()
    assert reloading.run(X_BCHW).engine == "onnxruntime"
    routes_in(reloading.folder, {"large": "third", "middle": "other", "small": "onnxruntime"})
    reloading.reload()
    assert reloading.run(X_BCHW).engine == "third"


def test_a_manifest_that_is_refused_leaves_the_routes_of_before(reloading: ReloadingSwitcher) -> None:
    before = reloading._opener.router
    portfolio = Portfolio.read(reloading.folder)
    bad = variant_in(reloading.folder, "bad", 3.0)
    (reloading.folder / "bad.onnx").unlink()
    portfolio.model_copy(update={"variants": (bad,)}).write(reloading.folder)
    with pytest.raises(PortfolioError, match="no variant can be used"):
        reloading.reload()
    assert reloading._opener.router == before
    assert reloading.run(X_BCHW).engine == "other"
