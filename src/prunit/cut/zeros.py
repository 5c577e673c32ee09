"""From a sparse model to a small one with the same outputs: channels that do nothing go, and what they did is kept.

DNNShifter (Eccles et al. 2024) deletes filters whose weights are all zero, but such a filter still emits a constant,
batch norm's shift through the activation, and the authors' code drops it. Here it is added to the biases (or the batch
norms) of the layers that read it. A convolution that pads its input with zeros adds less of it at the border, where no
bias can follow; there one constant channel stays and stands for all the others, exactly. Also what nobody reads goes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from prunit.cut.constants import Use, summed_constants, uses_of
from prunit.cut.plans import Plan
from prunit.cut.surgery import compact, copied, cut_tensors, give_bias
from prunit.errors import ModelError, SurgeryError, unknown
from prunit.graph import Axis, ChannelGraph, trace
from prunit.graph.computed import computed_of, computed_weights, effective
from prunit.graph.finite import check_finite
from prunit.graph.inputs import noise_of
from prunit.graph.inverse import is_close, set_exactly
from prunit.graph.running import as_inputs, first_names, named_tensors, tensors_in
from prunit.graph.wrappers import unwrapped
from prunit.shown import Shown

Padded = Literal["merge", "keep", "fold"]
"""What happens to constants that a padded convolution reads: one of them stands for all; all stay; as a bias anyway."""

_SMALLEST: Final = 1e-3
"""A constant that stands for the others is at least so large beside the largest one: their weights grow by the rest."""


@dataclass(frozen=True, eq=False, repr=False)
class Removed(Shown):
    """The small model, the plan that cut it, and how many channels went for which reason.

    unread     no weight that is not zero reads it
    constants  it is constant wherever it is read, and zero or added to the readers' biases there
    merged     it is constant, and its weights now read another constant channel
    `error` is the largest difference between the outputs of both models, relative to the largest output.
    """

    model: nn.Module
    plan: Plan
    unread: int
    constants: int
    merged: int
    error: float


def remove_zeros(
    model: nn.Module, example: Any, *, graph: ChannelGraph | None = None, padded: Padded = "merge"
) -> Removed:
    """A smaller model whose outputs in evaluation mode are those of `model`, which is left as it was.

    `example` is an input as `trace` takes it, with which the outputs are compared too. `padded` says what becomes of
    constants that a padded convolution reads: "merge" (default) is exact, "keep" is exact and removes less, "fold" is
    not exact near the border (what removal without a look at the padding comes to). Raises `SurgeryError` where the
    outputs differ although they should not, and `ModelError` where the model's weights or outputs are not finite. In
    training mode batch norm would compute statistics of constants: train first, then remove.
    """
    if padded not in get_args(Padded):
        raise unknown("treatment of padded constants", str(padded), get_args(Padded))
    model = unwrapped(model)
    check_finite(model)
    graph = trace(model, example) if graph is None else graph
    args, kwargs = noise_of(as_inputs(example))
    uses, expected = uses_of(model, args, kwargs)
    reading = _Reading(model, graph, uses, padded)
    keep, merged_into = reading.settle()
    plan = _plan(graph, keep)
    small = compact(model, graph, plan)
    if not all(bool(tensor.isfinite().all()) for tensor in expected):
        raise ModelError(
            f"the outputs of {type(model).__name__} on noise are not finite, although its weights are: nothing can be"
            " compared with them; look for a division by zero or a logarithm in its forward"
        )
    reading.give_back(small, keep)
    biases = reading.fold(small, keep, merged_into)
    plan = replace(plan, biases=biases)
    error = _difference(expected, _outputs(small, args, kwargs))
    if padded != "fold" and not error <= _allowed(model):
        raise SurgeryError(
            f"after the removal of zeros the outputs differ by {error:.2g} of the largest one: a layer uses its weights"
            " in a way that was not understood. Please report the model; prunit.cut.plans.from_zeros removes less"
        )
    gone = np.flatnonzero(~keep[:-1])
    read = reading.read_by(keep)
    merged = sum(bool(read[channel]) for channel in merged_into)
    unread = int((~read[gone]).sum())
    return Removed(small, plan, unread, len(gone) - unread - merged, merged, error)


def without_small_filters(model: nn.Module, tolerance: float) -> nn.Module:
    """A copy of the model without the filters whose largest weight is at most `tolerance` of their layer's largest.

    Of convolutions alone, and lossy: measure the accuracy afterwards. The largest filter of a layer always stays.
    """
    twin = copied(unwrapped(model))
    computed = {item.path: item for item in computed_weights(twin) if item.name == "weight"}
    with torch.no_grad():
        for path, module in twin.named_modules():
            if isinstance(module, _ConvNd) and not module.transposed:
                weight = computed[path].value() if path in computed else module.weight
                largest = weight.abs().flatten(1).amax(1)
                gone = largest <= tolerance * largest.max()
                weight[gone] = 0
                if path in computed and gone.any():
                    set_exactly(computed[path], weight)
    return twin


def difference(model: nn.Module, small: nn.Module, example: Any) -> float:
    """The largest difference between the outputs of two models in evaluation mode, relative to the largest output.

    On noise of the example's shapes where it is of floating point, else on the example.
    """
    args, kwargs = noise_of(as_inputs(example))
    return _difference(_outputs(model, args, kwargs), _outputs(small, args, kwargs))


def _outputs(model: nn.Module, args: Any, kwargs: Any) -> list[Tensor]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return tensors_in(model(*args, **kwargs))
    finally:
        for module, training in modes:
            module.training = training


def _difference(expected: list[Tensor], found: list[Tensor]) -> float:
    pairs = [(a.double(), b.double()) for a, b in zip(expected, found, strict=True) if a.is_floating_point()]
    largest = max((a.abs().max().item() for a, _ in pairs if a.numel()), default=0.0)
    differences = [(a - b).abs().max().item() for a, b in pairs if a.numel()]
    return max(differences, default=0.0) / max(largest, torch.finfo(torch.float64).tiny)


def _allowed(model: nn.Module) -> float:
    """Rounding may differ: a thousand times what the least precise weight resolves."""
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return 1000 * max((torch.finfo(kind).eps for kind in kinds), default=0.0)


def _plan(graph: ChannelGraph, keep: np.ndarray) -> Plan:
    kept = {
        group.name: tuple(np.flatnonzero(keep[start : start + group.size]).tolist())
        for group, start in zip(graph.groups, graph.offsets, strict=False)
    }
    origin = {"recipe": "zeros"}
    sizes = {g.name: g.size for g in graph.groups}
    return Plan(kept, sizes, origin, inputs=graph.inputs, training_inputs=graph.training_inputs)


@dataclass(frozen=True, eq=False)
class _Reader:
    """A weight that sums over channels along one axis, as a matrix of outputs and positions of that axis.

    `constants` holds the value at each position for each of the `groups` of a grouped convolution, shape
    (groups, positions), nan where there is none: where it cannot be told what the weight reads.
    `outputs` are the flat numbers of the channels that it makes, -1 for those that always stay.
    """

    axis: Axis
    used: np.ndarray
    outputs: np.ndarray
    constants: np.ndarray
    padded: bool
    use: Use | None


class _Reading:
    """Who reads which channel, and what it is worth there."""

    def __init__(self, model: nn.Module, graph: ChannelGraph, uses: list[Use], padded: Padded) -> None:
        self.model, self.graph, self.padded = model, graph, padded
        self.tensors = effective(model, named_tensors(model))
        self.computed = {item.main: item for item in computed_weights(model) if item.main}
        self.total = int(graph.offsets[-1])
        by_weight: dict[str, list[Use]] = {}
        for use in uses:
            by_weight.setdefault(use.weight, []).append(use)
        names = first_names(self.tensors)
        modules = dict(model.named_modules())
        self.readers = [
            self._reader(axis, by_weight.get(names[id(self.tensors[axis.tensor])], []), modules)
            for axis in graph.axes
            if axis.reads
        ]
        self.free = np.zeros(self.total + 1, dtype=bool)
        for group, start in zip(graph.groups, graph.offsets, strict=False):
            self.free[start : start + group.size] = not (group.pinned or group.mixed)
        self.constant = self._removable()

    def _reader(self, axis: Axis, uses: list[Use], modules: Mapping[str, nn.Module]) -> _Reader:
        weight = self.tensors[axis.tensor].detach()
        makes = {a.dim: a.where for a in self.graph.axes if a.tensor == axis.tensor and a.makes and a.dim != axis.dim}
        dim_out = next(iter(makes)) if len(makes) == 1 else 0 if axis.dim else 1
        positions = len(axis.where)
        path, own = self._layer(axis.tensor)
        module = modules.get(path)
        use = uses[0] if len({(u.padded, u.groups, u.transposed) for u in uses}) == 1 else None
        if uses and all(u.transposed and len(u.constants) == positions for u in uses):
            # What a transposed convolution makes of a constant differs from place to place; of zero it makes nothing.
            zero = np.all([u.constants.cpu().numpy() == 0 for u in uses], axis=0)
            used = (weight != 0).movedim((dim_out, axis.dim), (0, 1)).flatten(2).any(2).cpu().numpy()
            constants = np.where(zero, 0.0, np.nan)[None]
            return _Reader(axis, used, self._outputs(makes, dim_out, used), constants, True, None)
        plain = isinstance(module, _ConvNd | nn.Linear) and own == "weight" and axis.role == "in" and axis.dim == 1
        if use is None or use.transposed or not plain or use.groups * positions != len(use.constants):
            used = (weight != 0).movedim((dim_out, axis.dim), (0, 1))
            used = (used.flatten(2).any(2) if used.ndim > 2 else used).cpu().numpy()
            return _Reader(axis, used, self._outputs(makes, dim_out, used), np.full((1, positions), np.nan), True, None)
        used = use.reads.cpu().numpy()
        # Called several times, it must read the same each time; and then no single batch norm follows it.
        constants = use.constants.cpu().numpy()
        for other in uses[1:]:
            constants = np.where(other.constants.cpu().numpy() == constants, constants, np.nan)
        if len(uses) > 1:
            use = replace(use, norm="")
        outputs = self._outputs(makes, dim_out, used)
        return _Reader(axis, used, outputs, constants.reshape(use.groups, -1), use.padded, use)

    def _layer(self, tensor: str) -> tuple[str, str]:
        """The layer whose weight this tensor is or stands for, and the weight's name there."""
        item = self.computed.get(tensor)
        path, _, own = tensor.rpartition(".")
        return (path, own) if item is None else (item.path, item.name)

    def give_back(self, small: nn.Module, keep: np.ndarray) -> None:
        """What layers of the small model compute becomes what is left of what the large one's do.

        Cut originals need not give that: a norm over all filters changes with those that go.
        """
        for item in computed_weights(small):
            if item.main in self.computed:
                wanted = cut_tensors(self.graph, keep, {item.main: self.tensors[item.main].detach()})[item.main]
                if wanted.shape != self.tensors[item.main].shape and not is_close(item.value(), wanted):
                    set_exactly(item, wanted)

    @staticmethod
    def _outputs(makes: Mapping[int, np.ndarray], dim: int, used: np.ndarray) -> np.ndarray:
        return makes.get(dim, np.full(len(used), -1))

    def _removable(self) -> np.ndarray:
        """Which channels are constant wherever they are read; flat, without the last entry. Also sets `needs`."""
        found, seen = np.ones(self.total + 1, dtype=bool), np.zeros(self.total + 1, dtype=bool)
        self.needs = np.zeros(self.total + 1, dtype=bool)
        """Channels that a padded convolution reads with another value than zero: they need another one to stand in."""
        for reader in self.readers:
            where = reader.axis.where
            unused = ~reader.used.any(0)
            known = np.isfinite(reader.constants).all(0)
            zero = known & (reader.constants == 0).all(0)
            seen[where] = True
            border = known & ~zero & ~unused & reader.padded
            if self.padded == "keep" or len(reader.constants) > 1 or len(np.unique(where)) < len(where):
                known &= ~border
            elif self.padded == "merge":
                self.needs[where[border]] = True
            found[where[~(known | unused)]] = False
        return (found & seen & self.free)[:-1]

    def settle(self) -> tuple[np.ndarray, dict[int, int]]:
        """Which channels stay (flat, with one True at the end), and by merged channel the one that stands for it."""
        keep = np.ones(self.total + 1, dtype=bool)
        keep[:-1] = ~self.constant | self.needs[:-1]
        self._drop_unread(keep)
        into: dict[int, int] = {}
        for group, start in zip(self.graph.groups, self.graph.offsets, strict=False):
            span = slice(start, start + group.size)
            mine = start + np.flatnonzero((self.constant & self.needs[:-1] & keep[:-1])[span])
            if len(mine):
                into |= self._stand_in(mine)
        into = {channel: other for channel, other in into.items() if channel != other}
        keep[list(into)] = False
        self._drop_unread(keep, into)
        return keep, into

    def read_by(self, keep: np.ndarray) -> np.ndarray:
        """Which channels a weight that is not zero and makes a kept channel reads; flat."""
        read = np.zeros(self.total + 1, dtype=bool)
        for reader in self.readers:
            read[reader.axis.where[reader.used[keep[reader.outputs]].any(0)]] = True
        return read

    def _drop_unread(self, keep: np.ndarray, into: Mapping[int, int] | None = None) -> None:
        """In place, until nothing changes: what nobody reads goes, and so does what only that has read.

        Of a group one channel stays, and all of one that has no reader at all.
        """
        has_reader = np.zeros(self.total + 1, dtype=bool)
        for reader in self.readers:
            has_reader[reader.axis.where] = True
        standing = list((into or {}).values())
        self._never_empty(keep, np.ones_like(keep))
        before = np.zeros_like(keep)
        while (keep != before).any():
            before = keep.copy()
            stays = self.read_by(keep) | ~has_reader | ~self.free
            stays[[*standing, -1]] = True  # the weights of others read what stands for them
            keep &= stays
            self._never_empty(keep, before)

    def _never_empty(self, keep: np.ndarray, before: np.ndarray) -> None:
        """In place: of a group that would lose all, the first stays of those that were there `before`.

        Not another one: what that reads may be gone already.
        """
        for group, start in zip(self.graph.groups, self.graph.offsets, strict=False):
            if not keep[start : start + group.size].any():
                keep[start + int(before[start : start + group.size].argmax())] = True

    def _stand_in(self, mine: np.ndarray) -> dict[int, int]:
        """For each of these channels of a group the one that stands for it, itself where it stays.

        Its constant must be large enough at every padded reader at which another one is to be merged into it.
        """
        rows = []
        for reader in self.readers:
            if reader.padded and reader.use is not None:
                values = dict(zip(reader.axis.where.tolist(), reader.constants[0].tolist(), strict=True))
                if set(mine.tolist()) & values.keys():
                    rows.append([values.get(channel, 0.0) for channel in mine.tolist()])
        values = np.nan_to_num(np.abs(np.array(rows)))
        largest = values.max(1, keepdims=True)
        share = (values / np.where(largest > 0, largest, 1)).min(0, where=largest > 0, initial=1.0)
        best = int(share.argmax())
        if share[best] < _SMALLEST:
            return {channel: channel for channel in mine.tolist()}
        return {channel: int(mine[best]) for channel in mine.tolist()}

    def fold(self, small: nn.Module, keep: np.ndarray, into: Mapping[int, int]) -> tuple[str, ...]:
        """Add what is missed to the layers of the small model; the names of those that had no bias before."""
        modules, made = dict(small.named_modules()), []
        for reader in self.readers:
            use, where = reader.use, reader.axis.where
            if use is None or keep[where].all():
                continue
            # Only the columns that go matter, and these are few where little is removed.
            weight = self.tensors[reader.axis.tensor].detach()
            rows = torch.from_numpy(np.flatnonzero(keep[reader.outputs])).to(weight.device)
            path, _ = self._layer(reader.axis.tensor)
            with torch.no_grad():
                if reader.padded and self.padded == "merge":
                    item = next((i for i in computed_of(modules[path], path) if i.name == "weight"), None)
                    new: Any = modules[path].weight if item is None else item.value()
                    if _merge(new, weight, rows, reader, keep, into) and item is not None:
                        set_exactly(item, new)
                else:
                    constants = np.where(keep[where], 0, np.nan_to_num(reader.constants))
                    columns = np.flatnonzero(constants.any(0))
                    shift = summed_constants(weight, columns, torch.from_numpy(constants).to(weight.device))[rows]
                    if shift.any() and _add(small, modules[path], use.norm, shift):
                        made.append(path)
        return tuple(made)


