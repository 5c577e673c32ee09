"""What a model holds, noted before it runs and put back afterwards: the same objects with the same content.

A forward pass may leave something in every place that it can reach: in attributes and the containers and objects in
them, in hooks that it adds, in the variables that a hook sees, in tensors that it writes to. What cannot hold anything
is passed over, so that noting a ResNet-50 takes less than a millisecond.
"""

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import partial
from operator import is_, itemgetter
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any, Final
from weakref import ProxyTypes, ReferenceType

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from prunit.graph.attributes import PLAIN, telling
from prunit.graph.functions import CACHE_TYPE, cells_of, defaults_of, globals_of
from prunit.graph.kept_tensors import LARGE, KeptTensor

Place = tuple[Any, ...]
"""Where a container is: the module's path, the attribute's name, and keys (or further names) inside of that."""

_STORES: Final = ("_parameters", "_buffers", "_modules")
OWN_CONTAINERS: Final = tuple(
    name for name, held in vars(nn.Module()).items() if isinstance(held, dict | set) and name not in _STORES
)
"""Its hooks, mostly empty."""
_own_containers: Final = itemgetter(*OWN_CONTAINERS)
CONTAINERS: Final = (OrderedDict, dict, list, tuple, deque, set, frozenset)
_OTHERS: Final = frozenset(
    "torch numpy logging threading _thread enum re pathlib typing inspect importlib multiprocessing concurrent asyncio"
    " socket io _io prunit".split()
)
"""Packages whose objects are no part of a model's state, or see to it themselves."""
MANY: Final = 4096
"""In a container of more entries (a list of files, say) what the entries hold is not looked at."""

_OF_CODE: Final = (dict, list, tuple, deque, set, FunctionType, MethodType, partial, CACHE_TYPE)
"""What is put back of all that a class's code sees."""


