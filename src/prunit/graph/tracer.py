"""Forward passes that carry, for every tensor, which channels it holds.

The model runs on the meta device (nothing is copied or computed) under a dispatch mode; each ATen operator has a rule
in `rules/` that relates the labels of its outputs to those of its inputs. An operator without a rule pins the channels
that it touches and says so, instead of cutting wrongly. What a second pass finds, in training mode, is added to what
the first one did: a parameter has the same ids in both.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from prunit.graph import rules
from prunit.graph.choices import COMPARED, Choices, Site, Step
from prunit.graph.code import Numbers, gives_values, numbers_of
from prunit.graph.computed import Computed
from prunit.graph.findings import Findings, HeldSize, Pin, Use
from prunit.graph.labels import Block, Labels, all_ids
from prunit.graph.looking import seen_of
from prunit.graph.meta import MetaMode, on_meta
from prunit.graph.records import Geometry
from prunit.graph.rules.seam import name_of, tie
from prunit.graph.rules.seam import tensors as tensors_of
from prunit.graph.running import calling_line, first_names
from prunit.graph.sizes import LAYERS, holders
from prunit.graph.weights import computing
from prunit.graph.written import name_of_view

_TAKES_SHAPES = (nn.Linear, nn.Flatten, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
"""Modules whose views take their sizes from the tensors' shapes."""
_NUMBERS = count()
_NONE = Labels()
_NO_CHANNELS = (np.zeros(1, np.int64),)
"""One position that is never cut."""
_EMPTY = torch.ops.aten.empty.memory_format
_NO_ELEMENTS = ((torch.Size([0]), ()),)
_NO_KEYWORDS: dict[str, Any] = {}
_UNCOUNTED = 1 << 30
"""The activation memory of tensors in a pass that is not counted."""
_FIXED_SIZE = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
"""Modules that compare their inputs with sizes noted when they were built, or keep a second list of their weights."""


