"""Which module of a model is running."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

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


@contextmanager
def following(model: nn.Module, follower: Follower) -> Iterator[None]:
    """Keep `follower` up to date while `model` runs. A module that is made as it runs counts to the one around it."""
    paths = {id(m): n for n, m in named_modules(model)}
    stack: list[tuple[str, nn.Module | None, list[Tensor]]] = [("", None, [])]

    def enter(module: nn.Module, inputs: Any) -> None:
        path = paths.get(id(module))
        stack.append(stack[-1] if path is None else (path, module, tensors(inputs)))
        follower.module_path, follower.module, follower.module_inputs = stack[-1]

    def leave(module: nn.Module, inputs: Any, keywords: Any, out: Any) -> None:
        follower.left(module, (inputs, keywords, out))
        stack.pop()
        follower.module_path, follower.module, follower.module_inputs = stack[-1]

    handles = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
            _global_forward_hooks_with_kwargs.pop(handle.id, None)  # torch leaves it behind
