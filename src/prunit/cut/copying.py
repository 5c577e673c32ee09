"""A module copied as `copy.deepcopy` does it, with other tensors in it, several times faster; functions are bound anew.

`copy.deepcopy` leaves functions as they are: a hook that is a closure over the model's dict would go on writing to the
old model's, and a method or a lambda in an attribute would go on computing with its layers. Here a function that sees
anything of the model (a module, a tensor, a container or object that it holds) is made anew, and sees the copy's. What
it sees outside of the model stays the user's.
"""

import copyreg
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import TreeSpec

from prunit.graph.belonging import Belongings, referent
from prunit.graph.functions import CACHE_TYPE
from prunit.graph.keeping import OWN_CONTAINERS
from prunit.graph.running import named_modules

_IMMUTABLE: Final = frozenset((bool, int, float, str, type(None)))
_AS_IT_IS: Final = frozenset(
    [
        *(complex, bytes, range, property, type(Ellipsis), CodeType, ModuleType, *_IMMUTABLE),
        *(torch.Size, torch.dtype, torch.device, torch.layout, torch.memory_format),
    ]
)
_CONTAINERS: Final = frozenset((dict, OrderedDict, set))
_OWN_CONTAINERS: Final = frozenset(OWN_CONTAINERS)
_STORES: Final = ("_parameters", "_buffers")
_MISSING: Final = object()


class NotCopied(Exception):
    """The message says which attribute or hook of which module cannot be copied, and why."""


class SeesGlobal(NotCopied):
    """A function sees the model by a global variable, which is one for the model and its copy."""


