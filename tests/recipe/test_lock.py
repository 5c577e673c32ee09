"""A folder is one process's at a time: who comes second is told, and one that was killed leaves it free."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import prunit
from prunit.errors import ConfigError, FileError
from prunit.recipe import ladder
from prunit.recipe import lock as module
from prunit.recipe.folder import STATE
from prunit.recipe.lock import LOCK, check_free, holding
from prunit.recipe.sweeps import sweep
from tests.cli.running import prunit as command_line
from tests.recipe.building import CONFIG, VARIANTS, child, data, model

HOLDER = """
import sys
from pathlib import Path
from prunit.recipe.lock import holding
with holding(Path(sys.argv[1]), what="build", shown=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

BUILDER = """
import sys
from prunit.recipe import build, flow
from tests.cli.running import prunit as command_line
from tests.recipe.building import CONFIG, data, model

flow.check_exports = lambda *_: None

def on_step(step):
    if (step.variant, step.stage, step.done) == ("dense", "train", 7):
        print("held", flush=True)
        sys.stdin.read()

build(model, data(), sys.argv[1], config=CONFIG, on_step=on_step)
"""

FORKER = """
import os, sys
from pathlib import Path
from prunit.recipe.lock import holding
with holding(Path(sys.argv[1]), what="build", shown=Path(sys.argv[1])):
    if not os.fork():
        sys.stdin.read()
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def running(code: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the folder and waits; it is ended in any case."""
    process = child("-c", code, str(folder))
    assert process.stdout
    try:
        assert process.stdout.readline() == "held\n", process.communicate(timeout=60)[1]
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def content(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file, the lock too."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def test_the_second_build_is_told_who_has_the_folder_and_goes_on_after_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunit.recipe.flow.check_exports", lambda *_: None)
    folder = tmp_path / "out"
    with running(BUILDER, folder) as first:
        before = content(folder)
        told = rf"'{folder}' is in use: a build is running in it, by process {first.pid} on \S+ since 20.* UTC; wait"
        for resume in (True, False):
            with pytest.raises(ConfigError, match=told) as caught:
                prunit.build(model, data(), folder, config=CONFIG, resume=resume)
            assert "\n" not in str(caught.value)
        with pytest.raises(ConfigError, match=told):
            ladder(model(), data(), folder, config=CONFIG, resume=True)
        assert content(folder) == before
        os.kill(first.pid, signal.SIGKILL)
        first.wait(60)
        found = prunit.build(model, data(), folder, config=CONFIG, resume=True)
    assert tuple(v.name for v in found.variants) == VARIANTS
    assert found.verify(folder) == []


def test_the_command_line_says_so_in_one_line_before_it_reads_anything(tmp_path: Path) -> None:
    (tmp_path / STATE).mkdir()
    for command in ("build", "ladder"):
        with running(HOLDER, tmp_path / STATE) as first:
            before = content(tmp_path)
            found = command_line(command, "resnet20", "--data", "nowhere", "--out", tmp_path, "--resume")
            assert (found.code, found.out) == (2, "")
            assert f"in use: a build is running in it, by process {first.pid} on " in found.complaint
            assert content(tmp_path) == before


def test_a_sweep_has_its_folder_too(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with (
        running(HOLDER, folder) as first,
        pytest.raises(ConfigError, match=rf"a sweep is running in it, by process {first.pid} on"),
    ):
        sweep(model, data(), folder, config=CONFIG)
    check_free(folder, what="sweep", shown=folder)


def test_a_killed_holder_leaves_the_folder_free_even_where_its_child_lives_on(tmp_path: Path) -> None:
    with running(FORKER, tmp_path) as first:
        with pytest.raises(ConfigError, match="in use"):
            check_free(tmp_path, what="build", shown=tmp_path)
        os.kill(first.pid, signal.SIGKILL)
        first.wait(60)
        assert (tmp_path / LOCK).read_text()  # what the killed one wrote
        with holding(tmp_path, what="build", shown=tmp_path):
            assert f'"pid": {os.getpid()}' in (tmp_path / LOCK).read_text()


def test_two_builds_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    told: list[str] = []

    def second() -> None:
        try:
            with holding(tmp_path, what="build", shown=tmp_path):
                told.append("both")
        except ConfigError as error:
            told.append(str(error))

    with holding(tmp_path, what="build", shown=tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(60)
    assert len(told) == 1
    assert "by this process itself, since 20" in told[0]
    second()
    assert told[1:] == ["both"]


def test_the_lock_is_let_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), holding(tmp_path, what="build", shown=tmp_path):
        _ = 1 / 0
    check_free(tmp_path, what="build", shown=tmp_path)
    assert (tmp_path / LOCK).read_bytes() == b""


@pytest.mark.parametrize("label", ["", "{", "[1]", '{"pid": "x", "host": 1}', "\x00\xff"])
def test_a_label_that_cannot_be_read_is_another_process(tmp_path: Path, label: str) -> None:
    with running(HOLDER, tmp_path):
        (tmp_path / LOCK).write_text(label)
        with pytest.raises(ConfigError, match="by another process; wait until it ends"):
            check_free(tmp_path, what="build", shown=tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="locks are another call there")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_files_cannot_be_locked_nobody_is_kept_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "_lock", refuse)
    with holding(tmp_path, what="build", shown=tmp_path), holding(tmp_path, what="build", shown=tmp_path):
        check_free(tmp_path, what="build", shown=tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FileError, match=r"cannot use 'out': .*; choose another folder \(--out\)"),
        holding(tmp_path / "file" / "inside", what="build", shown=Path("out")),
    ):
        pass
