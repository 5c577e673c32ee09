"""Does the code follow when channels go? The model run with channels missing, beside what was predicted."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunit.errors import SurgeryError
from prunit.graph.choices import Difference, Step
from prunit.graph.code import Numbers, makes_tensors, numbers_of
from prunit.graph.findings import Pass
from prunit.graph.looking import told as told_of
from prunit.graph.meta import MetaMode, on_meta
from prunit.graph.modules import following
from prunit.graph.records import ChannelGraph
from prunit.graph.rules.seam import tensors as tensors_of
from prunit.graph.running import first_names, named_tensors, standing_in, to_meta, where_in_code
from prunit.graph.sizes import cut_sizes, resize, set_sizes
from prunit.graph.written import Views, ViewsAsCut, split_views


def first_difference(
    model: nn.Module,
    graph: ChannelGraph,
    steps: list[Step],
    where_of: np.ndarray,
    passes: Sequence[Pass],
    known: dict[Any, list[Any]],
) -> Difference | None:
    """The first step at which a narrower model departs from what the graph predicts; None if none of three does.

    Every free group loses one to three channels, so that groups of equal size no longer have equal widths; then every
    second group about half of its channels, and then the others, so that no share of a sum agrees by chance. The model
    runs on meta tensors of the cut shapes: operators must come in the same order, with outputs of the predicted shapes
    and with equal numbers (a scale taken from a width would be another function). `where_of` gives the flat channel
    number of each id. `passes` are run in their order, each in its mode. The model is left as it was. In `known` stands
    what the model has made tensors of in earlier calls for it.
    """
    whole = np.ones(int(graph.offsets[-1]) + 1, dtype=bool)
    # A tensor made of values on the meta device does not show them: first those of the model as it is. To make one is
    # no operator there, so that every module is asked, and not only those that ran one.
    told: list[Any] | None = None
    if makes_tensors(model.modules()):
        same = tuple(
            [(p.training, p.end, p.on_values) for p in passes]
        )  # at its own widths it makes the same each time
        if same not in known:
            found: list[Any] = []
            difference = _differs(model, graph, _Narrow(steps, where_of, whole, found), passes)
            if difference is not None:
                return difference
            known[same] = found
        told = known[same]
    ways = (_Narrow(steps, where_of, _thinned(whole, graph, n), told) for n in range(3))
    return next((d for d in (_differs(model, graph, run, passes) for run in ways) if d), None)


def _differs(model: nn.Module, graph: ChannelGraph, run: "_Narrow", passes: Sequence[Pass]) -> Difference | None:
    steps, keep = run.steps, run.keep
    twins = _cut_twins(model, graph, keep)
    told = nullcontext() if run.told is None else _Told(run)
    try:
        for training, inputs, end, on_values in passes:
            run.end, run.on_values = end, on_values
            args, kwargs = to_meta(inputs)
            with standing_in(model, twins, training=training), torch.set_grad_enabled(training):
                for module in model.modules():
                    resize(module)
                sizes, views = split_views(model, cut_sizes(model, graph.code_sizes, keep))
                set_sizes(model, sizes)
                as_cut = _as_cut(run, views)
                with as_cut, told, following(model, run), run:
                    try:
                        model(*args, **kwargs)
                    except Exception:
                        if not on_values or run.at < end:  # what comes after that was not assumed
                            raise
            if run.at != end:
                return Difference(run.at, "", "")
    except _Differs as error:
        return Difference(run.at, steps[min(run.at, len(steps) - 1)].module, where_in_code(error))
    except SurgeryError as error:
        last = max((i for i, step in enumerate(steps) if step.module == error.module), default=0)
        return Difference(last, steps[last].module, "")
    except Exception as error:
        step = run.at if run.inside else _between(steps, run.at)
        return Difference(step, run.module_path, where_in_code(error))
    return None


def reach(
    model: nn.Module, graph: ChannelGraph, steps: list[Step], where_of: np.ndarray, inputs: tuple[Any, Any]
) -> int:
    """Up to which of its steps a model that looks at values runs on meta tensors, told what it saw."""
    run = _Narrow(steps, where_of, np.ones(int(graph.offsets[-1]) + 1, dtype=bool), None)
    _differs(model, graph, run, [Pass(False, inputs, len(steps), True)])
    return run.at


def _as_cut(run: "_Narrow", views: Mapping[str, Views]) -> AbstractContextManager[Any]:
    """Views whose sizes are written out, in the modules that are running."""
    return ViewsAsCut(lambda: views.get(run.module_path, {})) if views else nullcontext()


def _thinned(whole: np.ndarray, graph: ChannelGraph, way: int) -> np.ndarray:
    keep = whole.copy()
    for i, group in enumerate(graph.groups):
        if not group.pinned:
            # Two stay where they can: tensors with a dimension of size 1 take other ways through PyTorch.
            most = group.size - 2 if group.size > 2 else group.size - 1
            lost = 1 + i % 3 if way == 0 else group.size // 2 if i % 2 == way % 2 else 1
            start = graph.offsets[i]
            keep[start : start + max(1, min(lost, most))] = False
    return keep


def _cut_twins(model: nn.Module, graph: ChannelGraph, keep: np.ndarray) -> dict[str, Tensor]:
    """Meta tensors of the shapes that the model's tensors have after the cut."""
    named = named_tensors(model)
    shapes = {name: list(t.shape) for name, t in named.items()}
    for axis in graph.axes:
        shapes[axis.tensor][axis.dim] = int(keep[axis.where].sum())
    first = first_names(named)
    made = {n: torch.empty(shapes[n], dtype=t.dtype, device="meta") for n, t in named.items() if first[id(t)] == n}
    return {n: made[first[id(t)]] for n, t in named.items()}


