"""What operators have given on the meta device, to be given again: PyTorch finds many shapes there by decomposing.

A clamp takes a millisecond so. As tensors hold no values there, what comes out follows from the shapes, strides and
dtypes that go in and from the other arguments. And the same is asked for again and again: in the blocks of a network,
in both modes, in each reading of its code.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from prunit.graph.rules.seam import by_operator

_META: Final = torch.device("meta")
_MOST: Final = 1 << 13
"""So many answers are kept, those that were asked for last."""
_NUMBERS: Final = frozenset((int, float, bool))
_OTHERS: Final = frozenset((str, type(None), torch.dtype, torch.layout, torch.device, torch.memory_format))
_TAGS: Final = frozenset(
    (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded)
)
_INDEX: Final = torch.ops.aten.index.Tensor
"""Its shape depends on values only where it is asked by a mask, which fails on the meta device."""


class _Made(NamedTuple):
    """A new tensor."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class _Several(NamedTuple):
    """A list or tuple of new tensors."""

    kind: type
    made: list[_Made]


class _Written(NamedTuple):
    """The first argument, which keeps its shape."""


Answer = _Made | _Several | _Written
_ANSWERS: Final[OrderedDict[Any, Answer]] = OrderedDict()


class _Unknown(Exception):
    """An argument of which more may matter than is noted here."""


@by_operator
def _way(func: Any) -> Callable[..., Answer | None] | None:
    """How to note what an operator gives: new tensors, or its first argument; None for all others."""
    arguments, returns = func._schema.arguments, func._schema.returns
    dynamic = not _TAGS.isdisjoint(func.tags) and func is not _INDEX
    if dynamic or not arguments or not returns:
        return None
    written, given = [a.alias_info for a in arguments], [r.alias_info for r in returns]
    if not any(written) and not any(given):
        return _new
    alone = written[0] is not None and written[0].is_write and not any(written[1:])
    return _first if alone and len(given) == 1 and given[0] is not None and given[0].is_write else None


def answer(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor]) -> Any:
    """What `func(*args, **kwargs)` gives on the meta device; `inputs` are the tensors among the arguments."""
    way = _way(func)
    if way is None or not inputs or torch.is_inference_mode_enabled():
        return func(*args, **kwargs)
    try:
        key = (id(func), torch.get_default_dtype(), _noted(args), _noted(tuple(kwargs.items())))
    except _Unknown:
        return func(*args, **kwargs)
    known = _ANSWERS.get(key)
    if known is not None:
        _ANSWERS.move_to_end(key)
        return _given(known, args)
    out = func(*args, **kwargs)
    found = way(args, inputs, key[2], out)
    if found is not None:
        _ANSWERS[key] = found
        if len(_ANSWERS) > _MOST:
            _ANSWERS.popitem(last=False)
    return out


def _noted(value: Any) -> Any:
    """All that what comes out may depend on: of a tensor that is not its values."""
    kind = type(value)
    if kind is Tensor:
        # One of no dimensions may stand for a number, whose dtype counts for less.
        if not value.is_meta or not value.ndim or value.layout is not torch.strided or value.is_complex():
            raise _Unknown
        return value.shape, value.stride(), value.dtype
    if kind in _NUMBERS:
        return kind, value  # 1, 1.0 and True are equal, and give other dtypes
    if kind in _OTHERS:
        return value
    if kind is list or kind is tuple:
        return tuple([_noted(part) for part in value])
    raise _Unknown


def _given(known: Answer, args: tuple[Any, ...]) -> Any:
    if isinstance(known, _Made):
        return _anew(known)
    return known.kind(map(_anew, known.made)) if isinstance(known, _Several) else args[0]


def _anew(made: _Made) -> Tensor:
    return torch.empty_strided(made.shape, made.strides, dtype=made.dtype, device=_META)


def _first(args: tuple[Any, ...], inputs: list[Tensor], before: Any, out: Any) -> Answer | None:
    """An operator has left the shape of what it wrote to."""
    return _Written() if out is args[0] and _noted(out) == before[0] else None


def _new(args: tuple[Any, ...], inputs: list[Tensor], before: Any, out: Any) -> Answer | None:
    """Shapes, strides and dtypes, if these are tensors in memory of their own."""
    several = type(out) in (list, tuple)
    parts = list(out) if several else [out]
    if any(type(x) is not Tensor or not x.is_meta or x.layout is not torch.strided for x in parts):
        return None
    memory = [x.untyped_storage()._cdata for x in (*inputs, *parts)]
    if len(set(memory[len(inputs) :])) < len(parts) or not set(memory[len(inputs) :]).isdisjoint(memory[: len(inputs)]):
        return None
    if any(x.storage_offset() or x.is_complex() or x.requires_grad for x in parts):
        return None
    made = [_Made(tuple(x.shape), x.stride(), x.dtype) for x in parts]
    return _Several(type(out), made) if several else made[0]
