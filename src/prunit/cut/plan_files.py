"""A plan out of a file: one in JSON, or one inside a weights file, whose tensors are not read. Loads no torch."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from prunit.cut.plans import Plan
from prunit.errors import FileError, PlanError
from prunit.version import VERSION

FORMAT: Final = "prunit-weights"
FORMAT_VERSION: Final = 1
KEY: Final = "prunit"
"""Of a weights file's metadata: all that prunit adds to the tensors, as JSON."""


def read_plan(path: Path | str) -> Plan:
    """The plan inside a weights file."""
    with refusals(Path(path)), safe_open(str(path), framework="np") as file:
        return plan_of(about_in(Path(path), file.metadata()))


def about_in(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What the metadata of a weights file say; `FileError` where prunit did not write it, or a later one did."""
    about = json.loads((metadata or {}).get(KEY, "{}"))
    if about.get("format") != FORMAT:
        raise FileError(f"'{path}' holds tensors but no plan, prunit did not write it: write it with prunit.save")
    if int(about["version"]) > FORMAT_VERSION:
        writer = about.get("prunit", "of later")
        raise FileError(
            f"'{path}' was written by prunit {writer}, which this one ({VERSION}) cannot read: upgrade prunit"
        )
    return about


def plan_of(about: Mapping[str, Any]) -> Plan:
    """The plan in these metadata."""
    return Plan.from_json(json.dumps(about["plan"]))


@contextmanager
def refusals(path: Path) -> Generator[None, None, None]:
    """Inside, what is wrong with a weights file becomes a `FileError` or a `PlanError` that names it."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise FileError(f"cannot read '{path}': {error.strerror or error}") from error
    except PlanError as error:
        raise PlanError(f"'{path}': {error}") from error
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise FileError(f"'{path}' is not a whole .safetensors file of prunit: {why}") from error