class Tracer(MetaMode):
    """Collects, while the model runs, which ids are the same channel, which are pinned, and what was computed."""

    def __init__(self, tensors: dict[str, Tensor], batch: int, choices: Choices) -> None:
        super().__init__()
        self.findings = Findings()
        self.module_path = ""
        self.module: nn.Module | None = None
        self.module_inputs: list[Tensor] = []
        self.choices = choices
        self.on_mix: Callable[[np.ndarray], None] | None = None
        """Told of all ids that an operator looks at together; `masking` listens."""
        self.familiar: set[str] | None = None
        """Modules whose code a checked pass has run: elsewhere the last reading, 'pinned', is taken. None: all are."""
        self.on_values = False
        """The tensors are no meta tensors."""
        self._counts = True
        self.mark = f"_prunit_labels_{next(_NUMBERS)}"  # what a cache outside keeps has none for the next tracer
        self._names = first_names(tensors)
        self._of_named: dict[str, Labels] = {}
        self.lists: dict[str, Computed] = {}
        """By the path of their parametrizations what layers compute; `hooked` is what a hook computes now."""
        self.hooked: Computed | None = None
        self.labelled: list[Tensor] = []
        self._tensors = tensors
        self._batch = max(batch, 1)

    def again(self, tensors: dict[str, Tensor]) -> None:
        """From now on another pass runs, on these tensors by the same names. It costs nothing where the model runs."""
        self._names, self._tensors = first_names(tensors), tensors
        self._counts = False

    # ── what rules call ──

    def labels(self, tensor: Tensor) -> Labels:
        """Labels of a tensor; a parameter or buffer gets fresh ones when it is first seen."""
        found = getattr(tensor, self.mark, None)
        if found is not None:
            return found
        name = self._names.get(id(tensor))
        if name is None:
            return _NONE
        found = self._of_named.get(name)
        if found is not None:
            return found
        new_axis = self.findings.new_axis
        blocks = [Block((d,), new_axis(name, d, size)) for d, size in enumerate(tensor.shape) if size > 1]
        fresh = self._of_named[name] = Labels(tuple(blocks), -1, name)
        return fresh

    def along(self, vector: Tensor, ids: np.ndarray | None, why: str) -> np.ndarray | None:
        """A vector holds one value for each of these channels, or for fixed ones (None); the ids along it."""
        name = self._names.get(id(vector))
        if name is not None and ids is not None and vector.shape == ids.shape:
            fresh = name not in self._of_named and not hasattr(vector, self.mark)
            mine = self.findings.new_axis_like(name, ids) if fresh else None
            if mine is not None:
                self._of_named[name] = Labels((Block((0,), mine),), -1, name)
                return mine
        mine = self.labels(vector).ids(0)
        tie(self, ids, mine, why)
        return mine

    def is_named(self, tensor: Tensor) -> bool:
        """Whether this is a parameter or buffer itself."""
        return id(tensor) in self._names

    def set(self, tensor: Tensor, labels: Labels) -> None:
        """Give `tensor` its labels; without a buffer it is taken as a new activation, unless it holds nothing."""
        if id(tensor) in self._names:
            self.labelled.append(tensor)
        elif labels.buffer == -1 and not labels.weight and tensor.numel():
            labels = labels._replace(buffer=self._new_activation(tensor, labels))
        setattr(tensor, self.mark, labels)

    def unify(self, a: np.ndarray, b: np.ndarray, why: str) -> None:
        """The ids in `a` and `b` (same shape) are the same channels, position by position."""
        self.findings.unify(a, b, why, self.module_path)

    def pin(self, ids: np.ndarray | None, why: str) -> None:
        """These channels must stay; `why` completes 'pinned: …'."""
        if ids is not None and ids.size:
            item = computing(self)
            where = self.module_path
            if item is not None:
                why, where = f"{why}, by which {item.by} computes '{item.name}'", item.path
            self.findings.pins.append((ids, Pin(why, where)))

    def pin_tensor(self, tensor: Tensor, why: str) -> None:
        """All channels of a tensor must stay, and those whose numbers it holds."""
        labels = self.labels(tensor)
        self.pin(all_ids(labels), why)
        self._counted(labels)

    def _counted(self, labels: Labels) -> None:
        """Somebody reads this tensor: are its values numbers of channels?"""
        if labels.counts is not None:
            ids, operator = labels.counts
            self.pin(ids, f"operator {operator} counts channels")

    def left(self, module: nn.Module, passed: Any) -> None:
        """A module has run. One of fixed sizes: its parameters and what went in and out must stay."""
        if isinstance(module, ParametrizationList) and self.module_path in self.lists:
            *_, out = passed
            self.computed(self.lists[self.module_path], out)
        self.findings.called.add(module)
        if self.choices.any_taken:
            self._read_otherwise(tensors_of(passed[:2]))
        if isinstance(module, _FIXED_SIZE):
            for tensor in (*module.parameters(), *tensors_of(passed)):
                self.pin_tensor(tensor, f"{type(module).__name__} fixes its sizes")

    def _read_otherwise(self, given: list[Tensor]) -> None:
        """What was found of the code of the module that has run, when it was read before: these are its inputs."""
        for tensor in given if self.choices[self.module_path, COMPARED] else ():
            for block in (b for b in self.labels(tensor).blocks if b.ids.ndim == 1):
                self.size(block.ids.size, block.ids)
        line = self.choices.avoided(self.module_path, "*")  # code that runs no operator itself is met here alone
        for tensor in given if line is not None else ():
            self.pin_tensor(tensor, f"the model's code depends on its size{line}")

    def computed(self, item: Computed, weight: Tensor) -> None:
        """A layer has computed a weight: from now on it is the parameter that stands for it.

        How its channels are looked at on the way (a norm) is no matter: `mask` computes it on what is kept, as the
        compact layer does. Channels that could not be followed to the weight must stay.
        """
        if id(weight) in self._names:
            return
        main = self._tensors.get(item.main)
        why = f"'{item.name}' is computed by {item.by} in a way that is not followed"
        if main is None:
            # The channels that it reads stay; of those that it makes nobody knows a tensor.
            dim = 1 if weight.ndim > 1 else 0
            blocks = (Block((dim,), self.made_up(weight.shape[dim])),) if weight.shape[dim] > 1 else ()
            self.findings.pins += [(b.ids, Pin(why, item.path)) for b in blocks]
            self.set(weight, Labels(blocks, -2))
            return
        labels, found = self.labels(main), self.labels(weight)
        for block in labels.blocks:
            ids = found.ids(block.dims[0])
            if ids is None:
                self.findings.pins.append((block.ids, Pin(why, item.path)))
            else:
                self.unify(block.ids, ids, why)
        self.set(weight, Labels(labels.blocks, -2, self._names[id(main)], clean=True))

    def mix(self, ids: np.ndarray | None, why: str) -> None:
        """An operator looks at all of these channels together, and takes any number of them."""
        if computing(self) is not None:
            return
        if self._cautious() or self.module_path in self.choices.decided:
            self.pin(ids, why)
        elif ids is not None and ids.size:
            self.findings.mixed.append((ids, Pin(why, self.module_path)))
            if self.on_mix is not None:
                self.on_mix(ids)

    def reading(self, what: str, readings: int, ids: np.ndarray) -> int:
        """Which of so many readings of the code to take for these channels; the last one is to pin them."""
        key = (self.module_path, what)
        taken = readings - 1 if self._cautious() else min(self.choices[key], readings - 1)
        step, kind = len(self.findings.steps), type(self.module).__name__
        self.findings.sites.append(Site(step, key, kind, taken, readings, ids))
        return taken

    def reject(self, ids: np.ndarray) -> None:
        """If these channels come from one of several readings, another one is preferred."""
        self.findings.rejected.append(ids)

    def size(self, value: int, ids: np.ndarray) -> None:
        """An operator was given `value`, the number of the channels `ids`, and its module may hold that number."""
        if self.module is None or self._cautious():
            return
        # A helper, such as a table of position biases, is asked by its parent without being called.
        prefix = f"{self.module_path}." if self.module_path else ""
        helpers = ((prefix + n, m) for n, m in self.module.named_children() if not isinstance(m, LAYERS))
        for path, module in ((self.module_path, self.module), *helpers):
            for name, index in holders(module, value):
                if not self.choices[path, f"attribute {name}"]:
                    self.findings.held_sizes.append(HeldSize(path, name, index, ids, module is not self.module))

    def written(self, sizes: Sequence[int], place: int, ids: np.ndarray) -> None:
        """The running module's code writes out the sizes of a view of a row, of which one counts the channels `ids`."""
        if self.module is not None and not self._cautious():
            name = name_of_view(sizes)
            if not self.choices[self.module_path, f"attribute {name}"]:
                self.findings.held_sizes.append(HeldSize(self.module_path, name, place, ids, False))

    def holds(self, value: int) -> bool:
        """The module that runs has an attribute of that value."""
        return self.module is not None and any(True for _ in holders(self.module, value))

    def assume(self, tensor: Tensor, *, unless: str = "") -> None:
        """An operator on `tensor` was given sizes that its code may have written out: to be checked.

        Not so where the line of code has the word `unless` in it, or a module of torch.nn computes the sizes.
        """
        cautious = self._cautious()
        if (self.findings.assumed and not cautious) or isinstance(self.module, _TAKES_SHAPES):
            return
        if not (unless and unless in calling_line()):
            self.findings.assumed = True
            if cautious:  # it cannot be checked
                self.pin_tensor(tensor, "the model's code may depend on its size")

    def given(self, size: int) -> np.ndarray | None:
        """The channels of the running module's inputs, where those are as many."""
        for tensor in self.module_inputs if not isinstance(self.module, _TAKES_SHAPES) else ():
            for block in self.labels(tensor).blocks:
                if block.ids.shape == (size,):
                    return block.ids
        return None

    def made_up(self, size: int) -> np.ndarray:
        """Fresh ids for channels of a tensor that the model makes as it runs, as many as it needs."""
        return self.findings.new_axis("", 0, size)

    def is_made_up(self, ids: np.ndarray) -> bool:
        """Whether these are such ids, all along one dimension."""
        return self.findings.is_made_up(ids)

    def contract(self, ids: np.ndarray | None) -> None:
        """These weight ids are summed over here: their axis is an input axis."""
        if ids is not None:
            self.findings.roles.append((ids, "in"))

    def produce(self, ids: np.ndarray | None) -> None:
        """These weight ids become the channels of an output here."""
        if ids is not None:
            self.findings.roles.append((ids, "out"))

    def use(
        self,
        weight: Tensor,
        kind: str,
        macs: int,
        others: Sequence[np.ndarray] = (),
        geometry: Geometry | None = None,
    ) -> None:
        """A convolution or linear map was computed with `macs` multiply-adds over the whole batch.

        They change with the weight, and with the channels `others` of what it is applied to.
        """
        labels = self.labels(weight)
        name = labels.weight
        if not self._counts:
            if name:
                self.findings.training_uses.append(Use(name, kind, 0, self.module_path, geometry))
            return
        whole = bool(name) and not others and weight.numel() == self._tensors[name].numel()
        positions = macs // weight.numel() // self._batch if whole else 0
        if name:
            self.findings.uses.append(Use(name, kind, positions, self.module_path, geometry))
        if not whole:
            self.macs(macs, *(b.ids for b in labels.blocks), *others)

    def macs(self, macs: int, *ids: np.ndarray) -> None:
        """Multiply-adds over the whole batch that change with all of these channels."""
        if self._counts:
            self.findings.products.append((macs, ids, self._batch))

    def _cautious(self) -> bool:
        """Whether nothing may be assumed of the code that runs, as it cannot be checked."""
        if self.choices.cautious or self.module_path in self.choices.looking:
            return True
        if self.familiar is not None:
            return self.module_path not in self.familiar
        return self.choices.sure is not None and len(self.findings.steps) >= self.choices.sure

    # ── the dispatch itself ──

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = name_of(func), kwargs or {}
        numbers = numbers_of(name, args, kwargs, constants=not self.on_values)
        if not self.findings.gives_values and gives_values(name, func, args, kwargs, self.module):
            self.findings.gives_values = True
        if self.module is not None:
            self.findings.ran.add(self.module)
        out, args, kwargs, inputs = self.answered(func, args, kwargs)
        seen = seen_of(func, args, out) if self.on_values else None
        self._follow(func, args, kwargs, inputs, out, numbers, seen)
        return out

    def run(self, func: Any, args: tuple[Any, ...], inputs: list[Tensor], numbers: Numbers) -> Any:
        """What an operator of a layer of torch.nn gives on meta tensors, as if PyTorch had asked."""
        self.findings.ran.add(cast(nn.Module, self.module))
        out = on_meta(func, args, inputs)
        self._follow(func, args, _NO_KEYWORDS, inputs, out, numbers, None)
        return out

    def reserve(self) -> None:
        """A layer asks for an empty vector, which has no rule to follow."""
        self.findings.ran.add(cast(nn.Module, self.module))
        kind = type(self.module).__name__
        self.findings.steps.append(Step(_EMPTY, "empty", self.module_path, kind, ((),), _NO_ELEMENTS))

    def _follow(
        self, func: Any, args: Any, kwargs: Any, inputs: list[Tensor], out: Any, numbers: Numbers, seen: Any
    ) -> None:
        """Note a step and what its rule says; `inputs` are the tensors among the arguments."""
        findings, rule, now = self.findings, rules.rule_for(func), len(self.findings.steps)
        for tensor in inputs:
            labels: Labels | None = getattr(tensor, self.mark, None)  # a parameter gets its own from the rule
            if labels is None:
                continue
            if labels.buffer >= 0 and self._counts:
                findings.last_use[labels.buffer] = now
            if labels.counts is not None and rule is not rules.like_first:
                self._counted(labels)
        rule(self, func, args, kwargs, out)
        outputs = [out] if type(out) is Tensor else tensors_of(out)
        name, path = name_of(func), self.module_path
        if self.choices.any_taken:
            line = self.choices.avoided(path, name)
            if line is not None:
                self._pin_around(inputs + outputs, f"the model's code depends on its size{line}")
        shapes = tuple([(leaf.shape, self._ids_along(leaf)) for leaf in outputs])
        findings.steps.append(Step(func, name, path, type(self.module).__name__, numbers, shapes, seen))

    def _ids_along(self, tensor: Tensor) -> tuple[tuple[int, np.ndarray], ...]:
        """The dimensions that are labelled alone, and their ids."""
        blocks = self.labels(tensor).blocks
        return tuple([(dims[0], ids) for dims, ids in blocks if len(dims) == 1]) if blocks else ()

    def _pin_around(self, tensors: list[Tensor], why: str) -> None:
        """Pin all channels of these tensors, and those of the module's inputs of which there are as many.

        Code such as `reshape(B, N, C)` takes C from the shape of what it was given.
        """
        sizes = {size for tensor in tensors for size in tensor.shape}
        for tensor in tensors:
            self.pin_tensor(tensor, why)
        for tensor in self.module_inputs:
            for block in self.labels(tensor).blocks:
                if block.ids.size in sizes:
                    self.pin(block.ids, why)

    def _new_activation(self, tensor: Tensor, labels: Labels) -> int:
        if not self._counts:
            return _UNCOUNTED
        wheres = [ids if ids.ndim == 1 else ids.reshape(-1) for _, ids in labels.blocks] or _NO_CHANNELS
        per = tensor.numel()
        for ids in wheres:
            per //= ids.size
        batch = self._batch
        if per % batch == 0:
            per, batch = per // batch, 1
        return self.findings.new_buffer(wheres, per, batch, tensor.element_size())
