"""A plan: which channels of every group stay. Frozen plain data, JSON both ways; it decides and never cuts.

Importing this loads no torch: plans are read and budgets are checked where nobody needs a model.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import ge
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from prunit.errors import PlanError
from prunit.graph import ChannelGraph
from prunit.shown import Shown, Table, count, runs

if TYPE_CHECKING:
    from torch import Tensor, nn

Scores: TypeAlias = "Mapping[str, Tensor]"
"""Importance of each channel by group name: shape (channels of the group,), higher = keep."""

Widths = Mapping[str, int]
"""Channels to keep by group name; a group that is not named stays whole."""

FORMAT, VERSION = "prunit-plan", 1


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """Kept channel indices (ascending) of every group, and the dense width of each, to recognise the model.

    A group that `keep` does not name stays whole. `origin` says in plain words how the plan came about (recipe, score,
    budget, seed); it has no effect on the cut. Nor have `inputs`, the shapes and dtypes of the example that the model
    was traced with (see `graph.inputs`; None: not known), with which `apply_plan` can trace it again. `biases` are
    layers without a bias that get one in the small model, for what removed channels added there (see `zeros`).
    `training_inputs` are as `inputs`, of an example for training mode where it was another one.
    """

    keep: Mapping[str, tuple[int, ...]]
    dense: Mapping[str, int]
    origin: Mapping[str, Any] = field(default_factory=dict, compare=False)
    inputs: Any = field(default=None, compare=False)
    biases: tuple[str, ...] = ()
    training_inputs: Any = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name, channels in self.keep.items():
            if name not in self.dense:
                raise PlanError(f"plan keeps channels of group '{name}' but does not give its dense width")
            if not len(channels) or any(map(ge, channels, channels[1:])):
                raise PlanError(f"plan for group '{name}' must keep at least one channel, ascending, each once")
            if channels[0] < 0 or channels[-1] >= self.dense[name]:
                wrong = channels[0] if channels[0] < 0 else channels[-1]
                raise PlanError(f"plan keeps channel {wrong} of group '{name}', whose width is {self.dense[name]}")
        whole = {n: tuple(map(int, self.keep[n])) if n in self.keep else tuple(range(d)) for n, d in self.dense.items()}
        object.__setattr__(self, "keep", MappingProxyType(whole))
        object.__setattr__(self, "dense", MappingProxyType(dict(self.dense)))
        object.__setattr__(self, "origin", MappingProxyType(dict(self.origin)))

    def __hash__(self) -> int:
        return hash(self.hash)

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be copied or sent to another process; a plan can.
        return Plan, (
            dict(self.keep),
            dict(self.dense),
            dict(self.origin),
            self.inputs,
            self.biases,
            self.training_inputs,
        )

    @property
    def widths(self) -> dict[str, int]:
        """Channels kept by group."""
        return {name: len(channels) for name, channels in self.keep.items()}

    @property
    def hash(self) -> str:
        """The first 16 hex digits of the sha256 of what is kept: equal plans have equal hashes."""
        body = json.dumps([sorted((n, list(c)) for n, c in self.keep.items()), sorted(self.dense.items())])
        return hashlib.sha256(body.encode()).hexdigest()[:16]

    def _table(self) -> Table:
        kept, dense = sum(self.widths.values()), sum(self.dense.values())
        title = f"Plan {self.hash}: {kept:,} of {dense:,} channels in {count(len(self.dense), 'group')}"
        rows = [
            (name, f"{len(c):,}", f"{self.dense[name]:,}", "all" if len(c) == self.dense[name] else runs(c))
            for name, c in self.keep.items()
        ]
        origin = ", ".join(f"{key}={v}" for key, v in self.origin.items() if not isinstance(v, Mapping))
        notes = [f"origin: {origin}"] if origin else []
        if self.biases:
            notes.append(f"layers that get a bias: {', '.join(self.biases)}")
        return Table(title, ("group", "kept", "of", "channels"), rows, tuple(notes))

    def check(self, graph: ChannelGraph) -> None:
        """Raise `PlanError` if the plan was made for another model."""
        sizes = {g.name: g.size for g in graph.groups}
        for name, size in self.dense.items():
            if name not in sizes:
                raise PlanError(f"plan has a group '{name}' that the model lacks; was it made for another model?")
            if sizes[name] != size:
                raise PlanError(f"plan is for a group '{name}' of {size} channels, the model's has {sizes[name]}")
        missing = [n for n in sizes if n not in self.dense]
        if missing:
            raise PlanError(f"plan lacks the model's group '{missing[0]}'; was it made for another model?")

    def then(self, other: "Plan") -> "Plan":
        """The plan for the dense model that equals this one followed by `other` on the compact model.

        Groups of which this plan leaves one channel may be missing in `other`, or have another name there: one channel
        is all that the compact model's graph knows of those. Raises `PlanError` for other differences.
        """
        left = self.widths
        for name in [*left, *other.dense]:
            now, then = left.get(name, 1), other.dense.get(name, 1)
            if now != then:
                raise PlanError(
                    f"cannot join the plans: the second has {then} channels of group '{name}', the first leaves {now}."
                    " Was it made for the model that the first one leaves? Then apply one after the other: a grouped"
                    " convolution of one channel for each group is cut in a way that the dense model cannot be"
                )
        keep = {n: tuple(c[i] for i in other.keep.get(n, (0,))) for n, c in self.keep.items()}
        biases = (*self.biases, *(name for name in other.biases if name not in self.biases))
        training_inputs = self.training_inputs or other.training_inputs
        return Plan(keep, self.dense, other.origin, self.inputs or other.inputs, biases, training_inputs)

    def to_json(self) -> str:
        """The plan as JSON text, one group a line."""
        groups = ",\n    ".join(
            f"{json.dumps(n)}: {json.dumps({'dense': self.dense[n], 'keep': _runs(c)})}" for n, c in self.keep.items()
        )
        head = {"format": FORMAT, "version": VERSION, "hash": self.hash, "origin": dict(self.origin)}
        if self.inputs is not None:
            head["inputs"] = self.inputs
        if self.training_inputs is not None:
            head["training_inputs"] = self.training_inputs
        if self.biases:
            head["biases"] = list(self.biases)
        lines = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in head.items())
        return f'{{\n  {lines},\n  "groups": {{\n    {groups}\n  }}\n}}\n'

    @staticmethod
    def from_json(text: str) -> "Plan":
        """The plan in a JSON text; `PlanError` if it holds none, or one that was changed by hand without its hash.

        Every text of this version is read, whichever prunit wrote it: what an older one did not write yet (`inputs`)
        may be missing, and keys that only a newer one knows are passed over. What an older one would misread gets a new
        version, and a text of a newer version is refused.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PlanError(f"not a plan: no JSON ({error})") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise PlanError(f'not a plan: no "format": "{FORMAT}" in it')
        version, groups, origin = data.get("version"), data.get("groups"), data.get("origin", {})
        if not isinstance(version, int) or not isinstance(groups, dict) or not isinstance(origin, dict):
            raise PlanError('not a plan: "version", "groups" or "origin" is missing or malformed')
        if version > VERSION:
            raise PlanError(f"plan version {version} is newer than this prunit reads ({VERSION}): upgrade prunit")
        keep = {name: _channels(name, group) for name, group in groups.items()}
        dense = {name: group["dense"] for name, group in groups.items()}
        biases = data.get("biases", [])
        if not (isinstance(biases, list) and all(isinstance(name, str) for name in biases)):
            raise PlanError('not a plan: "biases" must be a list of layers')
        plan = Plan(keep, dense, origin, data.get("inputs"), tuple(biases), data.get("training_inputs"))
        if data.get("hash") not in (None, plan.hash):
            raise PlanError("the plan's hash does not match its groups: the file is damaged, or edited (drop the hash)")
        return plan


