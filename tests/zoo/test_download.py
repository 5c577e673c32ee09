"""Fetching data sets, here from file:// addresses; no test needs a network."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from prunit.errors import DataError
from prunit.zoo import data
from prunit.zoo.data.download import Source, fetch
from tests.zoo.layouts import write_cifar10, write_fashion_mnist

NOWHERE = "http://127.0.0.1:9/cifar-10-python.tar.gz"  # port 9 (discard) answers nobody


def source(path: Path) -> Source:
    return Source(path.as_uri(), hashlib.md5(path.read_bytes()).hexdigest())


def packed_cifar10(tmp_path: Path) -> Source:
    write_cifar10(tmp_path / "there")
    path = tmp_path / "there" / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "there" / "cifar-10-batches-py", "cifar-10-batches-py")
    return source(path)


Change = Callable[[Source], None]


@pytest.fixture
def cifar10_from(monkeypatch: pytest.MonkeyPatch) -> Change:
    """A function that lets cifar10 come from another address."""

    def change(source: Source) -> None:
        other = replace(data._ON_DISK["cifar10"], sources=(source,))
        monkeypatch.setattr(data, "_ON_DISK", {**data._ON_DISK, "cifar10": other})

    return change


def test_an_archive_is_unpacked_and_read(tmp_path: Path, cifar10_from: Change) -> None:
    cifar10_from(packed_cifar10(tmp_path))
    home = tmp_path / "not" / "yet" / "there"
    assert len(data.load("cifar10", data_dir=home, download=True).train) == 100
    assert [path.name for path in home.iterdir()] == ["cifar-10-batches-py"]
    cifar10_from(Source(NOWHERE, ""))  # what is there is not fetched again
    assert len(data.load("cifar10", data_dir=home, download=True).train) == 100


def test_an_incomplete_folder_is_completed(tmp_path: Path, cifar10_from: Change) -> None:
    cifar10_from(packed_cifar10(tmp_path))
    write_cifar10(tmp_path / "home")
    (tmp_path / "home" / "cifar-10-batches-py" / "test_batch").unlink()
    (tmp_path / "home" / "cifar-10-batches-py" / "notes.txt").write_text("mine")
    assert len(data.load("cifar10", data_dir=tmp_path / "home", download=True).test) == 20
    assert (tmp_path / "home" / "cifar-10-batches-py" / "notes.txt").read_text() == "mine"


def test_single_files_are_kept_packed(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "there", packed=True)
    files = sorted((tmp_path / "there" / "FashionMNIST" / "raw").iterdir())
    fetch("fashion-mnist", [source(path) for path in files], tmp_path / "home" / "FashionMNIST" / "raw")
    assert len(data.load("fashion-mnist", data_dir=tmp_path / "home").train) == 30


def test_without_network_it_says_what_was_tried_and_what_to_do(
    tmp_path: Path, cifar10_from: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    cifar10_from(Source(NOWHERE, ""))
    message = r"cannot download data set 'cifar10': tried http://127\.0\.0\.1:9/.* refused. By hand: fetch .* are in '"
    with pytest.raises(DataError, match=message) as raised:
        data.load("cifar10", data_dir=tmp_path, download=True)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_other_content_than_expected_is_not_kept(tmp_path: Path, cifar10_from: Change) -> None:
    good = packed_cifar10(tmp_path)
    cifar10_from(replace(good, md5="0" * 32))
    with pytest.raises(DataError, match=rf"md5 {good.md5} instead of 0{{32}} \(\d+ bytes\)\. Nothing was kept"):
        data.load("cifar10", data_dir=tmp_path / "home", download=True)
    assert list((tmp_path / "home").iterdir()) == []


def test_an_archive_that_leads_outside_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("../../outside")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"bad"))
    with pytest.raises(DataError, match=r"cannot download data set 'bad': .*outside the destination"):
        fetch("bad", [source(path)], tmp_path / "home" / "deep" / "bad")
    assert list(tmp_path.rglob("outside")) == []


def test_an_archive_without_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "empty.tar.gz"
    with tarfile.open(path, "w:gz"):
        pass
    with pytest.raises(DataError, match=r"cannot download data set 'x': .*No such file"):
        fetch("x", [source(path)], tmp_path / "home" / "x")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"tried nothing yet into '.*home/x' and got: .*File exists"):
        fetch("x", [Source(NOWHERE, "")], tmp_path / "home" / "x")
