"""The installed form: made once, made anew where it must be, and never what a portfolio depends on."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prunit.edge import install as installing
from prunit.edge.install import RECORD, install, opened, place_of, problem, read
from prunit.edge.portfolio import Portfolio
from prunit.edge.switching.switch import Switcher
from prunit.errors import FileError, PortfolioError
from tests.edge.folders import FACTORS, X_BCHW, gives, portfolio_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    portfolio_in(tmp_path / "portfolio")
    return tmp_path / "portfolio"


def test_the_installed_form_is_made_once_and_made_anew_where_it_must_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    portfolio, place = Portfolio.read(folder), place_of(folder)
    made = install(portfolio, folder)
    assert set(made.variants) == set(FACTORS)
    assert made.failed == {}
    times = {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.suffix in (".onnx", ".bin")}
    assert len(times) == 6  # the weights lie beside the graph
    assert install(portfolio, folder) == made
    assert {file: file.stat().st_mtime_ns for file in times} == times
    # A file that was changed since is made anew.
    weights = place / made.variants["small"].files[1].path
    weights.write_bytes(b"x" * weights.stat().st_size)
    assert "was changed" in problem(place, made.variants["small"])
    again = install(portfolio, folder)
    assert again.variants["large"] == made.variants["large"]
    session, note = opened(portfolio.variant("small"), folder, place=place, installed=again)
    assert note == ""
    assert gives(session.run(X_BCHW), X_BCHW, "small")
    # Another CPU, or another engine: nothing of it may be used.
    monkeypatch.setattr(installing, "cpu_features", lambda: "another")
    assert read(place) is None
    assert set(install(portfolio, folder).variants) == set(FACTORS)


def test_the_portable_file_serves_where_the_installed_form_does_not(folder: Path) -> None:
    portfolio, place = Portfolio.read(folder), place_of(folder)
    made = install(portfolio, folder)
    (place / made.variants["small"].model).unlink()
    session, note = opened(portfolio.variant("small"), folder, place=place, installed=made)
    assert "the installed form is not used" in note
    assert gives(session.run(X_BCHW), X_BCHW, "small")
    with Switcher(folder) as switcher:  # it repairs what is installed
        assert (place / made.variants["small"].model).exists()
        assert switcher.switch("small").wait(5)
    (folder / "small.onnx").write_bytes(b"other")
    with pytest.raises(PortfolioError, match=r"'small\.onnx' was changed"):
        opened(portfolio.variant("small"), folder)


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        yield


def test_a_full_disk_does_not_keep_it_from_serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with full_disk(monkeypatch):
        with pytest.raises(FileError, match="cannot install into"):
            install(Portfolio.read(folder), folder)
        with Switcher(folder) as switcher:
            assert [e.kind for e in switcher.events] == ["install"]
            assert switcher.switch("small").wait(5)
            assert switcher.run(X_BCHW).variant == "small"


def test_a_folder_that_is_read_only_has_its_cache_elsewhere(folder: Path, tmp_path: Path) -> None:
    with Switcher(folder, cache=tmp_path / "cache") as switcher:
        assert (tmp_path / "cache" / RECORD).exists()
        assert not (folder / installing.FOLDER).exists()
        assert switcher.run(X_BCHW).variant == "large"


def test_what_belongs_to_no_variant_any_more_is_removed(folder: Path) -> None:
    portfolio = Portfolio.read(folder)
    install(portfolio, folder)
    fewer = portfolio.model_copy(update={"variants": portfolio.variants[:1]})
    install(fewer, folder)
    assert [path.name.partition("-")[0] for path in place_of(folder).iterdir() if path.is_dir()] == ["large"]


@pytest.mark.skipif(sys.platform == "win32", reason="there each process makes its own")
def test_processes_that_begin_together_share_one_installed_form(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from prunit.edge.install import install, place_of; from prunit.edge.portfolio import Portfolio\n"
        "folder = Path(sys.argv[1]); print('here', flush=True); sys.stdin.readline()\n"
        "made = install(Portfolio.read(folder), folder)\n"
        "assert not made.failed, made.failed\n"
        "print(*[(place_of(folder) / f.path).stat().st_ino for v in made.variants.values() for f in v.files])"
    )
    command = [sys.executable, "-c", code, str(folder)]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    told = []
    for child in children:  # all of them have imported what they need
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        out, error = child.communicate(timeout=60)
        assert child.returncode == 0, error
        told.append(out)
    assert len(set(told)) == 1
    assert not [file for file in place_of(folder).iterdir() if file.name.startswith(".") and file.is_dir()]


def test_only_what_is_asked_for_is_told_and_made(folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    portfolio = Portfolio.read(folder)
    wanted = [variant.name for variant in portfolio.variants][1:]
    found = install(portfolio, folder, only=wanted, on_variant=lambda *step: told.append(step))
    assert list(found.variants) == wanted
    assert told == [(name, turn, len(wanted)) for turn, name in enumerate(wanted)]
