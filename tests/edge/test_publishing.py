"""A portfolio at an address: whatever fails in between, a reader finds the old one or the new one, whole."""

import itertools
import json
import time
from pathlib import Path

import fsspec
import pytest

from prunit.edge.portfolio import Portfolio
from prunit.edge.publishing import check_target, fetch, publish
from prunit.edge.switching.reload import ReloadingSwitcher
from prunit.errors import ConfigError, FileError, PortfolioError
from tests.edge.folders import X_BCHW, gives, portfolio_in
from tests.edge.stores import NEW, OLD, Fault, Folders, Objects, address, names, places, seen_by_a_reader


def sent(folder: Path, where: str) -> str:
    """'sent', or why not."""
    try:
        publish(folder, where)
    except FileError as error:
        return str(error)
    return "sent"


def test_what_is_sent_comes_back(store: type[Folders], old: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    there = publish(old, address(store), on_file=lambda *step: told.append(step))
    assert names(there) == set(OLD)
    assert [name for name, _, _ in told] == ["large.onnx", "large.npz", "small.onnx", "small.npz", "report.html"]
    assert [done for _, done, _ in told] == [0, 1, 2, 3, 4]
    assert Portfolio.read(address(store)) == there
    assert "portfolio.json" in store.changes[-1 if store is Objects else -2]  # the last: to its place, and from aside
    assert seen_by_a_reader(store, tmp_path / "here") == set(OLD)
    for variant in old.glob("*.onnx"):
        assert [p.read_bytes() for p in (tmp_path / "here").rglob(variant.name)] == [variant.read_bytes()]


@pytest.mark.parametrize("how", ["before", "after", "part"])
@pytest.mark.parametrize("good", [False, True], ids=["once", "for good"])
def test_the_kth_change_that_fails_leaves_a_whole_one(
    store: type[Folders], old: Path, new: Path, tmp_path: Path, how: str, good: bool
) -> None:
    if store is Objects and how == "part":
        pytest.skip("half an object is not to be seen")
    ends: list[str] = []
    for k in itertools.count(1):
        store.forget()
        publish(old, address(store))
        store.fault = Fault(k, how, good=good)  # type: ignore[arg-type]
        ends.append(sent(new, address(store)))
        hit, store.fault = store.fault.seen >= k, None
        found = seen_by_a_reader(store, tmp_path / f"{k}")
        assert found == set(NEW if ends[-1] == "sent" else OLD)
        publish(new, address(store))
        assert seen_by_a_reader(store, tmp_path / f"{k}") == set(NEW)
        if not hit:
            break
    assert len(ends) > 9  # a probe and its removal, five files, the manifest, the removal of five old files
    assert "Connection reset by peer" in ends[0]
    assert ends[-1] == "sent"


def test_at_every_moment_a_reader_sees_a_whole_one(store: type[Folders], old: Path, new: Path, tmp_path: Path) -> None:
    publish(old, address(store))
    seen: list[set[str]] = []

    def look() -> None:
        if not store.changes[-1].startswith("remove"):
            seen.append(seen_by_a_reader(store, tmp_path / f"reader {len(seen)}"))

    store.watch = look
    publish(new, address(store))
    assert [names for names, _ in itertools.groupby(seen)] == [set(OLD), set(NEW)]
    assert len(seen) > 6


def test_what_the_replaced_one_had_is_removed_and_no_more(store: type[Folders], old: Path, new: Path) -> None:
    publish(old, address(store))
    (first,) = places(store)
    fs = store()
    on_its_way = "/bucket/portfolio/files-0123456789abcdef/large.onnx"
    fs.pipe_file(on_its_way, b"of somebody who is sending now")
    publish(new, address(store))
    assert first not in places(store)
    assert "files-0123456789abcdef" in places(store)
    day_before = time.time() - 25 * 3600
    store.store[on_its_way].modified = store.store[on_its_way].modified.fromtimestamp(
        day_before, store.store[on_its_way].modified.tzinfo
    )
    publish(new, address(store))
    assert len(places(store)) == 1


def test_a_portfolio_that_is_replaced_while_it_is_brought_is_begun_again(
    store: type[Folders], old: Path, new: Path, tmp_path: Path
) -> None:
    publish(old, address(store))
    replaced: list[str] = []

    def replace(name: str, done: int, total: int) -> None:
        if done == 1 and not replaced:
            replaced.append(name)
            publish(new, address(store))

    assert names(fetch(address(store), tmp_path / "here", on_file=replace)) == set(NEW)
    assert replaced == ["large.npz"]
    assert Portfolio.read(tmp_path / "here").verify(tmp_path / "here") == []


def test_a_newer_one_takes_its_place_here_while_the_older_one_can_be_read(
    store: type[Folders], old: Path, new: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    publish(old, address(store))
    first = fetch(address(store), here)
    publish(new, address(store))
    second = fetch(address(store), here)
    assert second.verify(here) == []
    assert first.verify(here) == []  # a server that has it open goes on
    told: list[str] = []
    fetch(address(store), here, on_file=lambda name, done, total: told.append(name))
    assert told == []  # nothing is brought twice
    publish(old, address(store))
    third = fetch(address(store), here)
    assert third.verify(here) == []
    assert second.verify(here) == []
    assert first.verify(here) != []


def test_a_folder_is_replaced_under_what_answers_from_it(
    store: type[Folders], old: Path, new: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    publish(old, address(store))
    fetch(address(store), here)
    with ReloadingSwitcher(here, start="large") as switcher:
        assert not switcher.changed()
        publish(new, address(store))
        fetch(address(store), here)
        assert gives(switcher.run(X_BCHW).output, X_BCHW, "large")
        assert switcher.switch("small").wait(10)  # of the one before, which was not open yet
        assert gives(switcher.run(X_BCHW).output, X_BCHW, "small")
        assert switcher.switch("large").wait(10)
        assert switcher.changed()
        assert {variant.name for variant in switcher.reload().variants} == set(NEW)
        assert gives(switcher.run(X_BCHW).output, X_BCHW, "large")
        assert [event for event in switcher.events if event.kind == "refused"] == []


def test_a_damaged_one_is_refused_and_the_one_here_stays(
    store: type[Folders], old: Path, new: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    publish(old, address(store))
    fetch(address(store), here)
    publish(new, address(store))
    damaged = next(path for path in store.store if path.endswith("tiny.onnx"))
    store().pipe_file(damaged, b"cut sh")
    with pytest.raises(PortfolioError, match=r"holds a damaged portfolio, and '.*here' stays as it was: .*tiny\.onnx"):
        fetch(address(store), here)
    assert names(Portfolio.read(here)) == set(OLD)
    assert Portfolio.read(here).verify(here) == []


def test_a_portfolio_that_was_copied_there_is_brought_too(store: type[Folders], old: Path, tmp_path: Path) -> None:
    for file in old.iterdir():
        store().pipe_file(f"/bucket/portfolio/{file.name}", file.read_bytes())
    assert seen_by_a_reader(store, tmp_path / "here") == set(OLD)
    assert seen_by_a_reader(store, tmp_path / "here") == set(OLD)  # and again


def test_files_that_are_not_the_manifests_are_not_sent(store: type[Folders], old: Path) -> None:
    (old / "small.onnx").write_bytes(b"other")
    with pytest.raises(PortfolioError, match=r"is not sent: variant 'small': 'small\.onnx' has 5 bytes"):
        publish(old, address(store))
    assert store.store == {}


def test_a_name_that_drivers_take_for_a_pattern_is_not_sent(store: type[Folders], tmp_path: Path) -> None:
    portfolio_in(tmp_path / "odd", {"a[1]": 1.0})
    with pytest.raises(PortfolioError, match=r"is not sent: drivers take the name 'a\[1\]\.onnx' for a pattern"):
        publish(tmp_path / "odd", address(store))
    assert store.store == {}


def test_something_else_there_is_not_touched(store: type[Folders], old: Path) -> None:
    fs = store()
    fs.pipe_file("/bucket/portfolio/thesis.tex", b"mine")
    with pytest.raises(ConfigError, match=r"holds 'thesis\.tex' and no portfolio\.json"):
        publish(old, address(store))
    fs.pipe_file("/bucket/portfolio/portfolio.json", b'{"stocks": 3}')
    with pytest.raises(PortfolioError, match="another program's file"):
        check_target(address(store))
    assert set(store.store) == {"/bucket/portfolio/thesis.tex", "/bucket/portfolio/portfolio.json"}
    with pytest.raises(ConfigError, match="is a file"):
        check_target(f"{address(store)}/thesis.tex")


def test_an_address_without_a_portfolio(store: type[Folders], tmp_path: Path) -> None:
    with pytest.raises(PortfolioError, match=r"is no portfolio: it holds no portfolio\.json; 'prunit build … --out "):
        fetch(address(store), tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_folder_here_that_holds_something_else_is_not_touched(
    store: type[Folders], old: Path, tmp_path: Path
) -> None:
    publish(old, address(store))
    with pytest.raises(ConfigError, match="holds a portfolio that came by other means"):
        fetch(address(store), old)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        fetch(address(store), tmp_path / "mine")
    with pytest.raises(ConfigError, match="is a file"):
        fetch(address(store), tmp_path / "mine" / "thesis.tex")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_stores_that_come_with_fsspec(scheme: str, old: Path, new: Path, tmp_path: Path) -> None:
    where = f"{scheme}://{tmp_path}/far away/portfolio"
    publish(old, where)
    fetch(where, tmp_path / "here")
    publish(new, where, extras={"trials.json": old / "report.html"})
    assert names(fetch(where, tmp_path / "here")) == set(NEW)
    assert (tmp_path / "here" / "trials.json").read_text() == "old report"
    fs, root = fsspec.url_to_fs(where)
    assert sorted(path.removeprefix(root).lstrip("/")[:5] for path in fs.ls(root, detail=False)) == ["files", "portf"]
    if scheme == "file":  # what lies there is a portfolio as any other
        assert Portfolio.read(root).verify(root) == []


def test_a_folder_of_files_that_may_not_be_written(old: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        FileError, match=r"cannot (read|look at|write|list) .*file/portfolio': .*; check that its bucket"
    ):
        publish(old, f"file://{tmp_path}/file/portfolio")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "old"]


def test_every_file_that_a_manifest_is_checked_by_is_sent(store: type[Folders], old: Path) -> None:
    publish(old, address(store))
    manifest = json.loads(store().cat_file("/bucket/portfolio/portfolio.json"))
    (place,) = places(store)
    digests = [path for path in _paths(manifest) if not path.startswith(f"{place}/")]
    assert digests == []
    assert len(set(_paths(manifest))) == 4


def _paths(data: object) -> list[str]:
    """Whatever is a path beside a digest in JSON."""
    if isinstance(data, list):
        return [path for each in data for path in _paths(each)]
    if not isinstance(data, dict):
        return []
    own = [data[key] for key in ("path", "self_test") if isinstance(data.get(key), str) and "sha256" in data]
    return own + [path for each in data.values() for path in _paths(each)]
