"""Which channels of a sparse model do nothing: nobody reads them, or they are the same whatever the input.

`Reading` knows who reads which channel and what it is worth there, says which channels stay, and puts what those that
go have done into the small model. `remove_zeros` is made of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from prunit.cut.constants import Use, summed_constants
from prunit.cut.surgery import cut_tensors, give_bias
from prunit.graph import Axis, ChannelGraph
from prunit.graph.computed import computed_of, computed_weights, effective
from prunit.graph.inverse import is_close, set_exactly
from prunit.graph.running import first_names, named_tensors

Padded = Literal["merge", "keep", "fold"]
"""What happens to constants that a padded convolution reads: one of them stands for all; all stay; as a bias anyway."""

_SMALLEST: Final = 1e-3
"""A constant that stands for the others is at least so large beside the largest one: their weights grow by the rest."""


class Settled(NamedTuple):
    """Which channels stay, and what becomes of the others; arrays are flat, with one True at the end.

    keep   the channels that stay
    right  those of them that have in the small model the value that they have in the large one. Nobody with a right
           value reads another one
    into   by merged channel the one that stands for it
    """

    keep: np.ndarray
    right: np.ndarray
    into: Mapping[int, int]


@dataclass(frozen=True, eq=False)
class Reader:
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


class Reading:
    """Who reads which channel of a model, and what it is worth there; `uses` are those of `uses_of`."""

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

    def _reader(self, axis: Axis, uses: list[Use], modules: Mapping[str, nn.Module]) -> Reader:
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
            return Reader(axis, used, self._outputs(makes, dim_out, used), constants, True, None)
        plain = isinstance(module, _ConvNd | nn.Linear) and own == "weight" and axis.role == "in" and axis.dim == 1
        if use is None or use.transposed or not plain or use.groups * positions != len(use.constants):
            used = (weight != 0).movedim((dim_out, axis.dim), (0, 1))
            used = (used.flatten(2).any(2) if used.ndim > 2 else used).cpu().numpy()
            return Reader(axis, used, self._outputs(makes, dim_out, used), np.full((1, positions), np.nan), True, None)
        used = use.reads.cpu().numpy()
        # Called several times, it must read the same each time; and then no single batch norm follows it.
        constants = use.constants.cpu().numpy()
        for other in uses[1:]:
            constants = np.where(other.constants.cpu().numpy() == constants, constants, np.nan)
        if len(uses) > 1:
            use = replace(use, norm="")
        outputs = self._outputs(makes, dim_out, used)
        return Reader(axis, used, outputs, constants.reshape(use.groups, -1), use.padded, use)

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

    def settle(self) -> Settled:
        """The fewest channels with which the outputs stay."""
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
        return Settled(keep, keep, into)

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

    def fold(self, small: nn.Module, settled: Settled) -> tuple[str, ...]:
        """Add what is missed to the layers of the small model; the names of those that had no bias before.

        What nobody reads misses nothing: no layer shall get a bias for the sake of such a channel.
        """
        keep, right, into = settled
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
                    shift[torch.from_numpy(~right[reader.outputs][keep[reader.outputs]]).to(weight.device)] = 0
                    if shift.any() and _add(small, modules[path], use.norm, shift):
                        made.append(path)
        return tuple(made)


def _merge(
    new: Tensor, weight: Tensor, rows: Tensor, reader: Reader, keep: np.ndarray, into: Mapping[int, int]
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
