"""What a model does with images, operator by operator: whether two models of other widths run the same code.

Code may ask for a size and go another way, or compute a factor from it. Of operators as they are called that shows:
their names, what they are given, and all numbers that are no tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from prunit.edge.session import Array


@dataclass(frozen=True)
class Steps:
    """The operators of one run in their order.

    lines    each with what it was given, tensors by where they come from, whole numbers left out
    numbers  those, in the order of the lines
    """

    lines: tuple[str, ...]
    numbers: tuple[int, ...]

    def following(self, other: "Steps") -> tuple[int, ...] | None:
        """Positions of the numbers that differ in a run at other widths; None where more than numbers differs."""
        if self.lines != other.lines:
            return None
        pairs = zip(self.numbers, other.numbers, strict=True)
        return tuple(position for position, (mine, its) in enumerate(pairs) if mine != its)


def steps_of(model: nn.Module, x_BCHW: Array) -> Steps:
    """What the model does with these images, in the mode that it is in; raises whatever it raises."""
    recorder = _Recorder()
    with torch.no_grad(), recorder:
        model(torch.from_numpy(x_BCHW))
    return Steps(tuple(recorder.lines), tuple(recorder.numbers))


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.numbers: list[int] = []
        self._known = WeakIdKeyDictionary()  # not by id alone, which another tensor may have when this one is gone
        self._count = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = " ".join(map(self._said, tree_leaves((args, kwargs))))
        self.lines.append(f"{func}({given}) {' '.join(kwargs)}")
        found = func(*args, **kwargs)
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._number(leaf)
        return found

    def _said(self, leaf: Any) -> str:
        if isinstance(leaf, Tensor):
            return f"%{self._number(leaf)}:{leaf.dtype}:{leaf.ndim}"
        if isinstance(leaf, int) and not isinstance(leaf, bool):
            self.numbers.append(leaf)
            return "int"
        return repr(leaf)

    def _number(self, tensor: Tensor) -> int:
        """Of a tensor, in the order in which they come about."""
        if tensor not in self._known:
            self._known[tensor] = self._count
            self._count += 1
        return self._known[tensor]
