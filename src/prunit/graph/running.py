"""Run a model without computing anything, on tensors that stand in for its own, and leave it as it was."""

import gc
import linecache
import os
import random
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from prunit.graph import attributes
from prunit.graph.keeping import Kept, Place
from prunit.graph.modes import any_sets_mode, set_flags, set_mode, sets_mode

_NOTED: ContextVar[tuple[nn.Module, Kept] | None] = ContextVar("noted", default=None)
_LISTED: ContextVar["_Listed | None"] = ContextVar("listed", default=None)
_META: Final = torch.device("meta")
_OURS: Final = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))
"""Where code lies that is not the user's."""


class _Listed:
    """The modules and tensors of a model whose structure nobody changes meanwhile, found when first asked for."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @cached_property
    def modules(self) -> list[tuple[str, nn.Module]]:
        """Each once."""
        return _walked(self.model, again=False)

    @cached_property
    def again(self) -> list[tuple[str, nn.Module]]:
        """Those of several names under each of them."""
        return _walked(self.model, again=True)

    @cached_property
    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters and buffers."""
        return _tensors_of(self.again)


@contextmanager
def listed(model: nn.Module) -> Iterator[None]:
    """Meanwhile the model has the modules and tensors that it has now, whenever somebody asks for all of them."""
    before, known = _LISTED.set(_Listed(model)), attributes.KNOWN.set({})
    try:
        yield
    finally:
        _LISTED.reset(before)
        attributes.KNOWN.reset(known)


def named_modules(model: nn.Module, *, now: bool = False) -> list[tuple[str, nn.Module]]:
    """`model.named_modules()`, which asks one generator within the other for each module.

    With `now` also where the model is `listed`: it may have changed.
    """
    known = _LISTED.get()
    return known.modules if known and known.model is model and not now else _walked(model, again=False)


def _walked(model: nn.Module, *, again: bool) -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    waiting: list[tuple[str, nn.Module]] = [("", model)]
    while waiting:
        path, module = named = waiting.pop()
        if not again:
            if id(module) in seen:
                continue
            seen.add(id(module))
        found.append(named)
        if module._modules:
            prefix = f"{path}." if path else ""
            waiting += [(prefix + n, m) for n, m in reversed(module._modules.items()) if m is not None]
    return found


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by state-dict name; one that has several names (tied weights) under each of them."""
    parameters, buffers = parameters_and_buffers(model)
    return parameters | buffers


def parameters_and_buffers(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """As `named_tensors`, apart."""
    known = _LISTED.get()
    return known.tensors if known and known.model is model else _tensors_of(_walked(model, again=True))


def _tensors_of(modules: list[tuple[str, nn.Module]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    parameters: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    for path, module in modules:  # PyTorch's own two functions each walk all of it
        for store, found in ((module._parameters, parameters), (module._buffers, buffers)):
            if store:
                prefix = f"{path}." if path else ""
                for name, tensor in store.items():
                    if tensor is not None:
                        found[prefix + name] = tensor
    return parameters, buffers


def meta_twins(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A meta tensor of the same shape for each; names that share a tensor share its twin."""
    made: dict[int, Tensor] = {}
    for tensor in tensors.values():
        if id(tensor) not in made:
            made[id(tensor)] = torch.empty_like(tensor, device=_META)
    return {name: made[id(tensor)] for name, tensor in tensors.items()}


