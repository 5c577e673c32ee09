"""A dense model that behaves as if pruned channels were not there, also where an operator looks at all of them at once.

Zeros in the weights that read a pruned channel are enough where channels meet in weighted sums. A layer norm, a softmax
or a mean over channels would still count them. So each call of a function that mixes channels is computed on the kept
ones alone: its inputs are gathered, its outputs scattered back into zeros. Which calls those are, and along which
dimensions, is found by tracing the model when it is called, once for each shape of inputs, options and mode.
"""

import sys
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import function as autograd_function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils._pytree import tree_flatten, tree_unflatten

from prunit.errors import SurgeryError
from prunit.graph.choices import Choices
from prunit.graph.labels import Block
from prunit.graph.records import ChannelGraph
from prunit.graph.running import copied, example_tensors, named_tensors, own_twins
from prunit.graph.tracer import Tracer
from prunit.graph.tracing import tracing

_WITH_SHAPE = {F.layer_norm, F.rms_norm, torch.layer_norm, torch.rms_norm}
"""Functions whose second argument repeats the sizes of the last dimensions."""
_OWN_BACKWARD: Final = frozenset((checkpoint.__file__, autograd_function.__file__))
"""Code that runs parts of a model whose backward pass is not that of the functions which they call."""
_MOST_WAYS = 32
"""What is known of so many kinds of calls (shapes, options, modes) is kept."""


class _Call(NamedTuple):
    """A call that mixes channels: kept positions by number of the tensor and dimension; dense sizes of the outputs."""

    function: Any
    inputs: dict[int, list[tuple[int, Tensor]]]
    outputs: dict[int, list[tuple[int, int, Tensor]]]


