"""Files are whole or as they were."""

import hashlib
import os
from pathlib import Path

import pytest

from prunit.errors import FileError
from prunit.files import sha256_of, write_atomically


def test_text_and_bytes_are_written_whole_and_folders_are_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "plan.json", "prüfen\n")
    write_atomically(tmp_path / "a" / "plan.json", b"again")
    assert (tmp_path / "a" / "plan.json").read_bytes() == b"again"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["plan.json"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failure_at_any_step_leaves_the_old_file_alone(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if step == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(Path, {"write": "write_bytes", "replace": "replace"}[step], full)
        with pytest.raises(FileError, match=r"cannot write '.*plan.json': No space left on device; check") as caught:
            write_atomically(path, "new")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(FileError, match=r"cannot write '.*a/plan.json': "):
        write_atomically(tmp_path / "a" / "plan.json", "x")


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"prunit" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"prunit" * 100_000).hexdigest()
