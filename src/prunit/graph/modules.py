"""Which module of a model is running, and a short way through those that nobody has hooked into.

PyTorch tells of modules through hooks for all of them: then each call goes the long way of `nn.Module._call_impl`. Here
a module without hooks of its own gets a `_call_impl` of its own meanwhile, which does what matters of it; and a layer
that runs one operator does not even run its forward (see `leaves`). Whatever else there is, a module that has hooks or
is compiled or made as the model runs, is told of by PyTorch.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FunctionType, MethodType
from typing import Any, Final, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_modules
from torch.nn.modules.module import (
    _global_forward_hooks_with_kwargs,
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from prunit.graph.leaves import Runner, leaf_of, untouched
from prunit.graph.rules.seam import tensors
from prunit.graph.running import named_modules

_C: Final[Any] = torch._C
_functions_watched, _operators_watched = _C._len_torch_function_stack, _C._len_torch_dispatch_stack
_transformed, _casting = _C._functorch.peek_interpreter_stack, _C._is_any_autocast_enabled
_ASKS_FOR_HOOKS: Final = nn.TransformerEncoderLayer
"""Takes one operator for all that it does unless somebody has hooked into it."""
_OWN_HOOKS: Final = frozenset(("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks"))
_HOOKS_OF_ALL: Final = tuple(f"_global{name}" for name in _OWN_HOOKS)


class Follower(Runner, Protocol):
    """Kept up to date with the innermost module that is running: its path, itself, the tensors that it was given."""

    module_path: str
    module: nn.Module | None
    module_inputs: list[Tensor]

    def left(self, module: nn.Module, passed: Any) -> None:
        """`module` has run; `passed` is what went in and came out."""
        ...


def _not_compiled() -> AbstractContextManager[Any]:
    """Models that compile themselves run as they are written: the compiler would look into the follower as well."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def following(model: nn.Module, follower: Follower, *, short: bool = True) -> Iterator[None]:
    """Keep `follower` up to date while `model` runs. A module that is made as it runs counts to the one around it.

    With `short` plain modules are called the short way. `follower` is the innermost mode of PyTorch's that runs then;
    those around it must be such as do nothing to operators on layers.
    """
    modules = named_modules(model)
    known = {id(m): (n, leaf_of(m)) for n, m in modules}
    stack: list[tuple[str, nn.Module | None, list[Tensor]]] = [("", None, [])]
    short = short and not any(getattr(of_modules, name) for name in _HOOKS_OF_ALL) and untouched()
    watched = _functions_watched()

    def call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place, own = known.get(id(module)), module.__dict__
        if place is None or _has_hooks(own) or _C._get_tracing_state():
            return in_full(module, args, kwargs)
        path, leaf = place
        x = args[0] if len(args) == 1 and not kwargs else None
        inputs = [x] if type(x) is Tensor else tensors((args, kwargs))
        stack.append((path, module, inputs))
        follower.module_path, follower.module, follower.module_inputs = path, module, inputs
        out = None
        if leaf is not None and type(x) is Tensor and is_alone(x):
            with _C._DisableTorchDispatch():
                out = leaf(own, x, follower)
        if out is None:
            out = module.forward(*args, **kwargs)
        follower.left(module, (args, kwargs, out))
        stack.pop()
        follower.module_path, follower.module, follower.module_inputs = stack[-1]
        return out

    def is_alone(x: Tensor) -> bool:
        """Whether nobody but the follower would be asked of operators on this tensor."""
        return (
            x.is_meta
            and not x.requires_grad
            and _operators_watched() == 1
            and _functions_watched() == watched
            and not (torch.is_inference_mode_enabled() or x.is_inference() or _casting())
            and _transformed() is None
        )

    def in_full(module: nn.Module, args: Any, kwargs: Any) -> Any:
        handle = module.register_forward_pre_hook(given, prepend=True, with_kwargs=True)
        try:
            return nn.Module._call_impl(module, *args, **kwargs)
        finally:
            handle.remove()

    def enter(module: nn.Module, inputs: Any) -> None:
        place = known.get(id(module))
        stack.append(stack[-1] if place is None else (place[0], module, tensors(inputs)))
        follower.module_path, follower.module, follower.module_inputs = stack[-1]

    def given(module: nn.Module, inputs: Any, keywords: Any) -> None:
        if keywords and id(module) in known:  # hooks for all modules are told of positional inputs only
            path, _, found = stack[-1]
            stack[-1] = (path, module, found + tensors(keywords))
            follower.module_inputs = stack[-1][2]

    def leave(module: nn.Module, inputs: Any, keywords: Any, out: Any) -> None:
        follower.left(module, (inputs, keywords, out))
        stack.pop()
        follower.module_path, follower.module, follower.module_inputs = stack[-1]

    called = _as_torch_calls(call)
    plain = [m for _, m in modules if short and _is_plain(m)]
    odd = {id(m) for _, m in modules}.difference(map(id, plain))
    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, with_kwargs=True)]
    handles += [m.register_forward_pre_hook(given, prepend=True, with_kwargs=True) for _, m in modules if id(m) in odd]
    for module in plain:
        module.__dict__["_call_impl"] = MethodType(called, module)
    try:
        with _not_compiled():
            yield
    finally:
        for module in plain:
            module.__dict__.pop("_call_impl", None)
        for handle in handles:
            handle.remove()
            _global_forward_hooks_with_kwargs.pop(handle.id, None)  # torch leaves it behind


def _as_torch_calls(call: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]) -> FunctionType:
    """What stands in the place of `Module._call_impl`, which takes whatever the module's `forward` does."""
    found = cast("FunctionType", lambda module, *args, **kwargs: call(module, args, kwargs))
    found.__name__ = "_call_impl"  # so a module that is pickled as it runs is read as one without it
    return found


def _has_hooks(own: Mapping[str, Any]) -> bool:
    return bool(
        own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]
    )


def _is_plain(module: nn.Module) -> bool:
    """Whether it is called as nn.Module says, and has no hooks."""
    own = module.__dict__
    return (
        type(module)._call_impl is nn.Module._call_impl
        and "_call_impl" not in own
        and not isinstance(module, _ASKS_FOR_HOOKS)
        and own.keys() >= _OWN_HOOKS
        and not _has_hooks(own)
    )
