"""What a model's code may take from a width: numbers that it gives to operators, and shapes that it asks for.

The compact model's widths are others. So a number that was computed from one is another number, and a branch on one may
go the other way; the masked model, which has the old widths, would no longer be its equal.
"""

from collections.abc import Iterable
from functools import cache, lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from torch import Tensor, nn

from prunit.graph.attributes import telling
from prunit.graph.held import code_held_by, functions_of
from prunit.graph.keeping import is_foreign
from prunit.graph.modes import any_sets_mode, only_hands_on
from prunit.graph.rules.seam import by_operator
from prunit.graph.sizes import LAYERS

Numbers = tuple[Any, ...]
"""The numbers given to an operator, in order; lists of them as tuples."""

_SIZED: Final = frozenset(
    "view _unsafe_view view_copy reshape _reshape_alias _reshape_copy unflatten expand expand_copy repeat resize_"
    " split split_with_sizes unsafe_split unsafe_split_with_sizes slice slice_copy slice_scatter narrow narrow_copy"
    " as_strided as_strided_ as_strided_copy as_strided_scatter new_zeros new_ones new_full new_empty zeros ones full"
    " empty empty_strided new_empty_strided rand randn eye arange linspace"
    " convolution native_layer_norm native_group_norm constant_pad_nd affine_grid_generator".split()
)
"""Operators that are given sizes as whole numbers. Those may follow a width: the shape that comes out tells."""
_SHAPED: Final = frozenset(("convolution", "native_layer_norm", "native_group_norm"))
"""Of these the ones that fail on another width than the one that they are given."""
_SHORT: Final = 4096
"""Constants of up to so many numbers are compared."""
_ASKING: Final = frozenset("shape size numel nelement len".split())
_SHAPES: Final = frozenset(("shape", "size"))
_MAKING: Final = frozenset("tensor as_tensor new_tensor from_numpy".split())


_UNNAMED: Final = ("__call__", "__getattr__", "__get__", "__getitem__", "__torch_function__")
"""Methods that run without being named."""
_OF_MODES: Final = frozenset("training is_grad_enabled is_inference_mode_enabled grad_mode inference_mode".split())
_SAME_IN_BOTH_MODES: Final = frozenset(
    {("torchvision.ops.stochastic_depth", "StochasticDepth")}
    | {("timm.layers.drop", name) for name in ("DropPath", "DropBlock2d")}
    | {("timm.layers.norm_act", name) for name in ("BatchNormAct2d", "SyncBatchNormAct", "FrozenBatchNormAct2d")}
)
"""Layers that read their mode as torch's dropout and batch norm do: values differ then, channels do not."""
_HAND_ON: Final = frozenset({("torchvision.ops.stochastic_depth", "StochasticDepth"), ("timm.layers.drop", "DropPath")})
"""Layers that ask for a shape only where they run an operator."""
_TAKE_MODE: Final = frozenset(
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout rrelu batch_norm drop_path"
    " drop_block_2d drop_block_fast_2d stochastic_depth".split()
)
"""Functions that do the same with what they are told of the mode."""


def numbers_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, constants: bool = True) -> Numbers:
    """The numbers among an operator's arguments, but for sizes.

    Constants that the model makes as it runs and that are not on the meta device count as numbers, if they are short;
    not where all tensors hold values.
    """
    whole = name not in _SIZED
    given = (*args, *kwargs.values()) if kwargs else args
    return tuple([n for a in given if (constants or type(a) is not Tensor) and (n := _number(a, whole)) is not None])


def _number(value: Any, whole: bool) -> Any:
    kind = type(value)
    if kind is float or (kind is int and whole):
        return value
    if kind is list or kind is tuple:
        return tuple([n for n in value if type(n) is float or (type(n) is int and whole)])
    if kind is Tensor and not value.is_meta and value.numel() <= _SHORT:
        return tuple(value.reshape(-1).tolist())
    return None


def gives_values(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], module: nn.Module | None) -> bool:
    """Whether code outside of PyTorch's layers gives this operator a number to compute with, or writes out a width."""
    if type(module).__module__.startswith("torch.nn.") or name == "native_dropout":
        return False
    if args and isinstance(args[0], Tensor) and not args[0].ndim and not args[0].is_floating_point():
        return False  # a count, of batches say
    if name in _SHAPED:
        return not isinstance(module, LAYERS)
    return any(type(args[i]) in (int, float) for i in _values_at(func) if i < len(args)) or any(
        type(a) in (int, float) for a in kwargs.values()
    )


@by_operator
def _values_at(func: Any) -> tuple[int, ...]:
    """Which arguments of an operator are, or may be, numbers to compute with: no dimensions, sizes or tolerances."""
    kinds = ("number", "Optional[number]", "Tensor")
    return tuple(i for i, a in enumerate(func._schema.arguments) if str(a.type) in kinds)