class Kept:
    """What some modules hold, to be put back.

    Variables outside of the model that its hooks see are put back like all else. Those that its other code sees, among
    them globals and the variables of a class, only where a meta tensor was left in them: they are the user's business.
    """

    def __init__(self, modules: Iterable[tuple[str, nn.Module]], written: Iterable[Tensor] = ()) -> None:
        """Notes what `modules` (path and module) hold, and the tensors `written`, which a run may write to.

        Parameters and buffers of the modules are noted by identity alone: a run has others in their place.
        """
        self._modules: list[tuple[nn.Module, type, dict[str, Any], dict[str, Any]]] = []
        self._stores: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._empty: list[dict[str, Any]] = []
        self._contents: list[tuple[Any, Any, Place | None]] = []
        self._attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._tensors: list[KeptTensor] = []
        self._undo: list[Callable[[], object]] = []
        self._seen: dict[int, Any] = {}
        self._waiting: deque[tuple[Any, Place]] = deque()
        self._hooks: deque[tuple[Any, Place]] = deque()
        self._functions: deque[tuple[Any, Place]] = deque()
        self._classes: set[type] = set()
        self._of = ""
        modules = list(modules)
        self._seen.update((id(module), module) for _, module in modules)
        for path, module in modules:
            self._note_module(path, module)
        for tensor in written:
            self._waiting.append((tensor, ()))
        # In this order: what is an attribute, too, is known as one.
        self._walk("attributes")
        self._waiting, self._hooks = self._hooks, deque()
        self._walk("hooks")
        self._waiting, self._functions = self._functions, deque()
        self._walk("code")

    def put_back(self) -> tuple[Place, ...]:
        """Everything as it was noted; which containers in attributes had grown or shrunk."""
        changed: list[Place] = []
        for held, content, place in self._contents:
            now = _content(held)
            if _differs(now, content) and (place is not None or _has_meta(now)):
                if place and len(now) != len(content):
                    changed.append(place)
                _fill(held, content)
        for module, kind, attributes, before in self._modules:
            attributes.clear()
            attributes.update(before)
            if type(module) is not kind:
                module.__class__ = kind
        for store, before in self._stores:
            if store or before:
                store.clear()
                store.update(before)
        for attributes in self._empty:
            if any(_own_containers(attributes)):  # put back with all else, so that they are all there
                for held in _own_containers(attributes):
                    held.clear()
        for now, attributes in self._attributes:
            if _differs(now, attributes):
                _fill(now, attributes)
        for tensor in self._tensors:
            tensor.put_back()
        for undo in self._undo:
            undo()
        return tuple(changed)

    # ── noting ──

    def _note_module(self, path: str | None, module: nn.Module) -> None:
        kind, attributes = type(module), module.__dict__
        self._modules.append((module, kind, attributes, attributes.copy()))
        for name in _STORES:
            store = attributes.get(name)
            if store is not None:
                self._stores.append((store, store.copy()))
                if path is None and store:
                    self._waiting += [(held, ()) for held in store.values()]
        try:
            empty = not any(_own_containers(attributes))
        except KeyError:  # it was made by an older PyTorch, or without nn.Module's own __init__
            empty = False
        if empty:
            self._empty.append(attributes)
        else:
            for name in OWN_CONTAINERS:
                held = attributes.get(name)
                if held is not None:
                    self._contents.append((held, _content(held), ()))
                    self._hooks += [(hook, ()) for hook in (held.values() if isinstance(held, dict) else ())]
        for name, value in telling(module):
            if not (name.startswith("_flat_weight") and kind.__module__.startswith("torch.")):
                self._waiting.append((value, () if path is None else (path, name)))
        if kind not in self._classes:
            self._note_class(kind)

    def _note_class(self, kind: type) -> None:
        """Containers that are attributes of the class, and what its code sees."""
        for base in kind.__mro__:
            if base in self._classes or is_foreign(base) or base is object:
                continue
            self._classes.add(base)
            self._undo.append(partial(_set_class, base, dict(vars(base))))
            for name, value in vars(base).items():
                if isinstance(value, _OF_CODE) and not (name.startswith("__") and isinstance(value, CONTAINERS)):
                    self._functions.append((value, ()))

    def _walk(self, of: str) -> None:
        self._of = of
        while self._waiting:
            value, place = self._waiting.popleft()
            if type(value) in PLAIN or type(value) in ProxyTypes or id(value) in self._seen:
                continue
            if of == "attributes" and isinstance(value, FunctionType):
                self._functions.append((value, ()))
                continue
            if of == "code" and not isinstance(value, _OF_CODE):
                continue
            self._seen[id(value)] = value
            if isinstance(value, Tensor):
                self._note_tensor(value)
            elif isinstance(value, nn.Module):
                self._note_module(None, value)
            elif isinstance(value, CONTAINERS):
                self._note_items(value, place)
            elif isinstance(value, FunctionType):
                self._note_function(value)
            elif isinstance(value, MethodType):
                self._waiting += [(value.__self__, ()), (value.__func__, ())]
            elif isinstance(value, BuiltinFunctionType | MethodWrapperType):
                self._waiting.append((value.__self__, ()))
            elif isinstance(value, ReferenceType):
                self._waiting.append((value(), ()))
            else:
                self._note_object(value, place)

    def _note_items(self, held: Any, place: Place) -> None:
        content = _content(held)
        if not isinstance(held, tuple | frozenset):
            self._contents.append((held, content, None if self._of == "code" else place))
        if len(content) <= MANY:
            keyed = isinstance(held, dict)
            for key, value in content.items() if keyed else enumerate(content):
                if type(value) not in PLAIN:
                    inner = (*place, key) if place and type(key) in (str, int) else ()
                    self._waiting.append((value, inner))
        attributes = getattr(held, "__dict__", None)  # a class of the user's own
        if attributes:
            self._note_attributes(attributes, ())

    def _note_attributes(self, attributes: dict[str, Any], place: Place) -> None:
        self._attributes.append((attributes, attributes.copy()))
        for name, value in attributes.items():
            if type(value) not in PLAIN:
                self._waiting.append((value, (*place, name) if place else ()))

    def _note_function(self, function: FunctionType) -> None:
        loosely = self._of == "code"
        for _, cell, content in cells_of(function):
            self._undo.append(partial(_set_cell, cell, content, loosely))
            self._waiting.append((content, ()))
        self._waiting += [(value, ()) for _, value in defaults_of(function)]
        if not loosely:
            self._note_attributes(function.__dict__, ())
        of = function.__globals__
        if is_foreign(of.get("__name__", "")):
            return
        for name, value in globals_of(function, roughly=loosely).items():
            if isinstance(value, ModuleType | type | BuiltinFunctionType):
                continue
            self._undo.append(partial(_set_item, of, name, value, loosely))
            if not isinstance(value, FunctionType) or value.__globals__ is of:
                self._waiting.append((value, ()))

    def _note_object(self, value: Any, place: Place) -> None:
        if isinstance(value, np.ndarray):
            if value.nbytes <= LARGE:
                self._undo.append(partial(_set_array, value, value.copy()))
        elif isinstance(value, bytearray):
            self._undo.append(partial(value.__setitem__, slice(None), bytes(value)))
        elif isinstance(value, torch.Generator):
            self._undo.append(partial(value.set_state, value.get_state()))
        elif isinstance(value, np.random.Generator):
            self._undo.append(partial(setattr, value.bit_generator, "state", value.bit_generator.state))
        elif isinstance(value, np.random.RandomState):
            self._undo.append(partial(value.set_state, value.get_state()))
        elif isinstance(value, random.Random):
            self._undo.append(partial(value.setstate, value.getstate()))
        elif isinstance(value, CACHE_TYPE):
            self._undo.append(partial(_empty_cache, value, value.cache_info().misses))
        elif isinstance(value, partial):
            self._waiting += [(held, ()) for held in (value.func, *value.args, *value.keywords.values())]
        elif isinstance(value, type) or is_foreign(type(value)):
            return
        else:
            attributes = getattr(value, "__dict__", None)
            if type(attributes) is dict:
                self._note_attributes(attributes, place)
            for name, slot in slots_of(type(value)):
                try:
                    held = slot.__get__(value)
                except AttributeError:
                    self._undo.append(partial(_unset, slot, value))
                    continue
                self._undo.append(partial(slot.__set__, value, held))
                self._waiting.append((held, (*place, name) if place else ()))

    def _note_tensor(self, tensor: Tensor) -> None:
        self._tensors.append(KeptTensor(tensor))
        grad = tensor.grad if tensor.is_leaf else None
        self._waiting.append((grad, ()))
        self._note_attributes(vars(tensor), ())


