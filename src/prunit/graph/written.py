"""Sizes that a model's code writes out where it makes an image of a row: `self.fc(z).view(-1, 256, 4, 4)`.

No attribute holds this 256, and no shape gives it. Where channels of the image go, the compact model runs the same
code, so that the number is set right as the code runs: hooks on the module whose code it is put a mode around its
forward pass, which watches for views of a row to an image. Only a view that could not be computed as it is written is
changed, one whose row has not as many elements as the sizes ask for. Code that writes nothing out is never watched.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

TABLE: Final = "_prunit_views"
"""Attribute of a module of a compact model: its views by what the code writes, and what they have become."""
_RUNNING: Final = "_prunit_views_running"
_PREFIX: Final = "view to "
_VIEWS: Final = frozenset((Tensor.view, Tensor.reshape, torch.reshape))
_UNFLATTENED: Final = frozenset((Tensor.unflatten, torch.unflatten))

Sizes = tuple[int, ...]
Views = Mapping[Sizes, Sizes]
"""What the sizes after the batch become, by what they are in the dense model."""


def name_of_view(sizes: Sequence[int]) -> str:
    """How a view to these sizes (after the batch) is named among a module's attributes: 'view to 256x4x4'."""
    return _PREFIX + "x".join(map(str, sizes))


def sizes_of_view(name: str) -> Sizes | None:
    """The sizes in the name of a view; None for the name of an attribute."""
    if not name.startswith(_PREFIX):
        return None
    numbers = name.removeprefix(_PREFIX).split("x")
    return tuple(map(int, numbers)) if all(n.isdecimal() for n in numbers) else None


def set_view(module: nn.Module, name: str, sizes: Sequence[int]) -> None:
    """From now on the module's views of a row to the sizes in `name` go to these sizes."""
    written = sizes_of_view(name)
    assert written is not None
    if TABLE not in module.__dict__:
        module.register_forward_pre_hook(_enter, prepend=True)
        module.register_forward_hook(_leave, always_call=True)
    module.__dict__[TABLE] = {**module.__dict__.get(TABLE, {}), written: tuple(sizes)}


def split_views(
    model: nn.Module, sizes: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], dict[str, Views]]:
    """Sizes of a cut model as those of attributes, and the table of views of each module whose code has some."""
    attributes: dict[str, dict[str, Any]] = {}
    views: dict[str, Views] = {}
    for path, values in sizes.items():
        attributes[path] = {name: value for name, value in values.items() if sizes_of_view(name) is None}
        cut = {written: value for name, value in values.items() if (written := sizes_of_view(name))}
        if cut:
            views[path] = {**model.get_submodule(path).__dict__.get(TABLE, {}), **cut}
    return attributes, views


class ViewsAsCut(TorchFunctionMode):
    """Views of a row x_BN to an image x_BC… go to the sizes in `views` where N is not what the code expects."""

    def __init__(self, views: Views | Callable[[], Views]) -> None:
        super().__init__()
        self._views = views

    @property
    def views(self) -> Views:
        """Those of the module whose code is running."""
        return self._views() if callable(self._views) else self._views

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        change = _viewed if func in _VIEWS else _unflattened if func in _UNFLATTENED else None
        if change is not None and args and args[0].ndim == 2 and (views := self.views):
            args, kwargs = change(views, args, kwargs)
        return func(*args, **kwargs)


def _viewed(views: Views, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x, *sizes = args
    given = kwargs.get("size", kwargs.get("shape", ())) if not sizes else sizes
    if len(given) == 1 and isinstance(given[0], Sequence):
        given = given[0]
    if len(given) < 3 or not all(isinstance(n, int | torch.SymInt) for n in given):
        return args, kwargs
    found = _fitting(views, x, tuple(given[1:]))
    return (args, kwargs) if found is None else ((x, (given[0], *found)), {})


def _unflattened(views: Views, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x, dim, sizes = (*args, *(kwargs[n] for n in ("dim", "sizes") if n in kwargs))[:3]
    found = _fitting(views, x, tuple(sizes)) if dim in (1, -1) else None
    return (args, kwargs) if found is None else ((x, dim, found), {})


def _fitting(views: Views, x: Tensor, given: tuple[Any, ...]) -> Sizes | None:
    """The sizes that a view of x_BN takes instead of those given; None: those."""
    for written, sizes in views.items():
        alike = len(given) == len(written) and all(
            type(n) is int and n in (-1, m) for n, m in zip(given, written, strict=True)
        )
        if not alike:
            continue
        # What was cut twice stands there twice: as the code writes it, and as the first cut has left it.
        while math.prod(sizes) != x.shape[1] and sizes in views and views[sizes] != sizes:
            sizes = views[sizes]
        if math.prod(written) != x.shape[1] == math.prod(sizes):
            return tuple(-1 if n == -1 else m for n, m in zip(given, sizes, strict=True))
    return None


def _enter(module: nn.Module, args: Any) -> None:
    mode = ViewsAsCut(module.__dict__[TABLE])
    module.__dict__.setdefault(_RUNNING, []).append(mode)
    mode.__enter__()


def _leave(module: nn.Module, args: Any, out: Any) -> None:
    running = module.__dict__.get(_RUNNING)
    if running:  # empty where another hook has failed before `_enter` was called
        running.pop().__exit__(None, None, None)
    if not running:
        module.__dict__.pop(_RUNNING, None)
