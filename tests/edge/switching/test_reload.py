"""A folder that changes while its variants answer."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunit.edge.install import place_of, read
from prunit.edge.portfolio import Portfolio
from prunit.edge.switching.reload import ReloadingSwitcher
from prunit.errors import PortfolioError
from tests.edge.folders import FACTORS, X_BCHW, gives, portfolio_in, variant_in


@pytest.fixture
def switcher(tmp_path: Path) -> Iterator[ReloadingSwitcher]:
    portfolio_in(tmp_path, {"large": 4.0, "small": 1.0})
    with ReloadingSwitcher(tmp_path, start="large") as found:
        found.preload()
        yield found


def kinds(switcher: ReloadingSwitcher) -> list[str]:
    return [event.kind for event in switcher.events]


def test_a_change_of_the_manifest_is_seen_once(switcher: ReloadingSwitcher) -> None:
    assert not switcher.changed()
    switcher.portfolio.write(switcher.folder)
    assert switcher.changed()
    assert not switcher.changed()


def test_new_variants_are_tried_and_then_there(switcher: ReloadingSwitcher) -> None:
    new = variant_in(switcher.folder, "middle", FACTORS["middle"])
    switcher.portfolio.adding(new).write(switcher.folder)
    switcher.reload()
    assert "middle" in switcher.residents
    installed = read(place_of(switcher.folder))
    assert installed is not None
    assert "middle" in installed.variants
    assert switcher.switch("middle").wait(10)
    answer = switcher.run(X_BCHW)
    assert gives(answer.output, X_BCHW, "middle")
    assert "reloaded" in kinds(switcher)


def test_a_bad_one_is_refused_and_the_rest_goes_on(switcher: ReloadingSwitcher) -> None:
    new = variant_in(switcher.folder, "middle", FACTORS["middle"])
    (switcher.folder / "middle.onnx").write_bytes(b"cut short")
    lying = variant_in(switcher.folder, "other", 3.0)
    (switcher.folder / "other.npz").write_bytes((switcher.folder / "small.npz").read_bytes())
    switcher.portfolio.adding(new, lying).write(switcher.folder)
    found = switcher.reload()
    assert [v.name for v in found.variants] == ["large", "small"]
    assert {e.variant for e in switcher.events if e.kind == "refused"} == {"middle", "other"}
    assert gives(switcher.run(X_BCHW).output, X_BCHW, "large")


def test_a_variant_of_the_same_name_takes_the_place_of_the_old_one(switcher: ReloadingSwitcher) -> None:
    changed = variant_in(switcher.folder, "large", FACTORS["middle"])
    switcher.portfolio.adding(changed).write(switcher.folder)
    switcher.reload()
    assert switcher.active == "large"
    assert gives(switcher.run(X_BCHW).output, X_BCHW, "middle")


def test_an_open_variant_outlives_a_bad_successor(switcher: ReloadingSwitcher) -> None:
    changed = variant_in(switcher.folder, "large", FACTORS["middle"])
    (switcher.folder / "large.onnx").write_bytes(b"cut short")
    switcher.portfolio.adding(changed).write(switcher.folder)
    switcher.reload()
    assert gives(switcher.run(X_BCHW).output, X_BCHW, "large")


def test_the_active_variant_may_be_taken_away(switcher: ReloadingSwitcher) -> None:
    switcher.portfolio.without("large").write(switcher.folder)
    switcher.reload()
    assert switcher.active == "small"
    assert switcher.residents == ("small",)
    assert gives(switcher.run(X_BCHW).output, X_BCHW, "small")


def test_the_only_open_variant_goes_on_until_another_is_open(tmp_path: Path) -> None:
    portfolio_in(tmp_path, {"large": 4.0, "small": 1.0})
    with ReloadingSwitcher(tmp_path, start="large") as switcher:
        switcher.portfolio.without("large").write(switcher.folder)
        switcher.reload()
        assert gives(switcher.run(X_BCHW).output, X_BCHW, "large")
        assert switcher.switch("small").wait(10)
        assert gives(switcher.run(X_BCHW).output, X_BCHW, "small")


def test_a_manifest_that_is_none_changes_nothing(switcher: ReloadingSwitcher) -> None:
    before = switcher.portfolio
    (switcher.folder / "portfolio.json").write_text("{")
    with pytest.raises(PortfolioError, match="not JSON"):
        switcher.reload()
    assert switcher.portfolio is before
    only_bad = variant_in(switcher.folder, "bad", 3.0)
    (switcher.folder / "bad.onnx").unlink()
    Portfolio.model_validate(before.model_copy(update={"variants": (only_bad,)}).model_dump()).write(switcher.folder)
    with pytest.raises(PortfolioError, match="no variant can be used"):
        switcher.reload()
    assert gives(switcher.run(X_BCHW).output, X_BCHW, "large")


def test_a_variant_may_be_unusable_for_other_reasons(switcher: ReloadingSwitcher) -> None:
    switcher.portfolio.adding(variant_in(switcher.folder, "middle", 2.0)).write(switcher.folder)
    found = switcher.reload(lambda variant: "it was not measured")
    assert [v.name for v in found.variants] == ["large", "small"]
    assert switcher.events[-2].why == "it was not measured"


def test_no_request_is_lost_while_the_folder_changes(switcher: ReloadingSwitcher) -> None:
    over, wrong, count = threading.Event(), list[object](), [0]

    def ask() -> None:
        while not over.is_set():
            try:
                answer = switcher.run(X_BCHW)
                if not any(gives(answer.output, X_BCHW, name) for name in FACTORS):
                    wrong.append(answer)
                count[0] += 1
            except Exception as error:
                wrong.append(error)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    base = switcher.portfolio
    for i in range(12):
        new = variant_in(switcher.folder, "large" if i % 3 == 0 else "middle", (2.0, 4.0)[i % 2])
        (base.adding(new) if i % 4 else base.without("large")).write(switcher.folder)
        switcher.reload()
    over.set()
    for thread in asking:
        thread.join()
    assert wrong == []
    assert count[0] > 100