def is_foreign(of: type | str) -> bool:
    """Whether a class, or a module by its name, is of a package whose objects are no part of a model's state."""
    return str(of.__module__ if isinstance(of, type) else of).partition(".")[0] in _OTHERS


def clear(module: nn.Module, names: Iterable[Any]) -> None:
    """Empty the container at the place that `names` give (an attribute, and keys in it), if there is one."""
    held: Any = module
    for name in names:
        try:
            held = held[name] if isinstance(held, dict | list | tuple | deque) else getattr(held, name)
        except (AttributeError, LookupError):
            return
    held.clear()


def _kind(held: Any) -> Any:
    return next(kind for kind in CONTAINERS if isinstance(held, kind))


def _content(held: Any) -> Any:
    """A plain copy, by the methods of the plain kinds: a class of the user's own may do more in its."""
    kind = _kind(held)
    if issubclass(kind, dict):
        return dict(kind.items(held))
    return (set if kind in (set, frozenset) else list)(kind.__iter__(held))


def _differs(now: Any, before: Any) -> bool:
    if len(now) != len(before):
        return True
    if isinstance(now, set):
        return now != before
    if isinstance(now, dict):
        return not (all(map(is_, now.values(), before.values())) and all(map(is_, now, before)))
    return not all(map(is_, now, before))


def _fill(held: Any, content: Any) -> None:
    """Put a content back."""
    kind = _kind(held)
    kind.clear(held)
    if kind is OrderedDict:
        for key, value in content.items():
            kind.__setitem__(held, key, value)
    else:
        (kind.extend if kind in (list, deque) else kind.update)(held, content)


def _has_meta(held: Any) -> bool:
    values = held.values() if isinstance(held, dict) else held
    return any(leaf.is_meta for leaf in tree_leaves(list(values)) if isinstance(leaf, Tensor))


def _set_cell(cell: CellType, content: Any, loosely: bool) -> None:
    try:
        if cell.cell_contents is content or (loosely and not _has_meta([cell.cell_contents])):
            return
    except ValueError:  # the variable was deleted
        pass
    cell.cell_contents = content


def _set_item(held: dict[str, Any], name: str, value: Any, loosely: bool) -> None:
    if held.get(name) is not value and not (loosely and not _has_meta([held.get(name)])):
        held[name] = value


def _set_class(kind: type, before: dict[str, Any]) -> None:
    """Attributes of the class itself in which a meta tensor was left."""
    for name, value in list(vars(kind).items()):
        if value is not before.get(name) and _has_meta([value]):
            if name in before:
                setattr(kind, name, before[name])
            else:
                delattr(kind, name)


def _empty_cache(function: Any, misses: int) -> None:
    """Of functools: what was computed during the run may hold meta tensors."""
    if function.cache_info().misses != misses:
        function.cache_clear()


def _set_array(array: np.ndarray, content: np.ndarray) -> None:
    if array.flags.writeable:
        array[...] = content


def _unset(slot: Any, value: Any) -> None:
    try:
        slot.__delete__(value)
    except AttributeError:  # it has none still
        return


def slots_of(kind: type) -> list[tuple[str, Any]]:
    """Name and descriptor of each slot of a class."""
    names = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    found = [(name, getattr(kind, name, None)) for name in names if name not in ("__dict__", "__weakref__")]
    return [(name, slot) for name, slot in found if hasattr(slot, "__set__")]