def _merge(
    new: Tensor, weight: Tensor, rows: Tensor, reader: _Reader, keep: np.ndarray, into: Mapping[int, int]
) -> bool:
    """The weights of merged channels read the one that stands for them, in proportion to the constants; are there any?

    `new` is the small layer's weight, which is changed, `weight` the dense one.
    """
    where, values = reader.axis.where, np.nan_to_num(reader.constants[0])
    position = {channel: i for i, channel in enumerate(where.tolist())}
    kept = np.cumsum(keep[where]) - 1
    added: dict[int, Tensor] = {}
    for channel, other in into.items():
        i, j = position.get(channel), position.get(other)
        if i is None or j is None or not values[i] or len(reader.constants) > 1:
            continue
        part = weight[rows, i].double() * float(values[i] / values[j])
        added[j] = added[j] + part if j in added else part
    for j, part in added.items():
        new[:, int(kept[j])] = (new[:, int(kept[j])].double() + part).to(new.dtype)
    return bool(added)


def _add(small: nn.Module, module: Any, norm: str, shift: Tensor) -> bool:
    """Add a shift to what a layer gives: to its bias, or its batch norm's mean; True if it had to be given a bias."""
    if module.bias is not None:
        module.bias.copy_((module.bias.double() + shift).to(module.bias.dtype))
        return False
    path = norm.rpartition(".")[0]
    if norm and isinstance(following := small.get_submodule(path), _BatchNorm) and following.running_mean is not None:
        mean = following.running_mean
        mean.copy_((mean.double() - shift).to(mean.dtype))
        return False
    bias = give_bias(module)
    bias.copy_(shift.to(bias.dtype))
    return True
