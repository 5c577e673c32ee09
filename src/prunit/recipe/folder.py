"""The folder of a build: what stands in it, and whether a build may go on there."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prunit.cut.plans import Plan
from prunit.edge.data_sets import DATA_SETS
from prunit.errors import ConfigError, FileError, PlanError
from prunit.files import write_atomically
from prunit.recipe.config import BuildConfig
from prunit.recipe.lock import check_free, holding
from prunit.train import Epoch
from prunit.version import VERSION

if TYPE_CHECKING:
    from prunit.edge.portfolio import Variant

STATE: Final = ".build"
"""Folder inside the portfolio for what only a resumed build needs."""

LATER: Final = ("precision", "parts")
"""The sections of the settings that a resumed build may change: what they say is done with variants that are there."""
TEMPLATE: Final = "template.onnx"
"""In that folder, what the files of variants are made of: see `export.template`."""
BUILD: Final = "build.json"
"""In that folder, all settings of the build, the defaults included."""


def check_folder(folder: Path, *, resume: bool) -> None:
    """Raise `ConfigError` if the folder holds something else, or a build that is running or not to be resumed.

    Nothing is written.
    """
    if folder.is_dir():
        check_free(folder / STATE, what="build", shown=folder)
    _check_content(folder, resume=resume)


def check_resumes(folder: Path, config: BuildConfig, *, kind: str = "") -> None:
    """Raise `ConfigError` where a build of other settings stands in the folder, as far as that shows without a model.

    What only data and model tell, `open_folder` compares. `kind` is 'ladder' for one, '' for a build.
    """
    file = folder / STATE / BUILD
    if not file.exists():
        return
    now: dict[str, Any] = {**config.model_dump(mode="json"), **({"kind": kind} if kind else {})}
    if config.data not in DATA_SETS:
        now.pop("data")  # a folder goes by several names
    for name in ("epochs", "batch_size"):
        if now["train"][name] is None:
            del now["train"][name]
    if config.prune.rectifier == "auto":
        del now["prune"]["rectifier"]
    _check_same(read_json(file), now, folder, {}, whole=False)


@contextmanager
def held(folder: Path, *, resume: bool) -> Generator[None, None, None]:
    """Inside, no other build may work in the folder, which is made; refused as by `check_folder`, nothing written."""
    check_folder(folder, resume=resume)
    with holding(folder / STATE, what="build", shown=folder):
        yield


def _check_content(folder: Path, *, resume: bool) -> None:
    if not folder.exists() or _unused(folder):
        return
    if not resume:
        raise ConfigError(_in_use(folder, has_build=is_started(folder)))
    if not is_started(folder):
        raise ConfigError(f"'{folder}' holds no build to resume: choose another folder (--out)")


def open_folder(
    folder: Path, settings: Mapping[str, Any], *, resume: bool, defaults: Mapping[str, Any] | None = None
) -> Path:
    """The folder, which is `held`, with the build's settings written down; refuses one that holds something else.

    A setting that an older prunit did not know, and so did not write down, counts as its default.
    Raises `ConfigError` for a folder in use, or a resumed build whose settings are not those it was started with, and
    `FileError` where the folder cannot be written.
    """
    file = folder / STATE / BUILD
    now = json.loads(json.dumps({"format": "prunit-build", "version": 1, "prunit": VERSION, **settings}))
    before: Any = None
    try:
        _check_content(folder, resume=resume)
        if file.exists():
            before = read_json(file)
            _check_same(before, now, folder, defaults or {})
            now = {**before, **{section: now[section] for section in LATER if section in now}}
        (folder / STATE).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot use '{folder}': {error.strerror}; choose another folder (--out)") from error
    if now != before:
        write_atomically(file, json.dumps(now, indent=2))
    return folder


def is_started(folder: Path) -> bool:
    """A build has been started in the folder."""
    return (folder / STATE / BUILD).exists()


def _unused(folder: Path) -> bool:
    """The folder is empty, or holds no more than a build that was killed before it wrote its first file."""
    if not folder.is_dir():
        return False
    inside = [p.name for p in folder.iterdir()]
    return not inside or (inside == [STATE] and not any(not p.name.startswith(".") for p in (folder / STATE).iterdir()))


def _in_use(folder: Path, *, has_build: bool) -> str:
    if not folder.is_dir():
        return f"'{folder}' is a file: choose a folder (--out) that is empty or not there yet"
    if has_build:
        return f"'{folder}' already holds a build: continue it with --resume, or choose another folder (--out)"
    return f"'{folder}' is not empty: choose a folder (--out) that is empty or not there yet"


def read_json(file: Path) -> Any:
    """What a JSON file of the build's state holds; `FileError` says how to go on if it is damaged."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error


def read_history(file: Path) -> list[Epoch]:
    """The epochs of a training that is done."""
    try:
        return [Epoch(**e) for e in read_json(file)]
    except TypeError as error:
        raise _damaged(file, error) from error


def intact_variant(file: Path, folder: Path) -> "Variant | None":
    """The record of a variant if its files in `folder` are as they were written, else None."""
    from prunit.edge.portfolio import Portfolio, Variant

    try:
        variant = Variant.model_validate_json(file.read_text())
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error
    # A portfolio without the rest: only its variants are looked at.
    return None if Portfolio.model_construct(variants=(variant,)).verify(folder) else variant


def _damaged(file: Path, error: Exception) -> FileError:
    reason = " ".join(str(error).split())[:200]
    return FileError(f"'{file}' is damaged ({reason}); remove it and resume the build")


def read_plan(file: Path) -> Plan:
    """The plan in a JSON file; `PlanError` names the file if it holds none."""
    try:
        return Plan.from_json(file.read_text())
    except OSError as error:
        raise FileError(f"cannot read the plan '{file}': {error.strerror}") from error
    except (PlanError, UnicodeDecodeError) as error:
        raise PlanError(f"'{file}': {error}") from error


def _check_same(
    before: Any, now: Mapping[str, Any], folder: Path, defaults: Mapping[str, Any], *, whole: bool = True
) -> None:
    """Raise `ConfigError` for the first setting that differs; not `whole`: of those that both sides have."""
    if not isinstance(before, dict) or before.get("format") != "prunit-build":
        raise ConfigError(f"'{folder}' holds no build to resume: choose another folder (--out)")
    old, new = _flat(before), _flat(now)
    old = {name: value for name, value in _flat(defaults).items() if name in new} | old
    names = [*new, *(name for name in old if name not in new)] if whole else [name for name in new if name in old]
    for name in names:
        if name != "prunit" and name.partition(".")[0] not in LATER and old.get(name) != new.get(name):
            raise ConfigError(
                f"the build in '{folder}' was started with {name}={old.get(name)}, now it is {new.get(name)}: resume "
                "it as it was started, or choose another folder (--out)"
            )


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