def own_twins(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own parameters, and copies of its buffers, to which a forward pass may write.

    Also of parameters made in inference mode: operators on those come whole, not as the ones that there are rules
    for.
    """
    copies = {
        id(t): t if isinstance(t, nn.Parameter) and not t.is_inference() else t.detach().clone()
        for t in tensors.values()
    }
    return {name: copies[id(tensor)] for name, tensor in tensors.items()}


def first_names(tensors: Mapping[str, Tensor]) -> dict[int, str]:
    """The name of each tensor by its `id`; one that has several names (tied weights) is known by its first."""
    names: dict[int, str] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), name)
    return names


def first_only(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor under its first name."""
    return {name: named[name] for name in first_names(named).values()}


@contextmanager
def standing_in(
    model: nn.Module, tensors: Mapping[str, Tensor], *, training: bool | None = False, guarded: bool = False
) -> Iterator[list[Place]]:
    """The model in the given mode with `tensors` in place of its own; then all that it holds is as it was.

    With `training` None every module stays in the mode that it is in. Which containers in attributes the forward pass
    has added to (module, name, and keys inside) stands in the list that is given, afterwards. Random state comes back
    too: Python's, numpy's, and torch's on the devices of the model. With `guarded` so do the values of those `tensors`
    that are the model's own.

    Written out instead of `torch.func.functional_call` because that one keeps what a forward pass sets (a cached grid,
    say, which would stay a meta tensor), walks every name twice, and its checks cost more than the forward pass on the
    meta device does.
    """
    modules = named_modules(model)
    own = named_tensors(model) if guarded else {}
    written = [own[name] for name, tensor in tensors.items() if tensor is own.get(name)]
    noted = _NOTED.get()
    kept = noted[1] if noted and noted[0] is model and not written else Kept(modules, written)
    every = [module for _, module in modules]
    moody = []
    if training is not None and any_sets_mode(every):
        moody = [(m, m.training) for m in every if sets_mode(m)]
    filled: list[Place] = []
    try:
        _install(modules, tensors)
        if training is not None:
            with torch.no_grad():
                set_mode(model, every, training)
            if moody and [m for _, m in named_modules(model, now=True)] != every:
                # It becomes another model with its mode (branches are fused, say): this one is the user's.
                kept.put_back()
                _install(modules, tensors)
                set_flags(every, training)
        with _random_state(model):
            yield filled
    finally:
        for module, mode in moody:
            if sets_mode(module):  # it may have changed more than attributes: torchvision's graph modules their class
                with suppress(NotImplementedError):
                    module.train(mode)
        filled += kept.put_back()


@contextmanager
def noted(model: nn.Module) -> Iterator[None]:
    """Meanwhile nobody but `standing_in` changes the model, so that what it holds need not be noted for each run."""
    before = _NOTED.set((model, Kept(named_modules(model))))
    try:
        yield
    finally:
        _NOTED.reset(before)


def _install(modules: list[tuple[str, nn.Module]], tensors: Mapping[str, Tensor]) -> None:
    for path, module in modules:
        stores: list[dict[str, Any]] = [module._parameters, module._buffers]
        for store in stores:
            if store:
                prefix = f"{path}." if path else ""
                store.update({key: tensors[prefix + key] for key, old in store.items() if old is not None})


@contextmanager
def _random_state(model: nn.Module) -> Iterator[None]:
    devices: set[int] = set()
    if torch.cuda.is_initialized():
        devices = {t.get_device() for t in named_tensors(model).values() if t.is_cuda} | {torch.cuda.current_device()}
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(sorted(devices)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def as_inputs(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword inputs of an example: a tensor, a tuple or list of inputs, or a dict of keyword inputs."""
    if isinstance(example, dict):
        return (), example
    return (tuple(example), {}) if isinstance(example, tuple | list) else ((example,), {})


def example_tensors(example: Any) -> list[Tensor]:
    """The tensors of an example, those that `to_meta` replaces."""
    return [leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor)]


def to_meta(tree: Any) -> Any:
    """The same nested values with meta tensors in place of tensors."""
    return tree_map(lambda v: v.to("meta") if isinstance(v, Tensor) and not v.is_meta else v, tree)


def copied(tree: Any) -> Any:
    """The same nested values with copies of the tensors, to which a forward pass may write."""
    return tree_map(lambda v: v.detach().clone() if isinstance(v, Tensor) else v, tree)


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in a model's output: nested containers, mappings, dataclasses and plain objects."""
    found: list[Tensor] = []
    _collect(value, found, set())
    return found


def _collect(value: Any, found: list[Tensor], seen: set[int]) -> None:
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif id(leaf) not in seen:
            seen.add(id(leaf))
            if isinstance(leaf, Mapping):
                inner: list[Any] = list(leaf.values())
            elif is_dataclass(leaf) and not isinstance(leaf, type):
                inner = [getattr(leaf, f.name) for f in fields(leaf)]
            else:
                inner = list(getattr(leaf, "__dict__", {}).values()) if not isinstance(leaf, type | nn.Module) else []
            for part in inner:
                _collect(part, found, seen)


@contextmanager
def collecting_later() -> Iterator[None]:
    """Python's garbage collector waits meanwhile.

    It goes through all objects each time that many new ones came about. Copying or tracing a deep network makes many
    that stay, so that its cost would grow faster than the network does.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def where_in_code(error: BaseException) -> str:
    """The user's line of code in which the error arose, as ' at FILE:LINE `CODE`'; '' if there is none."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_OURS)]
    return f" at {frames[-1].filename}:{frames[-1].lineno} `{frames[-1].line}`" if frames else ""


def calling_line() -> str:
    """The user's line of code that is running."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno)
