"""Routes: which engine is chosen, for how long that holds, and what is passed over."""

from pathlib import Path

import pytest

from prunit.edge import routing
from prunit.edge.comparing.rounds import compared
from prunit.edge.install import place_of
from prunit.edge.portfolio import Portfolio, Variant
from prunit.edge.routing import Measured, Route, chosen, engines_for, engines_named, key_of, read, router
from prunit.errors import ConfigError, UnknownNameError
from tests.edge.engines import Other, add, measured, only, routes_in
from tests.edge.folders import portfolio_in, variant_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    portfolio_in(tmp_path)
    return tmp_path


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Other:
    found = Other()
    add(monkeypatch, found)
    return found


def changed(variant: Variant, **update: object) -> Variant:
    return variant.model_copy(update=update)


# ── which one is chosen ──


def test_rounds_are_compared_in_pairs() -> None:
    slow, fast = [200 + i for i in range(50)], [100 + i // 2 for i in range(50)]
    found = compared(fast, slow)
    assert found.times_faster == pytest.approx(2, rel=0.01)
    assert found.measurable
    assert compared(slow, fast).measurable
    assert compared(slow, fast).times_faster == pytest.approx(0.5, rel=0.01)
    # Always ahead, and by less than two measurements of one file differ.
    assert not compared([100] * 50, [102] * 50).measurable
    # Far ahead in the median of six rounds, of which one was lost: chance does that.
    assert not compared([100] * 5 + [900], [200] * 6).measurable
    assert not compared([100] * 50, [100] * 50).measurable


def test_the_default_engine_stays_where_no_other_is_measurably_faster() -> None:
    default = measured("onnxruntime", 1.0)
    assert chosen([default]) == "onnxruntime"
    assert chosen([default, measured("other", 0.5, 2.0, 1e-6)]) == "other"
    assert chosen([default, measured("other", 0.97, 1.03, 1e-6)]) == "onnxruntime"
    assert chosen([default, measured("other", 0.5, 2.0, 0.2)]) == "onnxruntime"
    assert chosen([default, measured("other", 0.5, 2.0, 1e-6), measured("third", 0.4, 2.5, 1e-6)]) == "third"
    # Where it cannot run the variant, the fastest of those that can.
    cannot = Measured(engine="onnxruntime", why_not="no operator")
    assert chosen([cannot, measured("other", 3.0), measured("third", 2.0)]) == "third"
    assert chosen([cannot]) == chosen([]) == ""


def test_engines_are_named(other: Other) -> None:
    assert engines_named("other") == ("onnxruntime", "other")
    assert "other" in engines_named("all")
    assert "reference" not in engines_named("all")
    assert "reference" in engines_named("all,reference")
    with pytest.raises(UnknownNameError, match="unknown engine 'othr'; did you mean 'other'"):
        engines_named("onnxruntime,othr")
    with pytest.raises(ConfigError, match="there is no name in it"):
        engines_named(" ,")


def test_engines_for_a_variant(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, Other(), Other("halves", ("bf16",)))
    names = ("onnxruntime", "other", "halves")
    variant = Portfolio.read(folder).variants[0]
    assert engines_for(variant, names) == ["onnxruntime", "other"]
    assert engines_for(changed(variant, precision="bf16"), names) == ["halves"]
    assert engines_for(changed(variant, engine="other"), names) == ["other"]
    # Without a route, too, it is not opened in an engine of other precisions.
    assert router(place_of(folder)).order(changed(variant, precision="bf16")) == ("halves",)


# ── how long it holds ──


def test_a_route_is_taken_and_its_figures_with_it(folder: Path, other: Other) -> None:
    routes_in(folder, {"large": "other", "small": "onnxruntime"})
    portfolio = Portfolio.read(folder)
    found = router(place_of(folder))
    assert found.notes == ()
    assert [found.engine(v) for v in portfolio.variants] == ["other", "onnxruntime", "onnxruntime"]
    assert found.order(portfolio.variants[0]) == ("other", "onnxruntime")
    here = found.overlaid(portfolio)
    assert [v.metrics.latency_ms() for v in here.variants] == [0.5, 3.0, 1.0]
    assert here.variants[0].metrics.peak_memory_bytes == 1000
    assert "of another file: middle" in found.unmeasured(portfolio)
    # Under another name, as it may be served.
    assert found.engine(changed(portfolio.variants[0], name="renamed")) == "other"
    # The same file in another precision is another variant.
    assert found.engine(changed(portfolio.variants[0], precision="int8")) == "onnxruntime"
    fell = found.falling(portfolio.variants[0])
    assert fell.engine(portfolio.variants[0]) == "onnxruntime"
    assert fell.overlaid(portfolio).variants[0].metrics.latency_ms() == 1.0
    assert fell.standing(portfolio.variants[0]) == found


def test_without_routes_nothing_changes(folder: Path) -> None:
    found, portfolio = router(place_of(folder)), Portfolio.read(folder)
    assert found.notes == ()
    assert found.overlaid(portfolio) == portfolio
    assert found.unmeasured(portfolio) == ""
    assert found.order(portfolio.variants[0]) == ("onnxruntime",)
    assert found.order(changed(portfolio.variants[0], engine="other")) == ("other",)


def test_an_engine_may_be_forced_but_not_on_variants_of_one_engine(folder: Path, other: Other) -> None:
    routes_in(folder, {"large": "other"})
    variant = Portfolio.read(folder).variants[0]
    assert router(place_of(folder), "auto").engine(variant) == "other"
    found = router(place_of(folder), "onnxruntime")
    assert found.order(variant) == ("onnxruntime",)
    assert found.measured(variant).metrics.latency_ms() == 1.0
    assert found.order(changed(variant, engine="other")) == ("other",)
    assert router(place_of(folder), other).order(variant) == (other,)
    assert router(place_of(folder), other).measured(variant).metrics.latency_ms() == 0.5
    with pytest.raises(UnknownNameError, match="unknown runtime"):
        router(place_of(folder), "othr")


@pytest.mark.parametrize("change", ["engine", "default", "gone", "broken", "cpu", "file", "garbage", "newer"])
def test_what_does_not_fit_any_more_is_passed_over(
    folder: Path, other: Other, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = routes_in(folder, {"large": "other"})
    place, note = place_of(folder), "prunit bench DIR --engines all --save measures again"
    if change == "engine":
        other.number, note = "2.0", "other is 2.0 and was 1.0 when routes were measured"
    elif change == "default":
        older = {**routes.engines, "onnxruntime": "0.1"}
        routes.model_copy(update={"engines": older}).write(place)
        note = "and was 0.1 when routes were measured"
    elif change == "gone":
        other.gone, note = True, r"what was to run in other goes on in onnxruntime: .*pip install 'prunit\[other\]'"
    elif change == "broken":
        monkeypatch.setattr(other, "version", lambda: 1 / 0)
        note = "goes on in onnxruntime: ZeroDivisionError"
    elif change == "cpu":
        monkeypatch.setattr(routing, "cpu_features", lambda: "another")
        note = "were measured on another CPU"
    elif change == "garbage":
        (place / routing.ROUTES).write_text("{")
    elif change == "newer":
        text = (place / routing.ROUTES).read_text()
        (place / routing.ROUTES).write_text(text.replace('"version": 1', '"version": 7'))
    variant = Portfolio.read(folder).variants[0]
    if change == "file":
        variant = variant_in(folder, "large", 3.0)
    found = router(place)
    assert found.order(variant) == ("onnxruntime",)
    if change != "file":
        (told,) = found.notes
        import re

        assert re.search(note, told), told
    else:
        assert found.measured(variant) == variant


def test_what_runs_in_one_engine_alone_does_not_go_on_in_another(folder: Path, other: Other) -> None:
    found = Portfolio.read(folder)
    large, *others = found.variants
    found.model_copy(update={"variants": (changed(large, engine="other"), *others)}).write(folder)
    routes_in(folder, {"large": "other"})
    other.gone = True
    (told,) = router(place_of(folder)).notes
    assert told.startswith("what runs in other alone cannot run here (large): the runtime 'other' needs the package")
    other.gone = False
    routes_in(folder, {"large": "other", others[0].name: "other"})
    other.gone = True
    goes_on, alone = router(place_of(folder)).notes
    assert goes_on.startswith("what was to run in other goes on in onnxruntime: ")
    assert alone.startswith("what runs in other alone cannot run here (large): ")


def test_where_the_default_engine_is_gone_the_others_are_all_there_is(
    folder: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes_in(folder, {"large": "other"})
    variant = Portfolio.read(folder).variants[0]
    gone = Other("onnxruntime")
    gone.gone = True
    add(monkeypatch, gone)
    assert router(place_of(folder)).engine(variant) == "other"


def test_routes_are_plain_data(folder: Path, other: Other) -> None:
    routes = routes_in(folder, {"large": "other"})
    found, problem = read(place_of(folder))
    assert problem == ""
    assert found == routes
    assert found is not None
    (one,) = found.variants
    assert isinstance(one, Route)
    assert one.key == key_of(Portfolio.read(folder).variants[0])
    assert one.of("none") is None
    assert read(folder / "nowhere") == (None, "")
