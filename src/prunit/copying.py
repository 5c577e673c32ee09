"""A module copied as `copy.deepcopy` does it, its tensors replaced by others, several times faster."""

import copy
import copyreg
from collections import OrderedDict
from typing import Any, Final

from torch import nn

from prunit.graph.running import named_modules

_IMMUTABLE: Final = frozenset((bool, int, float, str, type(None)))
_CONTAINERS: Final = frozenset((dict, OrderedDict, set))


def copied_module(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """`copy.deepcopy(model, memo)`, several times faster: most of what a module holds are numbers and empty dicts.

    A module that says itself how it is copied is left to `deepcopy`.
    """
    newobj = copyreg.__newobj__  # pyright: ignore[reportAttributeAccessIssue]
    states: list[tuple[nn.Module, dict[str, Any]]] = []
    for _, module in named_modules(model):
        # Asked of an instance, a module looks for it among its parameters, buffers and children as well.
        if hasattr(type(module), "__deepcopy__") or "__deepcopy__" in module.__dict__:
            continue
        match module.__reduce_ex__(4):
            case (made_by, (kind,), dict(state), None, None) if made_by is newobj and kind is type(module):
                memo[id(module)] = kind.__new__(kind)
                states.append((module, dict(state)))
    for module, state in reversed(states):  # children first, as their parent may look at them
        for name, value in state.items():
            kind = type(value)
            if kind in _IMMUTABLE:
                continue
            if kind not in _CONTAINERS or value:
                state[name] = _copied_value(value, memo)
            else:  # most of what a module holds
                known = memo.get(id(value))
                if known is None:
                    known = memo[id(value)] = kind()
                state[name] = known
        memo[id(module)].__setstate__(state)
    return copy.deepcopy(model, memo)


def _copied_value(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is tuple:
        for part in value:
            if type(part) not in _IMMUTABLE:
                return copy.deepcopy(value, memo)
        return value
    known = memo.get(id(value))
    if known is None:
        if kind is dict and value:
            known = memo[id(value)] = {}
            for name, held in value.items():
                twin = memo.get(id(held))
                known[name if type(name) is str else _copied_value(name, memo)] = (
                    _copied_value(held, memo) if twin is None else twin
                )
        elif kind in _CONTAINERS and not value:
            known = memo[id(value)] = kind()
        else:
            known = copy.deepcopy(value, memo)
    return known
