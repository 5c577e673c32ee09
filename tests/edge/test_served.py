"""Which variant serves which device: a file beside the manifest, and what a device gets of a portfolio."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from prunit.edge.handing import copied_to
from prunit.edge.install import FOLDER, install
from prunit.edge.portfolio import Portfolio
from prunit.edge.served import FILE, Fleet, Served, variants_for
from prunit.errors import FileError, PortfolioError, UnknownNameError
from tests.edge.folders import FACTORS, portfolio_in, variant_in

FLEET = Fleet(
    slack=0.1,
    devices=(
        Served(
            device="pi",
            goal="latency=8ms,weights=1MB",
            variant="small",
            figures={"latency_ms": 6.0, "weight_bytes": 900_000},
            limits={"latency_ms": 8.0, "weight_bytes": 1_000_000},
            kept=0.95,
        ),
        Served(device="attic", goal="params=1/2", variant="small", kept=1.2),
        Served(device="watch", goal="latency=1us", limits={"latency_ms": 0.001}, problem="budget cannot be met"),
    ),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "portfolio"
    portfolio_in(place)
    FLEET.write(place)
    return place


def test_it_is_read_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    assert Fleet.read(folder) == FLEET
    assert Fleet.read(tmp_path) is None
    assert FLEET.variants == ("small",)
    assert [each.device for each in FLEET.unserved] == ["watch"]
    assert FLEET.device("pi").used == 0.9
    assert FLEET.device("attic").used is None
    with pytest.raises(UnknownNameError, match="did you mean 'watch'"):
        FLEET.device("wacht")


def broken(change: Callable[[dict[str, object]], object]) -> str:
    data = json.loads(FLEET.model_dump_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        broken(lambda data: data.update(version=2)),
        broken(lambda data: data.update(slack=1.5)),
        broken(lambda data: data.pop("devices")),
        broken(lambda data: data.update(more=1)),
        '{"a": "\\ud800"}',
        "[" * 100_000,
    ],
    ids=range(9),
)
def test_what_is_damaged_is_told_in_one_line(folder: Path, text: str) -> None:
    (folder / FILE).write_text(text)
    with pytest.raises(PortfolioError, match="does not say which variants serve which devices") as caught:
        Fleet.read(folder)
    assert "\n" not in str(caught.value)


def test_the_variants_for_a_device(folder: Path) -> None:
    portfolio = Portfolio.read(folder)
    assert variants_for(portfolio, folder, "pi") == ("small",)
    with pytest.raises(PortfolioError, match=r"no variant of .* serves device 'watch': budget cannot be met"):
        variants_for(portfolio, folder, "watch")
    with pytest.raises(PortfolioError, match=r"is not in the portfolio .* any more"):
        variants_for(portfolio.without("small"), folder, "pi")
    (folder / FILE).unlink()
    with pytest.raises(PortfolioError, match="was not built for a fleet"):
        variants_for(portfolio, folder, "pi")


def test_a_device_gets_its_variants_alone_and_whole(folder: Path, tmp_path: Path) -> None:
    portfolio, to = Portfolio.read(folder), tmp_path / "for" / "pi"
    copied = copied_to(to, portfolio, folder, ("small",), "pi")
    assert copied == Portfolio.read(to)
    assert [variant.name for variant in copied.variants] == ["small"]
    assert copied.verify(to) == []
    assert not list(to.glob("large*"))
    assert Fleet.read(to) == FLEET.only(["pi"])
    assert [path.name for path in to.parent.iterdir()] == ["pi"]
    every = copied_to(tmp_path / "all", portfolio, folder)
    assert [variant.name for variant in every.variants] == list(FACTORS)
    assert Fleet.read(tmp_path / "all") == FLEET
    with pytest.raises(FileError, match=r"is not empty: it holds what is for pi: name a folder"):
        copied_to(to, portfolio, folder)
    (folder / "small.onnx").write_bytes(b"other")
    with pytest.raises(PortfolioError, match="was changed"):
        copied_to(tmp_path / "damaged", portfolio, folder)
    with pytest.raises(FileError, match="cannot copy"):
        copied_to(folder / "large.onnx" / "to", portfolio, folder, ("large",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "for", "portfolio"]


def test_what_was_handed_out_is_replaced_by_what_is_there_now(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "pi"
    copied_to(to, Portfolio.read(folder), folder, ("small",), "pi")
    install(Portfolio.read(to), to)
    newer = variant_in(folder, "small", 3.0)
    portfolio = Portfolio.read(folder).model_copy(update={"variants": (newer,)})
    copied_to(to, portfolio, folder, ("small",), "pi")
    assert Portfolio.read(to).variants == (newer,)
    assert Portfolio.read(to).verify(to) == []
    assert (to / FOLDER).is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pi", "portfolio"]


def test_a_folder_that_is_no_copy_of_the_same_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    portfolio, to = Portfolio.read(folder), tmp_path / "pi"
    copied_to(to, portfolio, folder, ("small",), "pi")
    with pytest.raises(FileError, match=r"is not empty: it holds what is for pi: name"):
        copied_to(to, portfolio, folder, ("small",), "attic")
    with pytest.raises(FileError, match=r"is not empty: it holds another portfolio, "):
        copied_to(to, portfolio.model_copy(update={"data": "other"}), folder, ("small",), "pi")
    (to / "thesis.tex").write_text("mine")
    with pytest.raises(FileError, match=r"is not empty, and 'thesis\.tex' is no file of a copy"):
        copied_to(to, portfolio, folder, ("small",), "pi")
    for place in (folder, folder.parent):
        with pytest.raises(FileError, match="is or holds the portfolio's own folder"):
            copied_to(place, portfolio, folder)
    with pytest.raises(FileError, match="is a file"):
        copied_to(to / "thesis.tex", portfolio, folder)
    assert (to / "thesis.tex").read_text() == "mine"
    assert portfolio.verify(folder) == []
