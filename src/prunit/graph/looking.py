"""Models that look at values: what they have seen, so that they can run on meta tensors all the same.

A detector that asks whether boxes are valid, or picks the best ones, cannot run where there are no values. It is read
on its own tensors. What its code has seen there (a number, how many elements were found) it is told again where it runs
on meta tensors with channels missing: so it takes the same way, and what is assumed of its code can be checked up to
the first operator that cannot be answered so.
"""

from typing import Any

import torch
from torch import Tensor

from prunit.graph.choices import Step
from prunit.graph.rules.seam import tensors

_OF_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_LAYERS = ("convolution", "addmm", "mm")
_MASKS = (torch.bool, torch.uint8)


def seen_of(func: Any, args: tuple[Any, ...], out: Any) -> Any:
    """What an operator has shown to the model's code: a value, or the dtype of a tensor whose shape depends on values.

    None for operators that show nothing, and for those of several values.
    """
    if _OF_VALUES[0] not in func.tags and _OF_VALUES[1] not in func.tags:
        return None
    found = tensors(out)
    if func is torch.ops.aten.index.Tensor and not any(i.dtype in _MASKS for i in tensors(args[1])):
        return None
    if not found:
        return out if type(out) in (bool, int, float) else None
    return out.dtype if isinstance(out, Tensor) else None


def told(seen: Any, shape: tuple[int, ...]) -> Any:
    """The same for a run on meta tensors, `shape` being that of the tensor that comes out."""
    return torch.empty(shape, dtype=seen, device="meta") if isinstance(seen, torch.dtype) else seen


def where_it_looks(steps: list[Step], sure: int) -> tuple[frozenset[str], frozenset[str]]:
    """Modules whose own code looks at values, and those in which what runs may depend on what was seen.

    The latter are all modules, unless no layer runs after the first look: it then only sorts what the network gives.
    `sure` is the step up to which the model could be told again what it saw.
    """
    looked = [i for i, step in enumerate(steps) if step.seen is not None or i == sure]
    first = min(looked, default=0)
    later = steps[first:]
    decided = steps if any(step.name in _LAYERS for step in later) else later
    return frozenset(steps[i].module for i in looked), frozenset(step.module for step in decided)