def asks_for_shapes(ran: Iterable[nn.Module], called: Iterable[nn.Module] = ()) -> bool:
    """Whether code outside of torch.nn may look at a shape: of modules that `ran` an operator, or were `called`.

    Those that only call others count layers, too: there `len` says nothing.
    """
    ran = set(ran)
    called = [m for m in called if m in ran or (type(m).__module__, type(m).__name__) not in _HAND_ON]
    seen: set[CodeType] = set()
    held = [h for m in called for _, h in telling(m) if type(h) is FunctionType]
    return (
        not _ASKING.isdisjoint(_names_used(ran))
        or not _SHAPES.isdisjoint(_names_run(frozenset(type(m) for m in called)))
        or any(not _SHAPES.isdisjoint(_names_of(h, seen)) for h in held)
    )


def makes_tensors(modules: Iterable[nn.Module]) -> bool:
    """Whether the code of some of these, outside of torch.nn, may make tensors of numbers."""
    return not _MAKING.isdisjoint(_names_used(modules))


def asks_for_mode(modules: Iterable[nn.Module]) -> bool:
    """Whether some of these, outside of torch.nn, may do something else in training mode than in evaluation mode.

    Their code or that of their hooks has a word for it, or they do something of their own when the mode is set.
    """
    modules = [m for m in modules if (type(m).__module__, type(m).__name__) not in _SAME_IN_BOTH_MODES]
    hooks = [h for m in modules for held in (m._forward_hooks, m._forward_pre_hooks) for h in held.values()]
    seen: set[CodeType] = set()
    held = [code for m in modules if telling(m) for code in code_held_by(m)]
    kinds = {type(m) for m in modules}.union(h for h in held if isinstance(h, type))
    return (
        any_sets_mode(modules)
        or any(not _OF_MODES.isdisjoint(_names_of(h, seen)) for h in held if isinstance(h, FunctionType))
        or not _OF_MODES.isdisjoint(_names_run(frozenset(kinds)))
        or any(not isinstance(h, FunctionType) and _is_users(h) for h in hooks)
        or any(not _OF_MODES.isdisjoint(_names_of(h, seen)) for h in hooks if isinstance(h, FunctionType))
    )


@lru_cache(1 << 8)
def _names_run(kinds: frozenset[type]) -> set[str]:
    """Names in the code of `forward` and of all methods of these classes that it names, and so on."""
    found = {"forward", *_UNNAMED}
    waiting = [named for kind in kinds for named in _methods_of(kind)]
    seen: set[CodeType] = set()
    while True:
        reached = [function for name, function in waiting if name in found]
        if not reached:
            return found
        waiting = [(name, function) for name, function in waiting if name not in found]
        found = found.union(*(_names_of(function, seen) for function in reached))


def _is_users(hook: Any) -> bool:
    return not (getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch.")


def _names_used(modules: Iterable[nn.Module]) -> set[str]:
    """Attributes and global names in the code of modules, of the functions that they hold and call."""
    seen: set[CodeType] = set()
    found: set[str] = set()
    kinds: set[type] = set()
    for module in modules:
        kinds.add(type(module))
        for held in code_held_by(module) if telling(module) else ():
            if isinstance(held, FunctionType):
                found |= _names_of(held, seen)
            else:
                kinds.add(held)
    return found.union(*(_names_of_class(kind) for kind in kinds))


@cache
def _names_of_class(kind: type) -> frozenset[str]:
    seen: set[CodeType] = set()
    found: set[str] = set()
    for name, function in _methods_of(kind):
        if name != "__init__":
            found |= _names_of(function, seen)
    return frozenset(found)


@cache
def _methods_of(kind: type) -> tuple[tuple[str, FunctionType], ...]:
    """Methods and properties of a class, by name, but for those that PyTorch has written."""
    held = [named for base in kind.__mro__ if not base.__module__.startswith("torch.") for named in vars(base).items()]
    return tuple((name, function) for name, h in held for function in functions_of(h))


def _names_of(function: FunctionType, seen: set[CodeType]) -> set[str]:
    """Names in the code of a function, and of those that it knows by name, unless PyTorch has written them."""
    if function.__code__ in seen or (function.__module__ or "").startswith("torch."):
        return set()
    seen.add(function.__code__)
    names = _names_in(function.__code__)
    if not _OF_MODES.isdisjoint(names) and only_hands_on(function, _OF_MODES, _TAKE_MODE):
        names -= _OF_MODES
    known = [function.__globals__.get(name) for name in names]
    known += [getattr(k, name, None) for k in known if _is_users_module(k) for name in names]
    try:
        known += [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # not filled yet
        pass
    return names.union(*(_names_of(f, seen) for f in known if isinstance(f, FunctionType)))


def _is_users_module(value: Any) -> bool:
    return isinstance(value, ModuleType) and not is_foreign(value.__name__)


def _names_in(code: CodeType) -> set[str]:
    inner = (_names_in(c) for c in code.co_consts if isinstance(c, CodeType))
    by_text = {c for c in code.co_consts if type(c) is str and c in _OF_MODES}  # getattr(module, "training")
    return set(code.co_names).union(by_text, *inner)