def _between(steps: list[Step], at: int) -> int:
    """The step to blame for an error in the code before step `at`.

    A view of the wrong size fails before there is an operator; other code has looked at the last result.
    """
    for i in (at, at + 1):  # a view of what is not contiguous is a copy first
        if i < len(steps) and steps[i].name in ("view", "_unsafe_view", "expand", "split_with_sizes"):
            return i
    return max(at - 1, 0)


class _Differs(Exception):
    """The run departs from the prediction."""


class _Narrow(MetaMode):
    """Stops at the first operator that is another, or whose outputs have other shapes, than predicted."""

    def __init__(self, steps: list[Step], where_of: np.ndarray, keep: np.ndarray, told: list[Any] | None) -> None:
        super().__init__()
        self.at = 0
        self.inside = False
        self.end = len(steps)
        self.on_values = False
        self.module_path = ""
        self.module: nn.Module | None = None
        self.module_inputs: list[Tensor] = []
        self.steps, self.keep, self.told = steps, keep, told
        self._where_of = where_of
        self._counts: dict[int, int] = {}

    def left(self, module: nn.Module, passed: Any) -> None:
        """A module has run."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        step, kwargs = self._next(func), kwargs or {}
        if numbers_of(step.name, args, kwargs, constants=not self.on_values) != step.numbers:
            raise _Differs
        self.inside = True
        if step.seen is None:
            out, *_ = self.answered(func, args, kwargs)
        else:
            out = told_of(step.seen, self._expected(*step.outputs[0]) if step.outputs else ())
        self._ran(step, out)
        return out

    def run(self, func: Any, args: tuple[Any, ...], inputs: list[Tensor], numbers: Numbers) -> Any:
        """What an operator of a layer of torch.nn gives on meta tensors, as if PyTorch had asked."""
        step = self._next(func)
        if numbers != step.numbers:
            raise _Differs
        self.inside = True
        out = on_meta(func, args, inputs)
        self._ran(step, out)
        return out

    def reserve(self) -> None:
        """A layer asks for an empty vector."""
        self._next(torch.ops.aten.empty.memory_format)
        self.at += 1

    def _next(self, func: Any) -> Step:
        """The step that comes now, which must be of this operator."""
        if self.at >= self.end:
            raise _Differs
        step = self.steps[self.at]
        if func is not step.operator:
            raise _Differs
        return step

    def _ran(self, step: Step, out: Any) -> None:
        """What came out must be as it was predicted."""
        self.inside = False
        outputs = [out] if type(out) is Tensor else tensors_of(out)
        for tensor, (shape, blocks) in zip(outputs, step.outputs, strict=True):
            if tensor.shape != (self._expected(shape, blocks) if blocks else shape):
                raise _Differs
        self.at += 1

    def _expected(self, shape: tuple[int, ...], blocks: Iterable[tuple[int, np.ndarray]]) -> tuple[int, ...]:
        expected = list(shape)
        for dim, ids in blocks:
            expected[dim] = self._count(ids)
        return tuple(expected)

    def _count(self, ids: np.ndarray) -> int:
        known = self._counts.get(id(ids))
        if known is None:
            known = self._counts[id(ids)] = int(self.keep[self._where_of[ids]].sum())
        return known


_OF_VALUES = {torch.tensor: 0, torch.as_tensor: 0, torch.from_numpy: 0, Tensor.new_tensor: 1}
"""Functions that make a tensor of values, and which argument these are."""


class _Told(TorchFunctionMode):
    """Stops where a tensor is made of other values than the model makes it of at its own widths."""

    def __init__(self, run: _Narrow) -> None:
        super().__init__()
        self._run = run
        self._made = 0
        assert run.told is not None
        self._told = run.told
        self._first = bool(run.keep.all())

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        at = _OF_VALUES.get(func)
        if at is not None and len(args) > at and not isinstance(args[at], Tensor):
            if self._first:
                self._told.append(args[at])
            elif self._made >= len(self._told) or not _same(self._told[self._made], args[at]):
                raise _Differs
            self._made += 1
        return func(*args, **(kwargs or {}))


def _same(a: Any, b: Any) -> bool:
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b)
