"""What belongs to a model, and what sees any of it: functions, methods and references among others."""

import weakref
from collections.abc import Iterator
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunit.graph.attributes import PLAIN
from prunit.graph.functions import CACHE_TYPE, cells_of, defaults_of, globals_of
from prunit.graph.keeping import CONTAINERS, MANY, is_foreign, slots_of
from prunit.graph.running import named_modules

_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, MethodWrapperType, partial, CACHE_TYPE)
_REFERENCES = (weakref.ReferenceType, weakref.ProxyType, weakref.CallableProxyType)
_WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet)


class Belongings:
    """A model's modules and tensors, and the containers and objects in its attributes."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._own: dict[int, Any] | None = None

    def seen_by(self, value: Any) -> bool:
        """Whether `value` is of the model, or holds or calls anything that is."""
        waiting, seen = [value], {}
        while waiting:
            held = waiting.pop()
            if id(held) in seen or _is_plain(held):
                continue
            seen[id(held)] = held
            if id(held) in self._all():
                return True
            waiting += _parts(held)
        return False

    def owns(self, value: Any) -> bool:
        """Whether it is of the model."""
        return id(value) in self._all()

    def global_seen_by(self, function: FunctionType) -> str:
        """The global variable through which the function's code sees any of the model; '' if there is none."""
        return next((name for name, value in _globals(function) if self.seen_by(value)), "")

    def _all(self) -> dict[int, Any]:
        if self._own is None:
            self._own = {}
            waiting: list[Any] = [module for _, module in named_modules(self._model)]
            while waiting:
                held = waiting.pop()
                if id(held) in self._own or _is_plain(held) or isinstance(held, _FUNCTIONS + _REFERENCES):
                    continue
                if not isinstance(held, tuple | frozenset):  # those may be constants that anyone holds
                    self._own[id(held)] = held
                waiting += _parts(held)
        return self._own


def referent(proxy: Any) -> Any:
    """What a weak proxy stands for, None if it is gone."""
    try:
        return proxy.__repr__.__self__
    except (ReferenceError, AttributeError):
        return None


def _is_plain(value: Any) -> bool:
    return type(value) in PLAIN or isinstance(value, type)


def _parts(value: Any) -> Iterator[Any]:
    """What a value holds or, if it can be called, sees."""
    kind = type(value)
    if kind in (weakref.ProxyType, weakref.CallableProxyType):
        yield referent(value)
    elif isinstance(value, Tensor):
        return
    elif isinstance(value, CONTAINERS):
        if len(value) <= MANY:
            yield from (*value.keys(), *value.values()) if isinstance(value, dict) else tuple(value)
        yield from getattr(value, "__dict__", {}).values()  # a class of the user's own
    elif isinstance(value, FunctionType):
        yield from (content for _, _, content in cells_of(value))
        yield from (default for _, default in defaults_of(value))
        yield from value.__dict__.values()
        yield from (held for _, held in _globals(value))
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, BuiltinFunctionType | MethodWrapperType):
        yield value.__self__
    elif isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, CACHE_TYPE):
        yield value.__wrapped__
    elif isinstance(value, weakref.ReferenceType):
        yield value()
    elif isinstance(value, weakref.WeakSet):
        yield from value
    elif isinstance(value, weakref.WeakKeyDictionary | weakref.WeakValueDictionary):
        yield from (*value.keys(), *value.values())
    elif isinstance(value, RemovableHandle):
        yield value.hooks_dict_ref()
    elif isinstance(value, nn.Module) or not is_foreign(kind):
        attributes = getattr(value, "__dict__", None)
        if type(attributes) is dict:
            yield from attributes.values()
        for _, slot in slots_of(kind):
            try:
                yield slot.__get__(value)
            except AttributeError:
                continue


def _globals(function: FunctionType) -> Iterator[tuple[str, Any]]:
    of = function.__globals__
    if is_foreign(of.get("__name__", "")):
        return
    for name, value in globals_of(function).items():
        if not _is_plain(value) and not isinstance(value, ModuleType):
            if not isinstance(value, FunctionType) or value.__globals__ is of:
                yield name, value
