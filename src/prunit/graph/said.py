"""Sizes that modules note for code that is not their forward: a method that fuses branches, a printout, an export.

A block says `self.groups = groups` beside the layers that it makes with it, and fuses them by that number later. The
tracer never sees it. It is set where all is clear: by its name it is an input, an output or a number of groups, all
layers of the block that had this number have another one now, the same, and no forward reads it: a number that is
computed with must stay what it was.
"""

import re
from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType
from typing import Any, Final

from torch import nn

from prunit.graph.running import named_modules
from prunit.graph.sizes import LAYERS, Sizes

_SIDES: Final = (
    (
        re.compile(r"_?(in|inp|input)_?(channels?|chs?|planes?|dims?|features?|filters?|maps?)"),
        ("in_channels", "in_features"),
    ),
    (
        re.compile(r"_?(out|output)_?(channels?|chs?|planes?|dims?|features?|filters?|maps?)"),
        ("out_channels", "out_features"),
    ),
    (re.compile(r"_?(num_|n_)?groups?"), ("groups",)),
)
"""What modules call their sizes, and what layers of torch.nn call the same."""


def sizes_said(model: nn.Module, small: nn.Module) -> Sizes:
    """The attributes of a compact model that still say what the dense one had, and what they must become."""
    layers = {path: module for path, module in named_modules(model) if isinstance(module, LAYERS)}
    others = [(path, m) for path, m in named_modules(model) if path not in layers and not _of_torch(type(m))]
    read = frozenset().union(*(_read_in_forward(type(module)) for _, module in others))
    found: Sizes = {}
    for path, module in others:
        for name, value in vars(module).items():
            if (
                type(value) is not int
                or value < 2
                or name in read
                or getattr(small.get_submodule(path), name, 0) != value
            ):
                continue
            names = next((sides for pattern, sides in _SIDES if pattern.fullmatch(name)), ())
            now = {
                getattr(small.get_submodule(inner), side)
                for inner, layer in (layers.items() if names else ())
                if not path or inner.startswith(f"{path}.")
                for side in names
                if getattr(layer, side, None) == value
            }
            if len(now) == 1 and (new := now.pop()) != value:
                found.setdefault(path, {})[name] = new
    return found


def _of_torch(kind: type) -> bool:
    return kind.__module__.startswith("torch.")


@cache
def _read_in_forward(kind: type) -> frozenset[str]:
    """Names in the code of a class's forward, and of the methods that it mentions."""
    methods: dict[str, FunctionType] = {}
    for base in reversed(kind.__mro__):
        if not _of_torch(base):
            methods |= {name: f for name, held in vars(base).items() for f in _functions(held)}
    names: set[str] = set()
    waiting = ["forward", "__call__"]
    while waiting:
        function = methods.pop(waiting.pop(), None)
        if function is not None:
            more = set(_names_in(function.__code__)) - names
            names |= more
            waiting += more
    return frozenset(names)


def _functions(held: Any) -> Iterator[FunctionType]:
    for function in (held, getattr(held, "fget", None), getattr(held, "__func__", None)):
        if isinstance(function, FunctionType):
            yield function


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from (c for c in code.co_consts if isinstance(c, str))  # of getattr
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
