"""Which weight of a layer is being computed, while a tracer looks on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn

from prunit.graph.computed import Computed, computed_weights
from prunit.graph.on_kept import computed_whole


class WeightFollower(Protocol):
    """Kept up to date with what layers compute: `lists` by the path of parametrizations, `hooked` by a hook now."""

    module_path: str
    lists: dict[str, Computed]
    hooked: Computed | None

    def computed(self, item: Computed, weight: Tensor) -> None:
        """`weight` is what came out."""
        ...


def computing(follower: WeightFollower) -> Computed | None:
    """What is being computed now, None outside of any."""
    if follower.hooked is not None or not follower.lists:
        return follower.hooked
    head, found, tail = follower.module_path.partition("parametrizations.")
    return follower.lists.get(f"{head}{found}{tail.partition('.')[0]}") if found else None


@contextmanager
def following_weights(model: nn.Module, follower: WeightFollower) -> Iterator[None]:
    """Keep `follower` up to date while `model` runs."""
    items = [item for item in computed_weights(model) if item.main is not None]  # asked now: later it would be followed
    follower.lists = {item.prefix.removesuffix("."): item for item in items if item.parts is not None}
    hooks = [(i.module._forward_pre_hooks, i.source[0], i.source[1], i) for i in items if isinstance(i.source, tuple)]
    try:
        for store, key, hook, item in hooks:
            store[key] = _Told(follower, item, hook)
        with computed_whole(model):
            yield
    finally:
        for store, key, hook, _ in hooks:
            store[key] = hook


class _Told:
    """A hook that computes a weight while a follower looks on."""

    def __init__(self, follower: WeightFollower, item: Computed, hook: Callable[..., Any]) -> None:
        self.follower, self.item, self.hook = follower, item, hook

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        self.follower.hooked = self.item
        try:
            self.hook(module, inputs)
        finally:
            self.follower.hooked = None
        self.follower.computed(self.item, module.__dict__[self.item.name])
