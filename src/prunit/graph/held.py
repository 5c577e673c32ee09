"""Code that modules hold outside of their class: functions in attributes and tables, helpers that are plain objects.

A forward pass may leave to any of these what it does in training mode, or what it takes from a shape.
"""

from collections.abc import Iterator
from functools import cached_property, partial, partialmethod
from types import FunctionType, MethodType
from typing import Any, Final

from torch import Tensor, nn

from prunit.graph.attributes import PLAIN, telling
from prunit.graph.functions import CACHE_TYPE
from prunit.graph.keeping import CONTAINERS, is_foreign

_FEW: Final = 64
"""A container of more entries is data, no table of functions."""
_DEEP: Final = 3
"""Containers and objects inside of one another that are looked into."""


def code_held_by(module: nn.Module) -> Iterator[FunctionType | type]:
    """Functions in the attributes of a module, and the classes of the objects there."""
    for _, value in telling(module):
        yield from _code_of(value, _DEEP)


def functions_of(value: Any) -> Iterator[FunctionType]:
    """The functions behind an attribute of a class: a method, a property, a table of functions."""
    if isinstance(value, FunctionType):
        yield value
    elif type(value) not in PLAIN:
        for code in _code_of(value, _DEEP):
            if isinstance(code, FunctionType):
                yield code
            else:  # a descriptor of the user's own, say
                yield from (f for f in vars(code).values() if isinstance(f, FunctionType))


def _code_of(value: Any, deep: int) -> Iterator[FunctionType | type]:
    if isinstance(value, FunctionType):
        yield value
    elif type(value) in PLAIN or isinstance(value, type | Tensor | nn.Module) or not deep:
        return
    elif isinstance(value, property):
        yield from _code_of(value.fget, deep)
    elif isinstance(value, MethodType | staticmethod | classmethod):
        yield from _code_of(value.__func__, deep)
        if isinstance(value, MethodType):
            yield from _code_of(value.__self__, deep - 1)
    elif isinstance(value, partial | partialmethod | cached_property):
        yield from _code_of(value.func, deep)
    elif isinstance(value, CACHE_TYPE):
        yield from _code_of(value.__wrapped__, deep)
    elif isinstance(value, CONTAINERS):
        if len(value) <= _FEW:
            for inner in value.values() if isinstance(value, dict) else value:
                yield from _code_of(inner, deep - 1)
    elif not is_foreign(type(value)):
        yield type(value)
        attributes = getattr(value, "__dict__", None)
        for inner in attributes.values() if type(attributes) is dict else ():
            yield from _code_of(inner, deep - 1)
