"""Numbers that leave PyTorch: `tensor.numpy()`, `tensor.tolist()`. What is made of them no rule can follow.

No operator runs there, so that a tracer does not meet them otherwise. Whoever counts or averages them counts the
channels: those of such a tensor stay.
"""

from typing import Any, Final, Protocol

from torch import Tensor
from torch.overrides import TorchFunctionMode

_WAYS_OUT: Final = frozenset(("numpy", "tolist", "__array__", "__dlpack__"))


class Pinning(Protocol):
    """Who is told of it."""

    def pin_tensor(self, tensor: Tensor, why: str) -> None:
        """All channels of a tensor must stay."""
        ...


class Leaving(TorchFunctionMode):
    """Tells a tracer of tensors whose numbers leave."""

    def __init__(self, told: Pinning) -> None:
        super().__init__()
        self.told = told

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _WAYS_OUT and args and isinstance(args[0], Tensor):
            self.told.pin_tensor(args[0], f"its numbers leave PyTorch ({name.strip('_')})")
        return func(*args, **kwargs or {})