def _channels(name: str, group: Any) -> tuple[int, ...]:
    """The kept channels of one group of a JSON plan."""
    match group:
        case {"dense": int(dense), "keep": [*runs]} if all(_is_run(run, dense) for run in runs):
            return tuple(c for first, last in runs for c in range(first, last + 1))
    raise PlanError(
        f"group '{name}' of the plan must hold its dense width and the kept channels as [first, last] runs below it,"
        f" found {json.dumps(group)[:80]}"
    )


def _is_run(run: Any, dense: int) -> bool:
    match run:
        case [int(first), int(last)]:
            return 0 <= first <= last < dense
    return False


def keep_all(graph: ChannelGraph) -> Plan:
    """The plan that cuts nothing."""
    return _plan({}, graph)


def choose(graph: ChannelGraph, scores: Scores, widths: Widths) -> Plan:
    """The plan that keeps, in every group, its highest-scored channels; equal scores keep the lower index.

    A group that is cut must be free, have a score of its size without NaN, and keep at least one channel.
    """
    keep: dict[str, tuple[int, ...]] = {}
    for name in widths:
        graph.group(name)
    for group in graph.groups:
        width = widths.get(group.name, group.size)
        if width == group.size:
            keep[group.name] = tuple(range(group.size))
            continue
        if group.pinned:
            raise PlanError(f"cannot cut group '{group.name}' to {width}: it is pinned ({group.pinned})")
        if not 1 <= width <= group.size:
            raise PlanError(f"cannot keep {width} of the {group.size} channels of group '{group.name}'")
        score = scores.get(group.name)
        if score is None or tuple(score.shape) != (group.size,):
            found = "none" if score is None else f"shape {tuple(score.shape)}"
            raise PlanError(f"group '{group.name}' needs a score of shape ({group.size},), found {found}")
        if score.isnan().any():
            raise PlanError(f"the scores of group '{group.name}' hold NaN: nothing can be ranked by them")
        best = score.detach().cpu().argsort(descending=True, stable=True)[:width]
        keep[group.name] = tuple(best.sort().values.tolist())
    return _plan(keep, graph)


