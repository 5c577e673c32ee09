"""What is not sent or brought: what is there already, what another device needs, and what failed."""

from pathlib import Path

import pytest

from prunit.edge.handing import copied_to
from prunit.edge.portfolio import Portfolio
from prunit.edge.publishing import fetch, publish
from prunit.edge.served import Fleet, Served, variants_for
from prunit.errors import FileError, PortfolioError, UnknownNameError
from tests.edge.stores import OLD, Folders, address, names, seen_by_a_reader


def test_the_same_one_is_not_sent_again(store: type[Folders], old: Path, tmp_path: Path) -> None:
    first = publish(old, address(store))
    before, told = dict(store.store), []
    assert publish(old, address(store), on_file=lambda *step: told.append(step)) == first
    fetch(address(store), tmp_path / "here")  # what was brought from there is the same, too
    assert publish(tmp_path / "here", address(store), on_file=lambda *step: told.append(step)) == first
    assert (told, dict(store.store)) == ([], before)
    for name, data in (("large.onnx", b"cut sh"), ("report.html", b"new report")):
        store().pipe_file(next(path for path in store.store if path.endswith(name)), data)
        again = publish(old, address(store))
        assert again != first
        assert seen_by_a_reader(store, tmp_path / "here") == set(OLD)
        first = again


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_the_same_one_is_known_in_stores_that_come_with_fsspec(scheme: str, old: Path, tmp_path: Path) -> None:
    where = f"{scheme}://{tmp_path}/far/portfolio"
    first = publish(old, where)
    assert publish(old, where) == first
    (old / "report.html").write_text("a later one")
    assert publish(old, where) != first


def test_what_fails_leaves_no_folder_that_was_not_there(
    store: type[Folders], old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(old, address(store))
    whole = {path: store().cat_file(path) for path in store.store}
    store().pipe_file(next(path for path in whole if path.endswith("small.onnx")), b"cut sh")
    with pytest.raises(PortfolioError, match=r"and nothing was installed in '.*here': .*small\.onnx"):
        fetch(address(store), tmp_path / "new" / "here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PortfolioError, match="nothing was installed in"):
        fetch(address(store), tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "old"]
    for path, data in whole.items():
        store().pipe_file(path, data)
    brought: list[str] = []
    get_file = store.get_file

    def fails(self: Folders, rpath: str, *arguments: object, **options: object) -> None:
        if len(brought) == 1:
            Path(str(arguments[0])).write_bytes(b"a part")
            raise ConnectionResetError(104, "Connection reset by peer")
        get_file(self, rpath, *arguments, **options)  # pyright: ignore[reportArgumentType]
        brought.append(rpath)

    monkeypatch.setattr(store, "get_file", fails)
    with pytest.raises(FileError, match="reset by peer"):
        fetch(address(store), tmp_path / "new" / "here")
    assert len([path for path in (tmp_path / "new").rglob("*") if path.is_file()]) == 1  # is not brought again
    with pytest.raises(FileError, match="reset by peer"):
        fetch(address(store), tmp_path / "another")
    assert not (tmp_path / "another").exists()
    monkeypatch.undo()
    told: list[str] = []
    fetch(address(store), tmp_path / "new" / "here", on_file=lambda name, done, total: told.append(name))
    assert len(told) == 3


def test_which_devices_it_serves_goes_along_and_goes_with_the_portfolio(
    old: Path, new: Path, store: type[Folders], tmp_path: Path
) -> None:
    table = Fleet(slack=0.1, devices=(Served(device="pi", goal="params=1/2", variant="small"),))
    table.write(old)
    publish(old, address(store))
    here = tmp_path / "here"
    brought = fetch(address(store), here)
    assert Fleet.read(here) == table
    assert variants_for(brought, here, "pi") == ("small",)
    copied_to(tmp_path / "pi", brought, here, ("small",), "pi")
    assert Portfolio.read(tmp_path / "pi").verify(tmp_path / "pi") == []
    publish(new, address(store))
    fetch(address(store), here)
    assert Fleet.read(here) is None


def test_a_device_is_brought_what_it_needs_and_no_more(
    store: type[Folders], old: Path, new: Path, tmp_path: Path
) -> None:
    devices = (
        Served(device="pi", goal="params=1/2", variant="small"),
        Served(device="watch", goal="params=1", problem="budget cannot be met"),
    )
    table = Fleet(slack=0.1, devices=devices)
    table.write(old)
    publish(old, address(store))
    here, told = tmp_path / "here", list[str]()
    for device, error, said in (
        ("pj", UnknownNameError, "did you mean 'pi'"),
        ("watch", PortfolioError, "no variant of .* serves device 'watch'"),
    ):
        with pytest.raises(error, match=said):
            fetch(address(store), here, device=device, on_file=lambda name, done, total: told.append(name))
    assert told == []
    assert not here.exists()
    found = fetch(address(store), here, device="pi", on_file=lambda name, done, total: told.append(name))
    assert (found, names(found), told) == (Portfolio.read(here), {"small"}, ["small.onnx", "small.npz"])
    assert found.verify(here) == []
    assert Fleet.read(here) == table.only(["pi"])
    files = sorted(path.name for path in here.rglob("*") if path.is_file())
    assert files == ["fleet.json", "portfolio.json", "small.npz", "small.onnx"]
    fetch(address(store), here, device="pi", on_file=lambda name, done, total: told.append(name))
    assert len(told) == 2  # nothing is brought twice
    whole = fetch(address(store), here)
    assert names(whole) == set(OLD)
    assert whole.verify(here) == []
    publish(new, address(store))
    with pytest.raises(PortfolioError, match="was not built for a fleet"):
        fetch(address(store), here, device="pi")
