"""An example as plain data: shapes and dtypes for its tensors, all else as it is; JSON both ways.

    describe((torch.zeros(1, 3, 32, 32), {"scale": 2.0}))
    {"tuple": [{"tensor": [1, 3, 32, 32], "dtype": "float32"}, {"dict": {"scale": 2.0}}]}

A tracer looks only at shapes and dtypes, so the description is enough to trace the model again.
"""

from typing import Any

import torch
from torch import Tensor

from prunit.errors import PlanError

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
    """An example of that description, its tensors zeros on `device`; floating ones in `dtype` where that is given.

    Raises `PlanError` for what `describe` does not write.
    """
    match description:
        case {"tensor": [*shape], "dtype": str(name)} if all(type(n) is int and n >= 0 for n in shape):
            own = getattr(torch, name, None)
            if isinstance(own, torch.dtype):
                return torch.zeros(shape, dtype=dtype if dtype and own.is_floating_point else own, device=device)
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


def _described(value: Any) -> Any:
    kind = type(value)
    if isinstance(value, Tensor):
        return {"tensor": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
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
