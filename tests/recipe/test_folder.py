"""The folder of a build: whose it is, whether a build may go on in it, and what is said if not."""

import json
from pathlib import Path

import pytest

from prunit.errors import ConfigError, FileError, PlanError
from prunit.recipe.folder import (
    STATE,
    intact_variant,
    is_started,
    open_folder,
    read_history,
    read_json,
    read_plan,
)

SETTINGS = {"model": "resnet20", "train": {"epochs": 3, "lr": None}, "budgets": ("params=1/4",)}


def test_new_folder_is_made_and_remembers_its_settings(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert not is_started(folder)
    assert open_folder(folder, SETTINGS, resume=False) == folder
    assert is_started(folder)
    written = json.loads((folder / STATE / "build.json").read_text())
    assert written["format"] == "prunit-build"
    assert written["train"] == {"epochs": 3, "lr": None}


@pytest.mark.parametrize("resume", [False, True])
def test_empty_folder_is_used(tmp_path: Path, resume: bool) -> None:
    assert open_folder(tmp_path, SETTINGS, resume=resume) == tmp_path


def test_same_settings_are_resumed_and_the_record_stays(tmp_path: Path) -> None:
    open_folder(tmp_path, SETTINGS, resume=False)
    before = (tmp_path / STATE / "build.json").read_bytes()
    open_folder(tmp_path, {**SETTINGS, "budgets": ["params=1/4"]}, resume=True)
    assert (tmp_path / STATE / "build.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "vgg16"}, "with model=resnet20, now it is vgg16"),
        ({"train": {"epochs": 4, "lr": None}}, r"with train\.epochs=3, now it is 4"),
        ({"train": {"epochs": 3, "lr": 0.1}}, r"with train\.lr=None, now it is 0\.1"),
        ({"budgets": ["params=1/8"]}, r"with budgets=\['params=1/4'\], now it is \['params=1/8'\]"),
        ({"new": 1}, "with new=None, now it is 1"),
        ({"budgets": [], "model": "vgg16"}, "with model=resnet20, now it is vgg16"),
    ],
)
def test_other_settings_are_refused_with_the_first_difference(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    open_folder(tmp_path, SETTINGS, resume=False)
    with pytest.raises(ConfigError, match=f"the build in '.*' was started {message}: resume it as it was started"):
        open_folder(tmp_path, {**SETTINGS, **changed}, resume=True)


def test_another_version_of_prunit_may_resume(tmp_path: Path) -> None:
    open_folder(tmp_path, SETTINGS, resume=False)
    file = tmp_path / STATE / "build.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prunit": "0.0.1"}))
    open_folder(tmp_path, SETTINGS, resume=True)


def test_folder_with_a_build_is_not_taken_without_resume(tmp_path: Path) -> None:
    open_folder(tmp_path, SETTINGS, resume=False)
    with pytest.raises(ConfigError, match="already holds a build: continue it with --resume"):
        open_folder(tmp_path, SETTINGS, resume=False)


def test_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(ConfigError, match=r"is not empty: choose a folder \(--out\)"):
        open_folder(tmp_path, SETTINGS, resume=False)
    with pytest.raises(ConfigError, match="holds no build to resume"):
        open_folder(tmp_path, SETTINGS, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("resume", [False, True])
def test_build_that_was_killed_before_its_first_file_can_begin_again(tmp_path: Path, resume: bool) -> None:
    (tmp_path / STATE).mkdir()
    (tmp_path / STATE / ".build.tmp.json").write_text('{"form')
    open_folder(tmp_path, SETTINGS, resume=resume)
    assert is_started(tmp_path)


@pytest.mark.parametrize("resume", [False, True])
def test_file_in_the_place_of_the_folder_is_one_line(tmp_path: Path, resume: bool) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises((ConfigError, FileError), match=r"'.*file'.*--out") as caught:
        open_folder(file, SETTINGS, resume=resume)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileError, match=r"cannot use '.*inside': Not a directory; choose another folder"):
        open_folder(file / "inside", SETTINGS, resume=resume)


def test_folder_that_may_not_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(FileError, match=r"cannot use '.*out': Permission denied; choose another folder"):
        open_folder(tmp_path / "out", SETTINGS, resume=False)


@pytest.mark.parametrize("content", ['{"format": "other"}', "[]", "{", ""])
def test_damaged_record_of_a_build_is_refused(tmp_path: Path, content: str) -> None:
    open_folder(tmp_path, SETTINGS, resume=False)
    (tmp_path / STATE / "build.json").write_text(content)
    with pytest.raises((ConfigError, FileError), match=r"holds no build to resume|build\.json' is damaged"):
        open_folder(tmp_path, SETTINGS, resume=True)


@pytest.mark.parametrize("content", ["", "[{}]", "[1]", '{"index": 1}', "\x00"])
def test_damaged_state_names_the_file_and_what_to_do(tmp_path: Path, content: str) -> None:
    file = tmp_path / "state.json"
    file.write_text(content)
    with pytest.raises(FileError, match=r"'.*state\.json' is damaged \(.*\); remove it and resume the build"):
        read_history(file)
    with pytest.raises(FileError, match=r"'.*state\.json' is damaged \(.*\); remove it and resume the build") as caught:
        intact_variant(file, tmp_path)
    assert "\n" not in str(caught.value)


def test_state_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"'.*none\.json' is damaged"):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"format": "prunit-plan"}'])
def test_broken_plan_names_its_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "cut.json"
    file.write_bytes(content)
    with pytest.raises(PlanError, match=r"'.*cut\.json': "):
        read_plan(file)
    assert file.read_bytes() == content


def test_plan_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read the plan '.*none\.json': No such file"):
        read_plan(tmp_path / "none.json")
