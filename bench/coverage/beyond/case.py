"""One network beyond timm: its name, its package, and what builds it with random weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.coverage.networks import Draw, noise, pictures

CLASSES = 5

Build = Callable[[], tuple[nn.Module, Draw]]
"""Gives the network, and what draws inputs for it."""


@dataclass(frozen=True)
class Beyond:
    """A network to try: its name, the package it comes from as the registry knows it, and what builds it."""

    name: str
    package: str
    build: Build

    def make(self) -> tuple[nn.Module, Draw]:
        """The untrained network in evaluation mode, always the same, and what draws inputs for it."""
        torch.manual_seed(0)
        model, draw = self.build()
        return model.eval(), draw


def plain(make: Callable[[], nn.Module], size: int = 64, channels: int = 3) -> Build:
    """A network that takes one tensor of square pictures."""
    return lambda: (make(), pictures(size, channels))


def shaped(make: Callable[[], nn.Module], *shape: int) -> Build:
    """A network that takes one tensor of that shape for each sample."""
    return lambda: (make(), lambda n, generator: noise(generator, n, *shape))


def keyed(make: Callable[[], nn.Module], **shapes: tuple[int, ...]) -> Build:
    """A network that takes its inputs by keyword, each of that shape for each sample."""

    def draw(n: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {name: noise(generator, n, *shape) for name, shape in shapes.items()}

    return lambda: (make(), draw)


def several(make: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> Build:
    """A network that takes several tensors, each of that shape for each sample."""
    return lambda: (make(), lambda n, generator: tuple(noise(generator, n, *shape) for shape in shapes))


def given(make: Callable[[], nn.Module], draw: Draw) -> Build:
    """A network that takes whatever `draw` gives."""
    return lambda: (make(), draw)


def named(package: str, builds: Mapping[str, Build]) -> list[Beyond]:
    """The cases of a package."""
    return [Beyond(f"{package}:{name}", package, build) for name, build in builds.items()]


def made(path: str, *args: Any, **kwargs: Any) -> Callable[[], Any]:
    """Calls `module:name` with these arguments, once it is needed."""

    def make() -> Any:
        import importlib

        module, _, name = path.partition(":")
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found(*args, **kwargs)

    return make
