"""Which attributes of a module may hold more than plain values: most modules of a network have none.

Who looks for code or for state goes through all attributes of all modules; a trace does so four times. While a model is
listed (see `running.listed`) each module is gone through once.
"""

from contextvars import ContextVar
from types import ModuleType
from typing import Any, Final, cast

import torch
from torch import nn

PLAIN: Final = frozenset(
    [
        *(bool, int, float, complex, str, bytes, range, slice, type, type(None), type(Ellipsis), ModuleType),
        *(torch.Size, torch.dtype, torch.device, torch.layout, torch.memory_format),
    ]
)
"""Kinds of values that hold nothing that changes."""
MODULE_OWN: Final = frozenset(vars(nn.Module()))
"""Attributes that every module has."""
KNOWN: ContextVar[dict[int, tuple[nn.Module, list[tuple[str, Any]]]] | None] = ContextVar("attributes", default=None)
"""What was found of the modules of a listed model, by identity."""


def telling(module: nn.Module) -> list[tuple[str, Any]]:
    """Name and value of its attributes, but for those of every module, plain values and tuples of them."""
    known = KNOWN.get()
    if known is not None and (hit := known.get(id(module))) is not None:
        return hit[1]
    found = []
    for name, value in module.__dict__.items():
        kind = type(value)
        if kind in PLAIN or name in MODULE_OWN or (kind is tuple and PLAIN.issuperset(map(type, value))):
            continue
        found.append((name, value))
    if known is not None:
        known[id(module)] = module, found
    return found


def settings(module: nn.Module) -> tuple[Any, ...]:
    """What the module's own code may go by, to be compared with that of another instance of its class.

    Plain values as they are; of tensors their shapes, of modules their classes; anything else is the same only if it is
    the same object.
    """
    own = module.__dict__
    held = {**own["_parameters"], **own["_buffers"], **own["_modules"]}
    held |= {name: value for name, value in own.items() if name not in MODULE_OWN}
    return tuple((name, _compared(value)) for name, value in sorted(held.items()))


def _compared(value: object) -> object:
    kind = type(value)
    if kind in PLAIN:
        return kind, value
    if isinstance(value, torch.Tensor):
        return kind, tuple(value.shape), value.dtype
    if isinstance(value, nn.Module):
        return kind
    if kind in (tuple, list):
        return kind, *map(_compared, cast("list[object]", value))
    return id(value)