def copied_module(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A copy of `model` in which `memo` says what stands for what, by `id`: new tensors for old ones.

    A tensor with a history (an activation that a layer keeps) is copied without it. Raises `NotCopied`.
    """
    return _Copier(model, memo).whole()


class _Copier:
    def __init__(self, model: nn.Module, memo: dict[int, Any]) -> None:
        self.model, self.memo = model, memo
        self.belongings = Belongings(model)
        self._alive: list[Any] = []
        """Values that were made when they were asked for: an `id` must not be given twice."""
        self._of = ""
        self._later: list[tuple[str, Callable[[], object]]] = []
        """Hooks, and what functions see: a module that copies itself wants its children whole before."""

    def whole(self) -> nn.Module:
        newobj = copyreg.__newobj__  # pyright: ignore[reportAttributeAccessIssue]
        memo = self.memo
        states: list[tuple[str, nn.Module, dict[str, Any]]] = []
        modules = named_modules(self.model)
        for path, module in modules:
            # Asked of an instance, a module looks for it among its parameters, buffers and children as well.
            if hasattr(type(module), "__deepcopy__") or "__deepcopy__" in module.__dict__:
                continue
            match module.__reduce_ex__(4):
                case (made_by, (kind,), dict(state), None, None) if made_by is newobj and kind is type(module):
                    memo[id(module)] = kind.__new__(kind)
                    states.append((path, module, dict(state)))
        for path, module, state in reversed(states):  # children first, as their parent may look at them
            for name, value in state.items():
                kind = type(value)
                if kind in _IMMUTABLE:
                    continue
                if kind not in _CONTAINERS or value:
                    state[name] = self._attribute(path, module, name, value)
                else:  # most of what a module holds
                    known = memo.get(id(value))
                    if known is None:
                        known = memo[id(value)] = kind()
                    state[name] = known
            memo[id(module)].__setstate__(state)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # torch's about its own, in exported models
            small = self.copy(self.model)
        self._finish()
        if len(states) < len(modules):
            quick = {id(module) for _, module, _ in states}
            for path, module in modules:
                self._settle(path, module, small, id(module) in quick)
            self._finish()
        return small

    def _finish(self) -> None:
        while self._later:
            of, task = self._later.pop(0)
            self._told(of, task)

    def _told(self, of: str, task: Callable[[], Any]) -> Any:
        """What the task gives; where it fails the error says of what, and so do those of what it leaves for later."""
        before, self._of = self._of, of or self._of
        try:
            return task()
        except NotCopied:
            raise
        except Exception as error:
            if not self._of:
                raise
            reason = " ".join(str(error).split())[:120]
            raise NotCopied(f"{self._of} cannot be copied ({type(error).__name__}: {reason})") from error
        finally:
            self._of = before

    # ── what a module holds ──

    def _attribute(self, path: str, module: nn.Module, name: str, value: Any) -> Any:
        if name in _OWN_CONTAINERS and isinstance(value, dict):
            made = self.memo.get(id(value))
            made = self.memo[id(value)] = type(value)() if made is None else made
            self._later.append(("", partial(self._hooks, path, module, name, value, made)))
            return made
        if isinstance(value, Tensor) and value.grad_fn is not None and id(value) not in self.memo:
            source = next((f"{name}{end}" for end in ("_orig", "_g") if f"{name}{end}" in module._parameters), "")
            if source:
                raise NotCopied(f"attribute '{name}' of {_where(path, module)} is computed from its '{source}'")
        return self._told(f"attribute '{name}' of {_where(path, module)}", partial(self.copy, value))

    def _hooks(self, path: str, module: nn.Module, name: str, hooks: Mapping[Any, Any], made: Any) -> None:
        for key, hook in hooks.items():
            called = getattr(getattr(hook, "hook", hook), "__qualname__", type(hook).__name__)
            kind = name.strip("_").replace("_", " ").removesuffix("s")
            made[key] = self._told(f"{kind} '{called}' of {_where(path, module)}", partial(self.copy, hook))

    def _settle(self, path: str, old: nn.Module, small: nn.Module, quick: bool) -> None:
        """Tensors, mode and hooks of a module that says itself how it is copied.

        A `torch.fx.GraphModule` leaves out all that its graph does not name; others may mean what they leave out.
        """
        try:
            new = small.get_submodule(path)
        except AttributeError:  # it keeps no more than what its own code calls
            return
        quick = quick and self.memo.get(id(old)) is new
        if not quick:
            for name in _STORES:
                for key, tensor in getattr(old, name).items():
                    made = self.memo.get(id(tensor))
                    if tensor is not None and made is not None and getattr(new, name).get(key) is not made:
                        getattr(new, name)[key] = made
            for name, value in old.__dict__.items():
                if name in _OWN_CONTAINERS and isinstance(value, dict) and value:
                    made = new.__dict__[name]
                    made.clear()
                    self._hooks(path, old, name, value, made)
                elif name not in new.__dict__ and isinstance(old, fx.GraphModule):
                    new.__dict__[name] = self._attribute(path, old, name, value)
        if new.training != old.training:
            if type(new).train is not nn.Module.train and not quick:
                new.train(old.training)  # torchvision's graph modules have a graph for each mode; children follow below
            new.training = old.training

    # ── any value ──

    def copy(self, value: Any) -> Any:
        kind = type(value)
        if kind in _AS_IT_IS:
            return value
        known = self.memo.get(id(value), _MISSING)
        if known is not _MISSING:
            return known
        if kind in (weakref.ProxyType, weakref.CallableProxyType):
            return self._proxy(value)
        if isinstance(value, type):
            return value
        made = self._made(kind, value)
        if made is not value:
            self.memo[id(value)] = made
            self._alive.append(value)
        return made

    def _made(self, kind: type, value: Any) -> Any:
        maker = _MAKERS.get(kind)
        if maker is not None:
            return maker(self, value)
        if isinstance(value, Tensor) and value.grad_fn is not None:
            return value.detach().clone()
        if isinstance(value, TreeSpec):  # of exported models; to make one anew is deprecated
            return value
        if isinstance(value, torch.Generator):
            return torch.Generator(value.device).set_state(value.get_state())
        own = getattr(value, "__deepcopy__", None)
        if own is not None:
            return own(self.memo)
        reduce = copyreg.dispatch_table.get(kind)
        parts = reduce(value) if reduce else value.__reduce_ex__(4)
        return value if isinstance(parts, str) else self._rebuilt(value, *parts)

    def _rebuilt(
        self, value: Any, make: Any, args: Any, state: Any = None, items: Any = None, pairs: Any = None
    ) -> Any:
        """What `__reduce_ex__` says of a value, followed as `copy` and `pickle` do."""
        made = make(*map(self.copy, args))
        self.memo[id(value)] = made
        self._alive.append(value)
        if state is not None:
            self._alive.append(state)
            state = self.copy(state)
            if hasattr(made, "__setstate__"):
                made.__setstate__(state)
            else:
                state, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
                if state:  # what has slots alone has no __dict__
                    made.__dict__.update(state)
                for name, held in (slots or {}).items():
                    setattr(made, name, held)
        for item in items or ():
            made.append(self.copy(item))
        for key, item in pairs or ():
            made[self.copy(key)] = self.copy(item)
        return made

    def _list(self, value: list[Any]) -> list[Any]:
        made: list[Any] = []
        self.memo[id(value)] = made
        self._alive.append(value)
        made += map(self.copy, value)
        return made

    def _dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        self.memo[id(value)] = made
        self._alive.append(value)
        for key, held in value.items():
            made[self.copy(key)] = self.copy(held)
        return made

    def _tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        made = [self.copy(held) for held in value]
        known = self.memo.get(id(value))  # it may hold itself, by way of a list
        if known is not None:
            return known
        return value if all(a is b for a, b in zip(made, value, strict=True)) else tuple(made)

    # ── what can be called ──

    def _function(self, function: FunctionType) -> FunctionType:
        if not self.belongings.seen_by(function):
            return function
        name = self.belongings.global_seen_by(function)
        if name:
            raise SeesGlobal(
                f"{self._of} sees the model by the global variable '{name}' of its '{function.__qualname__}', and the"
                " copy's would see the old model: let it use what it is given, or a variable of its own"
            )
        cells = tuple(map(self._cell, function.__closure__ or ()))
        made = FunctionType(function.__code__, function.__globals__, function.__name__, None, cells or None)
        made.__qualname__, made.__module__, made.__doc__ = function.__qualname__, function.__module__, function.__doc__
        made.__annotations__ = function.__annotations__
        self._later.append((self._of, partial(self._see, function, made)))
        return made

    def _cell(self, cell: CellType) -> CellType:
        """A variable that sees the model is another one for the copies of all functions that share it."""
        known = self.memo.get(id(cell))
        if known is None and _is_filled(cell) and self.belongings.seen_by(cell.cell_contents):
            known = self.memo[id(cell)] = CellType()
            self._alive.append(cell)
        return cell if known is None else known

    def _see(self, function: FunctionType, made: FunctionType) -> None:
        for old, new in zip(function.__closure__ or (), made.__closure__ or (), strict=True):
            if new is not old and not _is_filled(new):
                new.cell_contents = self.copy(old.cell_contents)
        made.__defaults__ = self._seen(function.__defaults__)
        made.__kwdefaults__ = self._seen(function.__kwdefaults__)
        made.__dict__.update({key: self._seen(held) for key, held in function.__dict__.items()})

    def _seen(self, value: Any) -> Any:
        """A variable of a function: copied if it sees the model, else the user's."""
        if type(value) is tuple:
            return tuple(map(self._seen, value))
        if type(value) is dict and id(value) not in self.memo and not self.belongings.owns(value):
            return {key: self._seen(held) for key, held in value.items()} if self.belongings.seen_by(value) else value
        return self.copy(value) if self.belongings.seen_by(value) else value

    def _method(self, method: MethodType) -> MethodType:
        of, function = method.__self__, method.__func__
        own = isinstance(function, FunctionType) and getattr(type(of), function.__name__, None) is not function
        return MethodType(self.copy(function) if own else function, self.copy(of))

    def _builtin(self, method: Any) -> Any:
        of = method.__self__
        if of is None or isinstance(of, ModuleType | type) or not self.belongings.seen_by(of):
            return method
        return getattr(self.copy(of), method.__name__)

    def _partial(self, value: partial[Any]) -> partial[Any]:
        if not self.belongings.seen_by(value):
            return value
        named = {name: self._seen(held) for name, held in value.keywords.items()}
        made = partial(self._seen(value.func), *map(self._seen, value.args), **named)
        made.__dict__.update(self.copy(value.__dict__))
        return made

    def _caching(self, function: Any) -> Any:
        if not self.belongings.seen_by(function):
            return function
        settings = function.cache_parameters()
        return lru_cache(settings["maxsize"], settings["typed"])(self._seen(function.__wrapped__))

    # ── what refers without holding ──

    def _reference(self, reference: Any) -> Any:
        held = reference()
        return type(reference)(self.copy(held)) if self.belongings.seen_by(held) else reference

    def _proxy(self, proxy: Any) -> Any:
        held = referent(proxy)
        return weakref.proxy(self.copy(held)) if self.belongings.seen_by(held) else proxy

    def _weak_dict(self, value: Any) -> Any:
        made = type(value)()
        for key, held in value.items():
            made[self._seen(key)] = self._seen(held)
        return made

    def _weak_set(self, value: Any) -> Any:
        return weakref.WeakSet([self._seen(held) for held in value])


_MAKERS: Final[Mapping[type, Callable[[_Copier, Any], Any]]] = {
    list: _Copier._list,
    dict: _Copier._dict,
    tuple: _Copier._tuple,
    FunctionType: _Copier._function,
    MethodType: _Copier._method,
    BuiltinFunctionType: _Copier._builtin,
    MethodWrapperType: _Copier._builtin,
    partial: _Copier._partial,
    CACHE_TYPE: _Copier._caching,
    weakref.ReferenceType: _Copier._reference,
    weakref.WeakMethod: _Copier._reference,
    weakref.WeakKeyDictionary: _Copier._weak_dict,
    weakref.WeakValueDictionary: _Copier._weak_dict,
    weakref.WeakSet: _Copier._weak_set,
    # The copy's own, and open: nobody waits for it.
    type(threading.Lock()): lambda copier, value: threading.Lock(),
    type(threading.RLock()): lambda copier, value: threading.RLock(),
}


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not _MISSING
    except ValueError:  # a variable that gets its value later
        return False


def _where(path: str, module: nn.Module) -> str:
    return f"'{path}' ({type(module).__name__})" if path else f"the {type(module).__name__} itself"
