"""The tools that write, run and compile networks of integers: whether they are installed, and in what version."""

import importlib.metadata
from collections.abc import Iterable, Mapping
from typing import Final

from prunit.errors import MissingExtraError
from prunit.mcu.parts import Kind, Part

_WRITES: Final = ("flatbuffers", "ai-edge-litert")
_ASKED: Final[Mapping[Kind, str]] = {"tflm": "tflite-micro", "ethos-u": "ethos-u-vela"}


def check_tools(parts: Iterable[Part]) -> None:
    """Raise `MissingExtraError` where what these parts need is not installed; nothing is imported."""
    needed = dict.fromkeys(name for part in parts for name in (*_WRITES, _ASKED[part.kind]))
    for name in needed:
        version_of(name)


def version_of(package: str) -> str:
    """The version of an installed package; `MissingExtraError` without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtraError("making networks for microcontrollers and NPUs", package, "mcu") from None


def named(package: str) -> str:
    """The package and its version, for records."""
    return f"{package} {version_of(package)}"
