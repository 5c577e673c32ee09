"""What is told of the tensors that hold a flow, see `flow`."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import torch
from torch import Tensor

from prunit.scores.folded import Fold, unfolded

_TOP: Final = 2.0**40
_FURTHEST: Final = 120
"""Two to this power is within float32."""


class Plainly(Exception):
    """A call that cannot be done on what is held here: the pass has to be run with all places, and without powers."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a tensor of the flow holds."""

    power: int = 0
    folds: Mapping[int, Fold] = field(default_factory=dict)


PLAIN: Final = Told()
"""All places, power 0."""


def told_of(x: object) -> Told | None:
    """What is told of a tensor; None: it is no flow."""
    return x.__dict__.get("_prunit_flow") if isinstance(x, Tensor) else None


def tell(x: Tensor, told: Told) -> Tensor:
    """The tensor, a flow from now on."""
    cast("dict[str, Any]", x.__dict__)["_prunit_flow"] = told
    return x


def ones(
    shape: Sequence[int], *, fold: bool, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Tensor:
    """An image of ones, a batch of one."""
    folds = {d: Fold(0, n, 0) for d, n in enumerate(shape[1:], start=2) if n > 1} if fold else {}
    return tell(
        torch.ones(1, *(1 if d in folds else n for d, n in enumerate(shape, start=1)), dtype=dtype, device=device),
        Told(0, folds),
    )


class Held:
    """How a pass holds its flow: `powers`, whether they are kept out of the numbers.

    `folded`: a layer has run on a part of the places. `left`: a call got a flow without its power.
    """

    def __init__(self, *, powers: bool) -> None:
        self.powers, self.folded, self.left = powers, False, False

    def levelled(self, x: Tensor, told: Told) -> Tensor:
        """The flow, told of, with numbers that are far from the ends of float32."""
        if not self.powers:
            return tell(x, told)
        top = float(x.detach().amax())
        if not 0 < top < math.inf or 1 / _TOP <= top <= _TOP:
            return tell(x, told)
        power = math.frexp(top)[1]
        return tell(x * 2.0**-power, Told(told.power + power, told.folds))


def scaled(value: Any, power: int) -> Any:
    """A constant that is added to a flow of that power."""
    if value is None or not power:
        return value
    if power > -_FURTHEST:
        return value * 2.0**-power
    if torch.as_tensor(value).any():
        raise Plainly("what is added is out of all proportion to the flow")
    return value


def name_of(func: Any) -> str:
    """What is called: of an attribute its name, of a method the one that it has in torch."""
    name = getattr(func, "__name__", "")
    return getattr(getattr(func, "__self__", None), "__name__", "") if name == "__get__" else name


def writes(raw: str) -> bool:
    """Whether a call of this name changes its first tensor."""
    return (raw.endswith("_") and not raw.endswith("__")) or raw.startswith(("__i", "__set"))


def leaves(value: Any) -> Iterable[Any]:
    """What stands in lists, tuples and dicts, however deep."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return [value]
    return [leaf for each in value for leaf in leaves(each)]


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same lists, tuples and dicts with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(mapped(v, change) for v in value)
    return value


def itself(x: Tensor) -> Tensor:
    """The flow with all places and power 0; another tensor as it is."""
    told = told_of(x)
    if told is None or told == PLAIN:
        return x
    whole = unfolded(x, told.folds)
    return tell(whole * 2.0 ** min(told.power, 1023) if told.power else whole, PLAIN)


def tell_all(out: Any, told: Told) -> Any:
    """`tell` of all tensors of floating point in what a call gave."""
    for leaf in leaves(out):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            tell(leaf, told)
    return out
