"""Which channels give the same whatever the input: one forward pass that follows what depends on the input.

A filter whose weights are all zero still emits a constant, batch norm's shift through the activation, and that reaches
the next layer. Whether an element depends on the input is decided by the operators, never by looking at values: a
channel that is zero for some images is not constant. Its value is then what the pass itself computed. An operator that
there is no rule for makes everything depend on the input, unless nothing that it reads does; so what is called
constant is constant.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunit.graph.computed import computed_weights, given
from prunit.graph.running import first_names, named_tensors, tensors_in


@dataclass(frozen=True, eq=False)
class Use:
    """One call of a convolution or linear weight: what it read.

    `constants` has the value of each input channel (or feature), nan for one that depends on the input or differs from
    place to place. `reads` says which weights are not zero anywhere in the kernel: (O, I / groups), of a transposed
    convolution (I, O / groups). `padded`: zeros stand around the input, so that a constant adds less at the border.
    `norm` is the running mean of the batch norm that alone reads the output, '' if there is none such.
    """

    weight: str
    constants: Tensor
    reads: Tensor
    padded: bool
    groups: int
    transposed: bool
    norm: str


def uses_of(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[Use], list[Tensor]]:
    """The calls of the model's own weights in evaluation mode, in order, and its outputs on these inputs.

    A weight that a layer computes (a parametrization, say) goes by the name of the parameter that stands for it; one
    with which other code computes before it is used is in none of the calls. The model stays in the mode it was in.
    """
    modes = [(module, module.training) for module in model.modules()]
    computed = [(item, item.value()) for item in computed_weights(model) if item.main]
    follower = _Follower(first_names(named_tensors(model)) | {id(value): item.main for item, value in computed})
    try:
        model.eval()
        with torch.no_grad(), given(computed), follower:
            for tensor in tensors_in((args, kwargs)):
                follower.depends(tensor, None)
            out = model(*args, **kwargs)
    finally:
        for module, training in modes:
            module.training = training
    outputs = tensors_in(out)
    return follower.uses(outputs), outputs


def summed_constants(weight: Tensor, columns: np.ndarray, constants: Tensor) -> Tensor:
    """What each output gets from these constant inputs: (O,) of a weight (O, I, …) and constants (groups, I)."""
    chosen = torch.from_numpy(columns).to(weight.device)
    read = weight.index_select(1, chosen).double()
    per_input = read.flatten(2).sum(2) if read.ndim > 2 else read
    by_output = constants.index_select(1, chosen).repeat_interleave(len(weight) // len(constants), 0)
    return (per_input * by_output).sum(1)


@dataclass
class _Call:
    """A `Use` whose batch norm is not known yet, and what its output was."""

    use: Use
    output: int
    norms: list[str] = field(default_factory=list)


class _Follower(TorchDispatchMode):
    """Runs a model and knows of each tensor which elements depend on the input.

    `_varies` holds by tensor a boolean tensor that broadcasts to its shape, or None where every element does. A tensor
    that it does not know was made from parameters alone.
    """

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self._names = names
        self._varies: dict[int, Tensor | None] = {}
        self._turned: dict[int, str] = {}
        """Transposed weights, which is how a linear layer reads its own."""
        self._alive: list[Tensor] = []
        self._by_memory: dict[int, list[int]] = defaultdict(list)
        self._read: dict[int, int] = defaultdict(int)
        self._calls: list[_Call] = []
        self._norms: dict[str, int] = defaultdict(int)

    def depends(self, tensor: Tensor, varies: Tensor | None) -> None:
        """Note which elements of a tensor depend on the input; none of them needs no note."""
        self._alive.append(tensor)  # or its id would be given to another one
        # Also what is constant now: it may be written to through a view of it.
        self._by_memory[tensor.untyped_storage().data_ptr()].append(id(tensor))
        if varies is not None and not varies.any():
            self._varies.pop(id(tensor), None)
            return
        self._varies[id(tensor)] = varies

    def uses(self, outputs: list[Tensor]) -> list[Use]:
        """All calls, once the model has run and has returned `outputs`."""
        for tensor in outputs:
            self._read[id(tensor)] += 1
        return [replace(call.use, norm=self._norm_of(call)) for call in self._calls]

    def _norm_of(self, call: _Call) -> str:
        """The shift of a batch norm that runs twice, or is not the only reader, is not this layer's alone."""
        alone = len(call.norms) == self._read[call.output] == 1
        return call.norms[0] if alone and self._norms[call.norms[0]] == 1 else ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        read = tensors_in((args, kwargs))
        for tensor in read:
            self._read[id(tensor)] += 1
        outputs = tensors_in(out)
        for tensor in outputs:
            self._alive.append(tensor)
        if name in _TURNS and len(read) == 1 and id(read[0]) in self._names and read[0].ndim == 2:
            self._turned[id(outputs[0])] = self._names[id(read[0])]
            return out
        found = self._found(name, func, args, kwargs, read, outputs)
        for tensor, varies in zip(outputs, found, strict=True):
            self.depends(tensor, varies)
        if func._schema.is_mutable:
            self._others_of(outputs)
        return out

    def _others_of(self, written: list[Tensor]) -> None:
        """What shares memory with a tensor that was written to is not followed any further."""
        for tensor in written:
            for other in self._by_memory[tensor.untyped_storage().data_ptr()]:
                if other != id(tensor):
                    self._varies[other] = None

    def _found(
        self, name: str, func: Any, args: Any, kwargs: Any, read: list[Tensor], outputs: list[Tensor]
    ) -> Sequence[Tensor | None]:
        """What of each output depends on the input."""
        if not any(id(tensor) in self._varies for tensor in read):
            if name in ("convolution", "addmm", "mm"):
                self._note(name, args, outputs[0])
            return [torch.zeros((1,) * t.ndim, dtype=torch.bool) for t in outputs]
        if name in ("convolution", "addmm", "mm"):
            return [self._weighted(name, args, outputs[0])]
        if name in _NORMS and not args[_TRAINS[name]] if name in _TRAINS else name in _NORMS:
            return [self._normed(args), *[None] * (len(outputs) - 1)]
        if name == "mul" or name == "mul_":
            return [self._product(args[0], args[1])]
        if name in _ONE_BY_ONE:
            return [self._any_of(args, kwargs, outputs[0])]
        if name in _MOVES:
            return self._moved(func, args, kwargs, outputs)
        if name in _POOLS and read[0].ndim == 4:
            mask = self._mask(read[0])
            return [None if mask is None else mask.any(dim=(2, 3), keepdim=True) for _ in outputs]
        if name in ("mean", "sum", "amax") and len(args) > 1 and args[1]:
            mask, kept = self._mask(read[0]), bool(args[2]) if len(args) > 2 else False
            return [None if mask is None else mask.expand(read[0].shape).any(dim=tuple(args[1]), keepdim=kept)]
        return [None] * len(outputs)

    def _mask(self, tensor: Tensor) -> Tensor | None:
        """What of a tensor depends on the input, None for all of it."""
        return self._varies.get(id(tensor), torch.zeros((1,) * tensor.ndim, dtype=torch.bool))

    def _note(self, name: str, args: Any, out: Tensor) -> tuple[Tensor, Tensor] | None:
        """Note the call if the weight is the model's own; the input's mask by channel, and which weights are not zero.

        None where the weight is not known or the shapes are not those of a layer.
        """
        if name == "convolution":
            x, weight = args[0], args[1]
            known, transposed, groups = self._names.get(id(weight)), bool(args[6]), int(args[8])
            padded = any(args[4]) or any(args[7]) if not transposed else True
        else:
            x, weight = args[-2] if name == "mm" else args[1], args[-1] if name == "mm" else args[2]
            known, transposed, groups, padded = self._turned.get(id(weight)), False, 1, False
        if known is None:
            return None
        mask = self._mask(x)
        # Of a linear layer on a sequence all positions are rows.
        dims = [d for d in range(x.ndim) if d != 1]
        varies = torch.ones(x.shape[1], dtype=torch.bool) if mask is None else mask.expand(x.shape).any(dim=dims)
        values = x.transpose(0, 1).flatten(1)
        low, high = values.amin(1), values.amax(1)
        reach = 16 * torch.finfo(x.dtype).eps * torch.maximum(low.abs(), high.abs())
        constants = torch.where(varies.to(x.device) | ~(high - low <= reach), torch.nan, low.double())
        own = weight if name == "convolution" else weight.t()
        # The maximum of bytes takes a fraction of the time of `any`.
        reads = (own != 0).view(torch.uint8).flatten(2).amax(2).bool() if own.ndim > 2 else own != 0
        self._calls.append(_Call(Use(known, constants, reads, padded, groups, transposed, norm=""), id(out)))
        return varies.to(weight.device), reads

    def _weighted(self, name: str, args: Any, out: Tensor) -> Tensor | None:
        """An output channel depends on the input if one of its weights that are not zero reads one that does."""
        found = self._note(name, args, out)
        if found is None:
            return None
        varies_I, reads = found
        if name != "convolution":
            return (reads & varies_I).any(1)[None]
        groups = int(args[8])
        if args[6]:  # transposed: (I, O / groups)
            parts = (reads & varies_I[:, None]).unflatten(0, (groups, -1)).any(1).flatten()
        else:
            parts = (reads & varies_I.view(groups, -1).repeat_interleave(len(reads) // groups, 0)).any(1)
        return parts.view(1, -1, *(1,) * (out.ndim - 2))

    def _normed(self, args: Any) -> Tensor | None:
        x, gain, mean = args[0], args[1], args[3]
        if id(mean) in self._names:
            self._norms[self._names[id(mean)]] += 1
            for call in self._calls:
                if call.output == id(x):
                    call.norms.append(self._names[id(mean)])
        mask = self._mask(x)
        if gain is None or id(gain) in self._varies:
            return mask
        used = (gain != 0).view(1, -1, *(1,) * (x.ndim - 2))
        return used if mask is None else mask & used

    def _product(self, a: Any, b: Any) -> Tensor | None:
        """What is multiplied by a constant zero is zero."""
        if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
            return self._mask(a if isinstance(a, Tensor) else b)
        masks = [
            torch.ones((1,) * t.ndim, dtype=torch.bool, device=t.device) if m is None else m.to(t.device)
            for t in (a, b)
            for m in [self._mask(t)]
        ]
        on_a, on_b = ((masks[0] | (a != 0)), (masks[1] | (b != 0)))
        return (masks[0] & on_b) | (masks[1] & on_a)

    def _any_of(self, args: Any, kwargs: Any, out: Tensor) -> Tensor | None:
        """Element by element: it depends on the input where any operand does."""
        found = torch.zeros((1,) * out.ndim, dtype=torch.bool)
        for tensor in tensors_in((args, kwargs)):
            mask = self._mask(tensor)
            if mask is None:
                return None
            found = found | mask.cpu()
        return found

    def _moved(self, func: Any, args: Any, kwargs: Any, outputs: list[Tensor]) -> list[Tensor | None]:
        """Elements that only change their places take along whether they depend on the input."""

        def stand_in(value: Any) -> Any:
            if isinstance(value, Tensor):
                mask = self._mask(value)
                whole = torch.ones(value.shape) if mask is None else mask.expand(value.shape).float().cpu()
                return whole.contiguous(memory_format=torch.contiguous_format)
            return type(value)(map(stand_in, value)) if isinstance(value, list | tuple) else value

        moved = tensors_in(func(*stand_in(args), **{k: stand_in(v) for k, v in kwargs.items() if k != "device"}))
        return [mask > 0 if mask.shape == t.shape else None for mask, t in zip(moved, outputs, strict=True)]


_TURNS: Final = frozenset(("t", "transpose", "permute"))
_NORMS: Final = frozenset(
    ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "_batch_norm_no_update")
)
_TRAINS: Final = {"native_batch_norm": 5, "cudnn_batch_norm": 5}
"""Batch norms that may compute the statistics of the batch, and the argument that says so."""
_ONE_BY_ONE: Final = frozenset(
    name + ending
    for name in (
        *("relu", "hardtanh", "clamp", "clamp_min", "clamp_max", "silu", "gelu", "sigmoid", "tanh", "hardswish"),
        *("hardsigmoid", "leaky_relu", "elu", "mish", "softplus", "neg", "exp", "log", "sqrt", "rsqrt", "abs", "pow"),
        *("add", "sub", "div", "maximum", "minimum", "_to_copy", "clone", "alias", "detach", "lift_fresh", "erf"),
    )
    for ending in ("", "_")
)
_MOVES: Final = frozenset(
    (
        *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "slice", "select", "expand", "squeeze"),
        *("unsqueeze", "cat", "stack", "split", "split_with_sizes", "unbind", "flip", "roll", "repeat"),
        *("constant_pad_nd", "reflection_pad2d", "replication_pad2d", "pixel_shuffle", "pixel_unshuffle"),
        *("upsample_nearest2d", "as_strided", "channel_shuffle", "native_channel_shuffle"),
    )
)
_POOLS: Final = frozenset(
    ("max_pool2d_with_indices", "max_pool2d", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d")
)
