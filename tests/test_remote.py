"""Addresses: what is one, what is said of those that cannot be used, and passwords that are not shown."""

import sys
from pathlib import Path

import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from prunit.errors import ConfigError, FileError, MissingExtraError
from prunit.remote import Store, is_address, meant_by, shown


@pytest.mark.parametrize("text", ["s3://b/x", "file:///tmp/x", "abfs://c@a/x", "Memory://x", "zip::s3://b/x"])
def test_addresses(text: str) -> None:
    assert is_address(text)
    assert not is_address(Path(text))


@pytest.mark.parametrize("text", ["portfolio", "/tmp/x", "C://x", "C:/x", "C:\\x", "a/b://c", "s3:/b", ""])
def test_paths(text: str) -> None:
    assert not is_address(text)


def test_a_path_that_was_an_address_is_known() -> None:
    assert [meant_by(Path(text)) for text in ("s3://b/x", "file:///x/y")] == ["s3://b/x", "file:///x/y"]
    assert [meant_by(Path(text)) for text in ("C:/x", "a/b:/c", "portfolio", "/tmp")] == [""] * 4


@pytest.mark.parametrize("text", ["file://a/b", "file://localhost/a", "local://a", "file://~/a", "file://./a"])
def test_an_address_of_a_file_here_has_an_absolute_path(text: str) -> None:
    with pytest.raises(ConfigError, match=r"needs an absolute path, with a third '/': (file|local):///PATH/NAME"):
        Store.open(text)


def test_passwords_and_control_characters_are_not_shown() -> None:
    assert shown("no route to ftp://me:secret@host/x\n\x1b[31m") == "no route to ftp://…@host/x \\x1b[31m"
    assert Store.open("memory://me:secret@host/x").address == "memory://…@host/x"


def test_without_fsspec_or_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    register_implementation("lacking", "no_such_driver.FileSystem", True, "Install no_such_driver to access it")
    with pytest.raises(FileError, match="needs a driver that is not installed: Install no_such_driver to access it"):
        Store.open("lacking://bucket/x")
    for name in ("fsspec", "fsspec.core", "fsspec.registry"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingExtraError, match=r"'s3://bucket/x' needs the package 'fsspec': pip install 'prunit\[rem"
    ):
        Store.open("s3://bucket/x")


def test_whatever_a_driver_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Credentials(Exception):
        """As those of botocore, which are no OSError."""

    def refuses(*arguments: object, **options: object) -> None:
        raise Credentials("Unable to locate\ncredentials for s3://me:secret@bucket")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuses)
    with pytest.raises(FileError) as caught:
        Store.open("memory://bucket/x").read("portfolio.json")
    message = str(caught.value)
    assert "Unable to locate credentials for s3://…@bucket; check that" in message
    assert "\n" not in message
    assert "secret" not in message


def test_a_probe_leaves_nothing(tmp_path: Path) -> None:
    Store.open(f"file://{tmp_path}/new").check_writable()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    Store.open(f"file://{tmp_path}/empty").check_writable()
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_a_name_with_a_bracket_is_refused_since_drivers_take_it_for_a_pattern() -> None:
    with pytest.raises(ConfigError, match="name one folder, without"):
        Store.open("memory://bucket/a[1]")