class AbsentChannels:
    """Hooks on a dense model under which its pruned channels do not take part in what mixes channels."""

    def __init__(self, graph: ChannelGraph, keep: np.ndarray) -> None:
        self.graph, self.keep = graph, keep
        self._calls: dict[Any, list[_Call | object]] = {}
        self._running: list[Any] = []

    def attach(self, model: nn.Module) -> None:
        """From now on `model` computes so whenever it is called."""
        model.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True)
        model.register_forward_hook(self._leave, always_call=True)

    def _enter(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        if self._running:  # the model calls itself, or is being traced: the outer call sees to all
            self._running.append(None)
            return
        leaves, tree = tree_flatten((args, kwargs))
        key = repr(tree), tuple(map(_kind, leaves)), tuple(m.training for m in model.modules())
        if key not in self._calls:
            self._running.append(None)
            if len(self._calls) == _MOST_WAYS:
                del self._calls[next(iter(self._calls))]
            with torch.inference_mode(False):  # as in `trace`; and later calls may want gradients
                self._calls[key] = self._find_calls(model, args, kwargs)
            self._running.pop()
        mode = _OnKept(self._calls[key])
        self._running.append(mode)
        mode.__enter__()

    def _leave(self, model: nn.Module, args: Any, out: Any) -> None:
        mode = self._running.pop() if self._running else None
        if mode is not None:
            mode.__exit__(None, None, None)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is found anew when a copy is called: its keys are whatever the user gave the model."""
        return {**self.__dict__, "_calls": {}, "_running": []}

    def _find_calls(self, model: nn.Module, args: Any, kwargs: Any) -> list[_Call | object]:
        leaves = example_tensors((args, kwargs))
        tensors = own_twins(named_tensors(model))  # some models take another way on meta tensors
        tracer = Tracer(tensors, leaves[0].shape[0] if leaves[0].ndim else 1, Choices(self.graph.choices))
        seen = _Seen(tracer)
        args, kwargs = copied((args, kwargs))
        with tracing(model, tracer, tensors, example_tensors((args, kwargs)), training=None), seen:
            # The hooks of the model itself are for real calls; those of its parts run.
            model.forward(*args, **kwargs)
        stays = self.keep[self._where_of(tracer)]
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        return [call.resolved(stays, device) for call in seen.calls]

    def _where_of(self, tracer: Tracer) -> np.ndarray:
        """Flat channel number of every id of this trace, by what the graph says of each tensor's axes."""
        known = {(a.tensor, a.dim): a.where for a in self.graph.axes}
        classes = tracer.findings.classes()
        where_of_class = np.full(int(classes.max(initial=0)) + 1, -1, dtype=np.int64)
        for axis in tracer.findings.axes:
            where = known.get((axis.tensor, axis.dim))
            if where is not None:
                where_of_class[classes[axis.start : axis.start + axis.size]] = where
        where_of_class[0] = -1
        return where_of_class[classes]


def _kind(leaf: Any) -> Any:
    """What of an input a model's way may depend on: a tensor's shape, a value, the type of what cannot be compared."""
    if isinstance(leaf, Tensor):
        return tuple(leaf.shape), leaf.dtype, leaf.device
    try:
        hash(leaf)
    except TypeError:
        return type(leaf)
    return type(leaf), leaf


class _Observed:
    """One call of a function in the traced pass: what it mixed, and what lies along the dimensions of its tensors."""

    def __init__(self, function: object, inputs: list[tuple[tuple[int, ...], tuple[Block, ...]]]) -> None:
        self.function = function
        self.mixed: list[np.ndarray] = []
        self.inputs = inputs
        self.outputs: list[tuple[tuple[int, ...], tuple[Block, ...]]] = []

    def resolved(self, stays: np.ndarray, device: torch.device) -> "_Call | object":
        """The call with kept positions, or its function alone if no pruned channel is mixed."""
        gone = np.unique(np.concatenate([ids[~stays[ids]].reshape(-1) for ids in self.mixed] or [np.empty(0, int)]))
        if not gone.size:
            return self.function
        inputs = {i: _kept(blocks, stays, device) for i, (_, blocks) in enumerate(self.inputs)}
        outputs = {
            i: [(dim, shape[dim], kept) for dim, kept in _kept(blocks, stays, device)]
            for i, (shape, blocks) in enumerate(self.outputs)
        }
        return _Call(self.function, inputs, outputs)


def _kept(blocks: tuple[Block, ...], stays: np.ndarray, device: torch.device) -> list[tuple[int, Tensor]]:
    found = []
    for dims, ids in blocks:
        mine = stays[ids]
        if len(dims) == 1 and not mine.all():
            found.append((dims[0], torch.from_numpy(np.flatnonzero(mine)).to(device)))
    return found


class _Seen(TorchFunctionMode):
    """Notes every function that the model's code calls to compute something, and what it mixes."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.calls: list[_Observed] = []
        self._running: _Observed | None = None
        self._tracer = tracer
        tracer.on_mix = self._mixes

    def _mixes(self, ids: np.ndarray) -> None:
        if self._running is None:
            raise SurgeryError("channels are mixed outside of any function call of the model: pin that module's inputs")
        self._running.mixed.append(ids)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = _Observed(func, [self._labelled(leaf) for leaf in example_tensors((args, kwargs or {}))])
        self._running = call
        try:
            out = func(*args, **(kwargs or {}))
        finally:
            self._running = None
        call.outputs = [self._labelled(leaf) for leaf in example_tensors(out)]
        if call.mixed or call.outputs:
            self.calls.append(call)
        return out

    def _labelled(self, tensor: Tensor) -> tuple[tuple[int, ...], tuple[Block, ...]]:
        return tuple(tensor.shape), self._tracer.labels(tensor).blocks


class _OnKept(TorchFunctionMode):
    """Computes the calls that mix pruned channels on the kept ones alone."""

    def __init__(self, calls: list[_Call | object]) -> None:
        super().__init__()
        self._calls = calls
        self._next = 0
        self._outside = _own_backwards() if torch.is_grad_enabled() else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        call = self._calls[self._next] if self._next < len(self._calls) else None
        known = call.function if isinstance(call, _Call) else call
        if known == func:  # equal, not the same: an attribute's getter is a new object each time
            if isinstance(call, _Call):
                self._check_backward(func)
                out = _on_kept(call, args, kwargs)
            else:
                out = func(*args, **kwargs)
            self._next += 1
            return out
        out = func(*args, **kwargs)
        if example_tensors(out):  # else it only asks, for a shape say, which hooks may do at any time
            raise SurgeryError(
                f"the masked model calls {getattr(func, '__name__', func)} where it called"
                f" {getattr(known, '__name__', known)} before: its forward depends on values, so it has no mask"
            )
        return out

    def _check_backward(self, func: Any) -> None:
        """Refuse what would be right in the forward pass, but not in a backward pass that this mode does not see."""
        if self._outside is not None and _own_backwards() > self._outside:
            raise SurgeryError(
                f"the masked model calls {func.__name__} in a checkpointed part or a torch.autograd.Function, whose"
                " backward pass would count the channels that are gone: turn checkpointing off, train the compact"
                " model, or call this one under torch.no_grad()"
            )


def _own_backwards() -> int:
    """How many calls from torch's checkpointing or into an autograd function are running."""
    frame, count = sys._getframe(1), 0
    while frame is not None:
        count += frame.f_code.co_filename in _OWN_BACKWARD
        frame = frame.f_back
    return count


def _on_kept(call: _Call, args: Any, kwargs: Any) -> Any:
    """The call computed on the kept channels of its inputs, with zeros for the others in its outputs."""
    gathered: list[tuple[Tensor, Tensor, list[tuple[int, Tensor]], int]] = []
    leaves, tree = tree_flatten((args, kwargs))
    number = 0
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            whole, leaf = leaf, _cut(leaf, call.inputs.get(number, []))
            if leaf is not whole:
                gathered.append((whole, leaf, call.inputs[number], -1 if leaf.is_inference() else leaf._version))
            leaves[i] = leaf
            number += 1
    args, kwargs = tree_unflatten(leaves, tree)
    if call.function in _WITH_SHAPE:
        args, kwargs = _with_shape(args, kwargs)
    out = call.function(*args, **kwargs)
    found, tree = tree_flatten(out)
    number = 0
    for i, leaf in enumerate(found):
        if isinstance(leaf, Tensor):
            for dim, size, kept in reversed(call.outputs.get(number, [])):
                shape = [size if d == dim else n for d, n in enumerate(leaf.shape)]
                leaf = leaf.new_zeros(shape).index_copy(dim, kept, leaf)
            found[i] = leaf
            number += 1
    _write_back(gathered)
    return tree_unflatten(found, tree)


def _cut(whole: Tensor, cuts: list[tuple[int, Tensor]]) -> Tensor:
    for dim, kept in cuts:
        whole = whole.index_select(dim, kept)
    return whole


def _write_back(gathered: list[tuple[Tensor, Tensor, list[tuple[int, Tensor]], int]]) -> None:
    """What the call has written to kept channels of its inputs, as spectral norm and observers do, is in those then."""
    with torch.no_grad():
        for whole, part, cuts, version in gathered:
            if version == part._version if version >= 0 else torch.equal(part, _cut(whole, cuts)):
                continue
            for dim, kept in cuts[1:]:
                shape = [whole.shape[d] if d == dim else n for d, n in enumerate(part.shape)]
                part = part.new_zeros(shape).index_copy(dim, kept, part)
            whole.index_copy_(cuts[0][0], cuts[0][1], part)


def _with_shape(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x = args[0] if args else kwargs["input"]
    shape = args[1] if len(args) > 1 else kwargs["normalized_shape"]
    now = tuple(x.shape[x.ndim - len(shape) :])
    return ((x, now, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "normalized_shape": now})
