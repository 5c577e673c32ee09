"""An example as plain data: shapes and dtypes for its tensors, all else as it is; JSON both ways.

    describe((torch.zeros(1, 3, 32, 32), torch.tensor([7]), {"scale": 2.0}))
    {"tuple": [{"tensor": [1, 3, 32, 32], "dtype": "float32"}, {"tensor": [1], "dtype": "int64", "values": [7]},
    {"dict": {"scale": 2.0}}]}

A tracer looks only at shapes and dtypes, so the description is enough to trace the model again. Short tensors of
integers are noted by value, too: a model may look at those (lengths, say), and fail on zeros.
"""

import math
from typing import Any, Final

import torch
from torch import Tensor

from prunit.errors import PlanError

_MOST_VALUES: Final = 256
"""Tensors of integers of at most so many elements are noted by value."""
_WHOLE: Final = frozenset((torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))
_PLAIN = (bool, int, float, str, type(None))


def describe(example: Any) -> Any:
    """The description of an example as `trace` takes it: tensors, tuples, lists, dicts, numbers, strings, None.

    None where it holds anything else: then the example itself has to be given again.
    """
    try:
        return _described(example)
    except TypeError:
        return None


def example_from(description: Any, device: torch.device | str = "meta", dtype: torch.dtype | None = None) -> Any:
    """An example of that description, on `device`; its tensors are zeros where no values are noted.

    Floating ones are in `dtype` where that is given. Raises `PlanError` for what `describe` does not write.
    """
    match description:
        case {"tensor": [*shape], "dtype": str(name)} if all(type(n) is int and n >= 0 for n in shape):
            own: Any = getattr(torch, name, None)
            values = description.get("values")
            if isinstance(own, torch.dtype) and values is None:
                return torch.zeros(shape, dtype=dtype if dtype and own.is_floating_point else own, device=device)
            if values is not None and isinstance(own, torch.dtype) and _are_of(values, math.prod(shape), own):
                return torch.tensor(values, dtype=own, device=device).reshape(shape)
        case {"tuple": [*parts]}:
            return tuple(example_from(part, device, dtype) for part in parts)
        case {"dict": dict(parts)}:
            return {name: example_from(part, device, dtype) for name, part in parts.items()}
        case {"float": "inf" | "-inf" | "nan" as number}:
            return float(number)
        case list(parts):
            return [example_from(part, device, dtype) for part in parts]
        case bool() | int() | float() | str() | None:
            return description
    raise PlanError(f"the plan's inputs hold {str(description)[:80]}, which this prunit cannot read: pass an example")


def notes_all_integers(description: Any) -> bool:
    """Whether no tensor of integers is described by its shape alone."""
    match description:
        case {"tensor": [*_], "dtype": str(name)}:
            return "values" in description or getattr(torch, name, None) not in _WHOLE
        case {"tuple": [*parts]} | list(parts):
            return all(map(notes_all_integers, parts))
        case {"dict": dict(parts)}:
            return all(map(notes_all_integers, parts.values()))
    return True


def _are_of(values: Any, count: int, dtype: torch.dtype) -> bool:
    """Whether these are as many values as a tensor of that type holds, and fit it."""
    if dtype not in _WHOLE or not isinstance(values, list) or len(values) != count:
        return False
    if dtype is torch.bool:
        return all(type(value) is bool for value in values)
    range = torch.iinfo(dtype)
    return all(type(value) is int and range.min <= value <= range.max for value in values)


def _described(value: Any) -> Any:
    kind = type(value)
    if isinstance(value, Tensor):
        about = {"tensor": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        whole = value.dtype in _WHOLE and value.numel() <= _MOST_VALUES and not value.is_meta
        return about | {"values": value.flatten().tolist()} if whole else about
    if kind is float and value - value != 0:  # JSON has no word for an infinity or NaN
        return {"float": str(value)}
    if kind in _PLAIN:
        return value
    if kind is list:
        return [_described(part) for part in value]
    if kind is tuple:
        return {"tuple": [_described(part) for part in value]}
    if kind is dict and all(type(name) is str for name in value):
        return {"dict": {name: _described(part) for name, part in value.items()}}
    raise TypeError(f"a plan cannot describe a {kind.__name__}")


def noise_of(value: Any) -> Any:
    """The same shapes, of floating point filled with noise: an image of zeros would hide much."""
    if isinstance(value, Tensor) and value.is_floating_point():
        generator = torch.Generator().manual_seed(0)
        return torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
    if isinstance(value, dict):
        return {name: noise_of(held) for name, held in value.items()}
    return type(value)(map(noise_of, value)) if type(value) in (list, tuple) else value
