"""Which module of a model is running."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    _global_forward_hooks_with_kwargs,
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from prunit.graph.rules.seam import tensors
from prunit.graph.running import named_modules


class Follower(Protocol):
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
def following(model: nn.Module, follower: Follower) -> Iterator[None]:
    """Keep `follower` up to date while `model` runs. A module that is made as it runs counts to the one around it."""
    paths = {id(m): n for n, m in named_modules(model)}
    stack: list[tuple[str, nn.Module | None, list[Tensor]]] = [("", None, [])]

    def enter(module: nn.Module, inputs: Any) -> None:
        path = paths.get(id(module))
        stack.append(stack[-1] if path is None else (path, module, tensors(inputs)))
        follower.module_path, follower.module, follower.module_inputs = stack[-1]

    def given(module: nn.Module, inputs: Any, keywords: Any) -> None:
        if keywords and id(module) in paths:  # hooks for all modules are told of positional inputs only
            path, _, known = stack[-1]
            stack[-1] = (path, module, known + tensors(keywords))
            follower.module_inputs = stack[-1][2]

    def leave(module: nn.Module, inputs: Any, keywords: Any, out: Any) -> None:
        follower.left(module, (inputs, keywords, out))
        stack.pop()
        follower.module_path, follower.module, follower.module_inputs = stack[-1]

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, with_kwargs=True)]
    handles += [m.register_forward_pre_hook(given, prepend=True, with_kwargs=True) for _, m in named_modules(model)]
    try:
        with _not_compiled():
            yield
    finally:
        for handle in handles:
            handle.remove()
            _global_forward_hooks_with_kwargs.pop(handle.id, None)  # torch leaves it behind
