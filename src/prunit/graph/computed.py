"""Weights that a layer computes anew from other tensors whenever it runs: weight norm, spectral norm, a user's own.

There are two forms. `torch.nn.utils.parametrize` makes the weight a property that calls a list of modules on one or
more originals. The older functions (`torch.nn.utils.weight_norm`, `spectral_norm`, masks of `torch.nn.utils.prune`)
hook themselves before the layer's forward pass and set the plain attribute `weight` from `weight_g`, `weight_orig` and
so on. Here both look the same: what a weight is computed from, its value and shape, how it is given; `inverse` sets it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from prunit.graph.running import meta_twins, named_modules


class Place(NamedTuple):
    """Where a tensor lies: a module's store of parameters or of buffers, and its name there."""

    store: dict[str, Any]
    key: str
    is_parameter: bool

    @property
    def tensor(self) -> Tensor:
        """What lies there."""
        tensor = self.store[self.key]
        assert tensor is not None
        return tensor


@dataclass(frozen=True, eq=False)
class Computed:
    """A tensor that the layer `module` (at `path`) computes, its attribute `name`.

    `source` is the list of parametrizations, or the hook with its key among the layer's forward pre-hooks.
    """

    path: str
    module: nn.Module
    name: str
    source: ParametrizationList | tuple[int, Callable[..., Any]]

    @property
    def parts(self) -> ParametrizationList | None:
        """The parametrizations, which compute it whenever it is asked for; None of an attribute that a hook sets."""
        return None if isinstance(self.source, tuple) else self.source

    @property
    def hook(self) -> Callable[..., Any] | None:
        """The hook that sets it, that of torch or the user where it is wrapped in one of ours."""
        return getattr(self.source[1], "inner", self.source[1]) if isinstance(self.source, tuple) else None

    @property
    def modules(self) -> list[nn.Module]:
        """The layer and its parametrizations."""
        return [self.module, *([] if self.parts is None else [m for _, m in named_modules(self.parts)])]

    @property
    def by(self) -> str:
        """What computes it, for messages: the names of the classes."""
        found = [self.hook] if self.parts is None else self.parts
        return " and ".join(type(part).__name__.removeprefix("_") for part in found)

    @property
    def prefix(self) -> str:
        """What the state-dict names of `places` begin with."""
        own = f"{self.path}." if self.path else ""
        return own if self.parts is None else f"{own}parametrizations.{self.name}."

    @property
    def places(self) -> dict[str, Place]:
        """Where the tensors lie that it is computed from, by name without `prefix`."""
        modules = [("", self.module)] if self.parts is None else named_modules(self.parts)
        start = f"{self.name}_" if self.parts is None else ""
        return {
            f"{path}.{key}" if path else key: Place(store, key, store is module._parameters)
            for path, module in modules
            for store in (module._parameters, module._buffers)
            for key, tensor in store.items()
            if tensor is not None and key.startswith(start)
        }

    @cached_property
    def shape(self) -> torch.Size:
        """Its shape, found without computing."""
        return self._on(self._twins()).shape

    @cached_property
    def main(self) -> str:
        """Full name of the parameter that stands for it: the last one of its shape. '' if there is none such."""
        same = [n for n, place in self.places.items() if place.is_parameter and place.tensor.shape == self.shape]
        return self.prefix + same[-1] if same else ""

    def value(self) -> Tensor:
        """Its value in evaluation mode, without gradient; the layer stays as it was."""
        return self._on({}).detach().clone()

    def run(self) -> Tensor:
        """Compute it as the layer does, in the mode that the layer is in."""
        if not isinstance(self.source, tuple):
            return self.source()
        self.source[1](self.module, ())
        return self.module.__dict__[self.name]

    def refresh(self) -> None:
        """Set the plain attribute to the value of now, where it is one."""
        if self.parts is None:
            value = self.value()
            self.module.__dict__[self.name] = value

    def _twins(self) -> dict[str, Tensor]:
        return meta_twins({name: place.tensor for name, place in self.places.items()})

    def _on(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Its value in evaluation mode from other tensors."""
        modes = [(m, m.training) for m in self.modules]
        held = {key: value for key, value in self.module.__dict__.items() if key == self.name}
        try:
            for module, _ in modes:
                module.training = False
            with replaced(self, tensors), torch.no_grad():
                return self.run()
        finally:
            for module, training in modes:
                module.training = training
            if self.parts is None:
                self.module.__dict__.pop(self.name, None)
                self.module.__dict__.update(held)


def computed_of(module: nn.Module, path: str = "") -> list[Computed]:
    """What one module computes."""
    found: list[Computed] = []
    lists = module._modules.get("parametrizations")
    if isinstance(lists, nn.ModuleDict):
        found += [Computed(path, module, n, part) for n, part in lists.items() if isinstance(part, ParametrizationList)]
    for key, hook in module._forward_pre_hooks.items():
        name = getattr(hook, "_tensor_name", None) or getattr(hook, "name", None)
        if isinstance(name, str) and name not in module._parameters and name not in module._modules:
            item = Computed(path, module, name, (key, hook))
            if any(place.is_parameter for place in item.places.values()):
                found.append(item)
    return found


def computed_weights(model: nn.Module) -> list[Computed]:
    """All tensors that the modules of a model compute, in the order of the modules."""
    return [
        found
        for path, module in named_modules(model)
        if module._forward_pre_hooks or "parametrizations" in module._modules
        for found in computed_of(module, path)
    ]


def effective(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model by state-dict name, with what a layer computes under the name of its `main`."""
    values = {item.main: item for item in computed_weights(model)}
    return dict(tensors) | {main: item.value() for main, item in values.items() if main in tensors}


@contextmanager
def replaced(item: Computed, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Meanwhile it is computed from these, by name as in `places`; afterwards from its own again."""
    places = item.places
    before = {name: places[name].tensor for name in tensors}
    try:
        for name, tensor in tensors.items():
            places[name].store[places[name].key] = tensor
        yield
    finally:
        for name, old in before.items():
            places[name].store[places[name].key] = old


@contextmanager
def given(weights: Iterable[tuple[Computed, Tensor]]) -> Iterator[None]:
    """Meanwhile the layers do not compute these, but take what is given."""
    undo: list[tuple[dict[Any, Any], Any, dict[Any, Any]]] = []

    def put(store: dict[Any, Any], key: Any, value: Any) -> None:
        undo.append((store, key, {key: store[key]} if key in store else {}))
        store[key] = value

    try:
        for item, tensor in weights:
            if isinstance(item.source, tuple):
                put(item.module._forward_pre_hooks, item.source[0], _nothing)
                put(item.module.__dict__, item.name, tensor)
            else:
                lists = item.module._modules["parametrizations"]
                assert lists is not None
                put(lists._modules, item.name, _Given(tensor))
        yield
    finally:
        for store, key, before in reversed(undo):
            if before:
                store.update(before)
            else:
                del store[key]


class _Given(nn.Module):
    """In place of a list of parametrizations."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.__dict__["weight"] = weight

    def forward(self) -> Tensor:
        """What was given."""
        return self.__dict__["weight"]


def _nothing(module: nn.Module, inputs: Any) -> None:
    """In place of a hook."""
