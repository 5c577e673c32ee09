"""Read a model as channel groups: one forward pass that carries, for every tensor, which channels it holds.

The model runs once on the meta device (nothing is copied or computed) under a dispatch mode; each ATen operator has a
rule in `rules/` that relates the labels of its outputs to those of its inputs. An operator without a rule pins the
channels that it touches and says so, instead of cutting wrongly.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from prunit.errors import ModelError
from prunit.graph import rules
from prunit.graph.labels import Block, Labels, all_ids
from prunit.graph.meta import shortcut
from prunit.graph.records import ChannelGraph, TensorInfo
from prunit.graph.resolve import Findings, Pin, Use, resolve
from prunit.graph.rules.seam import tensors as tensors_of
from prunit.graph.running import as_inputs, example_tensors, meta_twins, named_tensors, standing_in, tensors_in, to_meta

_LABELS = "_prunit_labels"
_FIXED_SIZE = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
"""Modules that compare their inputs with sizes noted when they were built, or keep a second list of their weights."""


class Tracer(TorchDispatchMode):
    """Collects, while the model runs, which ids are the same channel, which are pinned, and what was computed."""

    def __init__(self, tensors: dict[str, Tensor], batch: int) -> None:
        super().__init__()
        self.findings = Findings()
        self.module_path = ""
        # A tensor that has several names (tied weights) is known by its first.
        self._names = {id(t): n for n, t in reversed(tensors.items())}
        self._tensors = tensors
        self._batch = max(batch, 1)

    # ── what rules call ──

    def labels(self, tensor: Tensor) -> Labels:
        """Labels of a tensor; a parameter or buffer gets fresh ones when it is first seen."""
        found = getattr(tensor, _LABELS, None)
        if found is not None:
            return found
        name = self._names.get(id(tensor))
        if name is None:
            return Labels()
        blocks = tuple(
            Block((d,), self.findings.new_axis(name, d, size)) for d, size in enumerate(tensor.shape) if size > 1
        )
        fresh = Labels(blocks, weight=name)
        setattr(tensor, _LABELS, fresh)
        return fresh

    def set(self, tensor: Tensor, labels: Labels) -> None:
        """Give `tensor` its labels; without a buffer it is taken as a new activation, unless it holds nothing."""
        if labels.buffer == -1 and not labels.weight and tensor.numel() and id(tensor) not in self._names:
            labels = labels._replace(buffer=self._new_activation(tensor, labels))
        setattr(tensor, _LABELS, labels)

    def unify(self, a: np.ndarray, b: np.ndarray, why: str) -> None:
        """The ids in `a` and `b` (same shape) are the same channels, position by position."""
        self.findings.unify(a, b, Pin(why, self.module_path))

    def pin(self, ids: np.ndarray | None, why: str) -> None:
        """These channels must stay; `why` completes 'pinned: …'."""
        if ids is not None and ids.size:
            self.findings.pins.append((ids, Pin(why, self.module_path)))

    def pin_tensor(self, tensor: Tensor, why: str) -> None:
        """All channels of a tensor must stay."""
        self.pin(all_ids(self.labels(tensor)), why)

    def pin_module(self, module: nn.Module, passed: Any) -> None:
        """A module of fixed sizes: its parameters and what goes in and out must stay."""
        for tensor in (*module.parameters(), *tensors_of(passed)):
            self.pin_tensor(tensor, f"{type(module).__name__} fixes its sizes")

    def contract(self, ids: np.ndarray | None) -> None:
        """These weight ids are summed over here: their axis is an input axis."""
        if ids is not None:
            self.findings.roles.append((ids, "in"))

    def produce(self, ids: np.ndarray | None) -> None:
        """These weight ids become the channels of an output here."""
        if ids is not None:
            self.findings.roles.append((ids, "out"))

    def use(self, weight: Tensor, kind: str, macs: int) -> None:
        """A convolution or linear map was computed with `macs` multiply-adds over the whole batch."""
        name = self.labels(weight).weight
        if name:
            self.findings.uses.append(
                Use(name, kind, macs // self._tensors[name].numel() // self._batch, self.module_path)
            )
        else:
            self.fixed_macs(macs)

    def fixed_macs(self, macs: int) -> None:
        """Multiply-adds over the whole batch that no group changes."""
        self.findings.fixed_macs += macs // self._batch

    # ── the dispatch itself ──

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        inputs = tensors_of((args, named))
        if len({a.is_meta for a in inputs}) > 1:  # a constant that the model keeps or makes on another device
            args, named = to_meta(args), to_meta(named)
            inputs = tensors_of((args, named))
        out = shortcut(func, args, named, inputs)
        if out is None:
            out = func(*args, **named)
        for tensor in inputs:
            self.findings.touch(self.labels(tensor).buffer)
        if inputs:
            rules.rule_for(func)(self, func, args, named, out)
        else:
            for made in tensors_of(out):
                self.set(made, Labels())
        self.findings.step += 1
        return out

    def _new_activation(self, tensor: Tensor, labels: Labels) -> int:
        block = max(labels.blocks, key=lambda b: b.ids.size, default=None)
        where = np.zeros(1, np.int64) if block is None else block.ids.reshape(-1)
        per = tensor.numel() // self._batch // max(where.size, 1)
        return self.findings.new_buffer(where, per, tensor.element_size())


def trace(model: nn.Module, example: Any, *, pin: Sequence[str] = ()) -> ChannelGraph:
    """The model's channel groups, from one forward pass in evaluation mode.

    `example` is one input tensor (batch first), a tuple of positional inputs or a dict of keyword inputs; only shapes
    and dtypes matter. `pin` holds name patterns (`fc`, `layer4.*`) of modules whose output channels must all stay.
    The model is left as it was. Raises `ModelError` if the model fails on its example.
    """
    args, kwargs = as_inputs(example)
    leaves = example_tensors((args, kwargs))
    if not leaves:
        raise ModelError(f"cannot trace {_kind(model)}: the example holds no tensor, but {_describe(example)}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(f"cannot trace {_kind(model)}: it is TorchScript; give the Python model it was made from")
    named = named_tensors(model)
    lazy = [n for n, t in named.items() if is_lazy(t)]
    if lazy:
        raise ModelError(f"cannot trace {_kind(model)}: '{lazy[0]}' has no shape yet; call the model on a batch first")
    batch = leaves[0].shape[0] if leaves[0].ndim else 1
    try:
        findings = _run(model, meta_twins(named), to_meta(args), to_meta(kwargs), batch)
    except _Unreadable:
        raise
    except Exception as on_meta:
        # Forward passes that look at values (x.item(), a data-dependent branch) cannot run without them. Buffers are
        # copied because such a pass may write to them.
        copies = {id(t): t if isinstance(t, nn.Parameter) else t.clone() for t in named.values()}
        try:
            findings = _run(model, {n: copies[id(t)] for n, t in named.items()}, args, kwargs, batch)
        except _Unreadable:
            raise
        except Exception as error:
            raise ModelError(
                f"{_kind(model)} fails on its example {_describe(example)}: {_one_line(error)}"
            ) from on_meta
    # A tensor that has several names (tied weights) counts once, under its first.
    first = {id(t): n for n, t in reversed(named.items())}
    infos = {
        n: TensorInfo(tuple(t.shape), t.element_size(), isinstance(t, nn.Parameter))
        for n, t in named.items()
        if first[id(t)] == n
    }
    return resolve(findings, infos, pin)


class _Unreadable(ModelError):
    """The model runs, but what it returns cannot be read."""


def _run(
    model: nn.Module, tensors: dict[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], batch: int
) -> Findings:
    tracer = Tracer(tensors, batch)
    inputs = example_tensors((args, kwargs))
    for leaf in inputs:
        tracer.set(leaf, Labels())
    try:
        with standing_in(model, tensors), torch.no_grad(), _module_paths(model, tracer), tracer:
            out = model(*args, **kwargs)
        outputs = tensors_in(out)
        if not outputs:
            raise _Unreadable(f"cannot trace {_kind(model)}: no tensor was found in what it returns ({_kind(out)})")
        tracer.module_path = ""
        for leaf in outputs:
            tracer.pin_tensor(leaf, "the model's output")
    finally:
        for leaf in (*inputs, *tensors.values()):
            if hasattr(leaf, _LABELS):
                delattr(leaf, _LABELS)
    return tracer.findings


@contextmanager
def _module_paths(model: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Keep `tracer.module_path` at the innermost module that is running."""
    paths = {id(m): n for n, m in model.named_modules()}
    stack: list[str] = [""]

    def enter(module: nn.Module, _inputs: Any) -> None:
        stack.append(paths.get(id(module), stack[-1]))
        tracer.module_path = stack[-1]

    def leave(module: nn.Module, inputs: Any, keywords: Any, out: Any) -> None:
        if isinstance(module, _FIXED_SIZE):
            tracer.pin_module(module, (inputs, keywords, out))
        stack.pop()
        tracer.module_path = stack[-1]

    handles = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _kind(value: object) -> str:
    return type(value).__name__


def _describe(example: Any) -> str:
    shapes = [tuple(leaf.shape) for leaf in example_tensors(example)]
    return f"of shape {', '.join(map(str, shapes))}" if shapes else f"is a {_kind(example)}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{_kind(error)}: {text[:300]}"
