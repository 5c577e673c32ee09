"""What cannot be traced, found before the model runs: each in one line with the module's name and what to do."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from prunit.errors import ModelError
from prunit.graph.computed import computed_weights
from prunit.graph.running import example_tensors, named_modules, named_tensors

_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torchao.")
_FLOAT = ("FloatFunctional", "FXFloatFunctional")
"""Modules among the quantised ones that compute in floating point, in models that are only prepared for it."""
_PLAIN = (nn.Parameter, torch.Tensor)
_REAL = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)
_SHARDED = ("torch.distributed.fsdp", "torch.distributed.tensor", "torch.distributed._tensor")


def check(model: Any, example: Any) -> None:
    """Raise `ModelError` for a model or an example of a kind that `trace` does not read; nothing is run or changed."""
    problem = _no_module(model) or _of_example(example)
    problem = problem or next(_of_modules(model), "") or next(_of_tensors(model), "")
    problem = problem or next(_of_computed(model), "")
    if problem:
        raise ModelError(f"cannot trace {_kind(model)}: {problem}")


def _no_module(model: Any) -> str:
    if isinstance(model, type) and issubclass(model, nn.Module):
        return f"it is the class {model.__name__}: give an instance of it"
    if not isinstance(model, nn.Module):
        return "it is no nn.Module; give the Python model itself, not its state dict, a function or an exported program"
    return ""


def _of_example(example: Any) -> str:
    leaves = example_tensors(example)
    if not leaves:
        return f"the example holds no tensor, but is a {_kind(example)}"
    for leaf in leaves:
        if leaf.numel() == 0:
            return (
                f"the example holds a tensor of shape {tuple(leaf.shape)}, which is empty: give a batch of at least one"
            )
        if leaf.is_complex():
            return f"the example holds {leaf.dtype}, complex numbers: give their real and imaginary parts as channels"
    return ""


def _of_modules(model: nn.Module) -> Iterator[str]:
    known: dict[type, str] = {}
    for path, module in named_modules(model):
        problem = known.get(type(module))
        if problem is None:
            problem = known[type(module)] = _of_class(type(module))
        if problem:
            yield f"{_named(path)} is {problem}"


def _of_class(kind: type) -> str:
    """What is wrong with modules of this class, '' if nothing is."""
    if issubclass(kind, torch.jit.ScriptModule):
        return "TorchScript; give the Python model it was made from"
    if kind.__module__.startswith(_QUANTISED) and kind.__name__ not in _FLOAT:
        return f"quantised ({kind.__name__}): prune the float model, then quantise the compact one"
    if kind.__module__.startswith(_SHARDED):
        return f"sharded over several devices ({kind.__name__}): prune the model before that"
    return ""


def _of_tensors(model: nn.Module) -> Iterator[str]:
    for name, tensor in named_tensors(model).items():
        if type(tensor) in _PLAIN and tensor.layout is torch.strided and tensor.dtype in _REAL:
            continue
        source = type(tensor).__module__
        if is_lazy(tensor):
            yield f"'{name}' has no shape yet; call the model on a batch first"
        elif tensor.is_quantized or source.startswith(_QUANTISED):
            yield f"'{name}' is quantised: prune the float model, then quantise the compact one"
        elif source.startswith(_SHARDED):
            yield f"'{name}' is sharded over several devices: prune the model before it is sharded"
        elif tensor.layout is not torch.strided:
            yield (
                f"'{name}' is stored sparse ({str(tensor.layout).removeprefix('torch.')}): store it with its zeros"
                " (to_dense); prunit.cut.plans.from_zeros makes a plan of them"
            )
        elif isinstance(tensor, nn.Parameter) and tensor.is_complex():
            yield f"'{name}' holds {tensor.dtype}, complex numbers: keep their real and imaginary parts as two weights"


def _of_computed(model: nn.Module) -> Iterator[str]:
    """Weights that are computed from what is computed itself: a prune mask on the filters of a weight norm."""
    found = computed_weights(model)
    names = {(id(item.module), item.name) for item in found}
    for item in found:
        if item.parts is not None:
            inner = next((n for n in names if n[0] == id(item.parts)), None)
            source = inner and inner[1]
        else:
            source = next((n for of, n in names if of == id(item.module) and n.startswith(f"{item.name}_")), None)
        if source:
            yield (
                f"the {item.name} of {_named(item.path)} is computed ({item.by}) from '{source}', which is computed"
                " itself: make one of the two lasting first (torch.nn.utils.prune.remove, remove_weight_norm,"
                " parametrize.remove_parametrizations)"
            )


def _named(path: str) -> str:
    return f"'{path}'" if path else "it"


def _kind(value: object) -> str:
    return type(value).__name__