def from_zeros(model: "nn.Module", graph: ChannelGraph) -> Plan:
    """The plan that drops every channel which nobody reads: all weights that sum over it are zero.

    This undoes `mask` and removes no channel whose constant would be missed downstream. A free group that is read
    nowhere at all stays whole; of a group that is never read one channel stays.
    """
    from prunit.graph.computed import effective
    from prunit.graph.wrappers import unwrapped

    model = unwrapped(model)
    named = effective(model, dict(model.named_parameters()) | dict(model.named_buffers()))
    readers = {a.tensor for a in graph.axes if a.reads}
    return unread(graph, {n: named[n].detach() != 0 for n in readers})


def unread(graph: ChannelGraph, used: "Mapping[str, Tensor]") -> Plan:
    """The plan that drops every channel that only weights with False in `used` (by state-dict name) read.

    Weights that `used` does not name count as used.
    """
    read = np.zeros(int(graph.offsets[-1]) + 1, dtype=bool)
    has_reader = np.zeros_like(read)
    for axis in graph.axes:
        if axis.reads:
            any_used = np.ones(len(axis.where), dtype=bool)
            if axis.tensor in used:
                any_used = _any_on(used[axis.tensor], axis.dim)
            # A channel that the axis holds several times (once for each pixel, say) is read if any of them is.
            read[axis.where[any_used]] = True
            has_reader[axis.where] = True
    keep: dict[str, tuple[int, ...]] = {}
    for group, start in zip(graph.groups, graph.offsets, strict=False):
        span = slice(start, start + group.size)
        stays = read[span] | ~has_reader[span]
        kept = np.flatnonzero(stays) if not (group.pinned or group.mixed) else np.arange(group.size)
        keep[group.name] = tuple(kept.tolist()) or (0,)
    return _plan(keep, graph)


def _plan(keep: Mapping[str, tuple[int, ...]], graph: ChannelGraph) -> Plan:
    sizes = {g.name: g.size for g in graph.groups}
    return Plan(keep, sizes, inputs=graph.inputs, training_inputs=graph.training_inputs)


def _any_on(mask: "Tensor", dim: int) -> np.ndarray:
    """Which positions of a dimension have any True."""
    import torch

    some = mask.view(torch.uint8)  # the maximum of bytes takes a fraction of the time of `any`
    if dim:
        some = some.flatten(0, dim - 1).amax(0)
    return some.reshape(mask.shape[dim], -1).amax(1).bool().cpu().numpy()


def _runs(channels: Sequence[int]) -> list[list[int]]:
    """Ascending numbers as [first, last] runs: most plans keep neighbours, and files stay short."""
    runs: list[list[int]] = []
    for c in channels:
        if runs and c == runs[-1][1] + 1:
            runs[-1][1] = c
        else:
            runs.append([c, c])
    return runs
