"""What a function sees: variables of its closure, defaults, and the globals that its code names."""

import dis
from collections.abc import Iterator
from functools import lru_cache
from types import CellType, CodeType, FunctionType
from typing import Any, Final

CACHE_TYPE: Final = type(lru_cache(len))
"""Functions that note their results."""


def cells_of(function: FunctionType) -> list[tuple[str, CellType, Any]]:
    """Name, cell and content of each variable of the closure that has a value already."""
    found: list[tuple[str, CellType, Any]] = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found.append((name, cell, cell.cell_contents))
        except ValueError:  # a variable that gets its value later
            continue
    return found


def defaults_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Name and value of each parameter that has a default."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    yield from zip(names[len(names) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()


def globals_of(function: FunctionType, *, roughly: bool = False) -> dict[str, Any]:
    """Those global variables that the function's code names, by name.

    With `roughly` also those that have the name of an attribute which it asks for: twenty times as fast.
    """
    known = function.__globals__
    named = _all_named(function.__code__) if roughly else _named(function.__code__)
    return {name: known[name] for name in named if name in known}


def _all_named(code: CodeType) -> tuple[str, ...]:
    inner = [_all_named(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return tuple(dict.fromkeys((*code.co_names, *(name for names in inner for name in names))))


@lru_cache(1 << 10)
def _named(code: CodeType) -> tuple[str, ...]:
    # By the instructions: co_names holds attributes as well.
    names = {str(i.argval): None for i in dis.get_instructions(code) if i.opname.endswith(("_GLOBAL", "_NAME"))}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= dict.fromkeys(_named(constant))
    return tuple(names)
