"""Zeros removed for an engine: widths that are not ours to choose, padded with idle channels where that is faster.

What a sparse training leaves has odd widths, and an engine computes on blocks of channels: one less can take twice as
long. The channels that would go are there, and some of them can stay with the same outputs (cut/spare.py). Whether that
is faster here is found by timing, as it is said of which plan is faster in choosing.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from torch import nn

from prunit.allocate.liked import fitting
from prunit.cut.plans import Plan
from prunit.cut.zeros import Removed, remove_zeros
from prunit.edge import runtimes
from prunit.edge.comparing.compare import PACE
from prunit.errors import MissingExtraError, ModelError
from prunit.graph import ChannelGraph
from prunit.prices.costs import cost_of
from prunit.recipe.choosing import NOISE
from prunit.recipe.deciding import Clock
from prunit.recipe.steady import middle, steadily
from prunit.recipe.stopwatch import Timing

Pad = int | Literal["auto", "off"]
"""Multiples of so many channels, whether faster or not; those that the engine likes, where timing finds them faster."""

_LEAST: Final = "least"


@dataclass(frozen=True)
class Padding:
    """A sparse model without its zeros, and what was found of its widths.

    at_least  by group what `remove_zeros` was asked to keep; {} where nothing more stayed than had to
    told      that in a line, '' where nothing was asked for
    faster    by batch size how many times faster than without these channels; {} where nothing was timed
    """

    removed: Removed
    at_least: Mapping[str, int]
    told: str = ""
    faster: Mapping[int, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        faster = {str(batch): round(times, 4) for batch, times in (self.faster or {}).items()}
        return {"channels": self.removed.spare, "groups": len(self.at_least), "faster": faster, "told": self.told}


def without_zeros(
    model: nn.Module,
    example: Any,
    *,
    graph: ChannelGraph,
    pad: Pad = "auto",
    engine: str = runtimes.DEFAULT,
    clock: Clock | None = None,
    on_timed: Callable[[int, int], None] = lambda done, total: None,
) -> Padding:
    """`remove_zeros`, with channels that stay for the engine's sake as `pad` says; the outputs are the same.

    With "auto" plans are timed, where the engine is the one that there is a clock for; where the model cannot be timed
    nothing is padded, and `told` says why. `on_timed` is called with how many plans are timed and how many will be.
    """
    least = remove_zeros(model, example, graph=graph)
    if pad == "off" or least.plan.widths == dict(least.plan.dense):
        return Padding(least, {})
    if isinstance(pad, int):
        sizes = {group.name: group.size for group in graph.groups if not group.pinned}
        widths = {n: min(-(-w // pad) * pad, sizes[n]) for n, w in least.plan.widths.items() if n in sizes}
        found = _padded(model, example, graph, least, widths)
        if found is None:
            return Padding(least, {}, f"nothing to pad: no more widths can be multiples of {pad}")
        return Padding(found, _more(found, least), _told(f"multiples of {pad}", found, least, graph))
    if engine != runtimes.DEFAULT:
        return Padding(least, {}, f"not padded: plans are timed in {runtimes.DEFAULT}, and the models are for {engine}")
    candidates: dict[str, Removed] = {}
    for blocks in (False, True):
        widths = fitting(graph, engine, least.plan.widths, blocks=blocks)
        found = _padded(model, example, graph, least, widths)
        if found and found.plan.hash not in (other.plan.hash for other in candidates.values()):
            candidates[_multiples(found, least)] = found
    if not candidates:
        return Padding(least, {}, f"nothing to pad: no more widths can be multiples of what {engine} likes")
    return _fastest(model, example, graph, least, candidates, clock or Clock(), on_timed)


def _fastest(
    model: nn.Module,
    example: Any,
    graph: ChannelGraph,
    least: Removed,
    candidates: Mapping[str, Removed],
    clock: Clock,
    on_timed: Callable[[int, int], None],
) -> Padding:
    """The fastest of these, where one is faster than the model without any padding by more than two timings differ."""
    plans: dict[str, Plan] = {_LEAST: least.plan} | {name: found.plan for name, found in candidates.items()}
    on_timed(0, len(plans))
    try:
        with clock.watch(model, graph, example, tuple(dict.fromkeys((1, clock.batch)))) as watch:
            several = steadily(watch, plans)
    except (MissingExtraError, ModelError) as error:
        return Padding(least, {}, f"not padded, since nothing can be timed here: {error}")
    on_timed(len(plans), len(plans))
    timings = {name: [middle(each) for each in zip(*all_of, strict=True)] for name, all_of in several.items()}
    faster = {name: _faster(timings[name], timings[_LEAST]) for name in candidates}
    best = fastest(faster)
    where = f"in {runtimes.DEFAULT}, {clock.threads} thread{'s' * (clock.threads > 1)}"
    if best is None:
        tried = ", ".join(f"{name} {_times(times)}" for name, times in faster.items())
        return Padding(least, {}, f"not padded: no faster here ({tried}; {where})")
    found = candidates[best]
    text = f"{_told(best, found, least, graph)}; {_times(faster[best])} faster here ({where})"
    return Padding(found, _more(found, least), text, faster[best])


def fastest(faster: Mapping[str, Mapping[int, float]]) -> str | None:
    """The name of what is faster at some batch size, slower at none, and fastest at batch 1; the first of equal ones.

    `faster` says how many times, by name and batch size. None where nothing is: fewer channels are worth more then.
    """
    left = {n: t for n, t in faster.items() if max(t.values()) > PACE and min(t.values()) * NOISE >= 1}
    if not left:
        return None
    best = max(next(iter(times.values())) for times in left.values())
    return next(name for name, times in left.items() if next(iter(times.values())) * NOISE >= best)


def _faster(timings: Sequence[Timing], than: Sequence[Timing]) -> dict[int, float]:
    """Both are ratios to the dense model, with which they took turns."""
    return {t.batch: t.times_faster / other.times_faster for t, other in zip(timings, than, strict=True)}


def _padded(
    model: nn.Module, example: Any, graph: ChannelGraph, least: Removed, widths: Mapping[str, int]
) -> Removed | None:
    """With these widths, where that is any other model."""
    wanted = {name: width for name, width in widths.items() if width > least.plan.widths[name]}
    found = remove_zeros(model, example, graph=graph, at_least=wanted) if wanted else least
    return found if found.spare else None


def _more(found: Removed, least: Removed) -> dict[str, int]:
    """The groups that keep more, and how many channels."""
    return {n: width for n, width in found.plan.widths.items() if width > least.plan.widths[n]}


def _multiples(found: Removed, least: Removed) -> str:
    """What all widths that grew are multiples of, of 16 at the most: of some that is all that the layer has."""
    grown = [w for n, w in _more(found, least).items() if w < found.plan.dense[n]]
    step = next((step for step in (16, 8, 4, 2) if all(width % step == 0 for width in grown)), 1)
    return f"multiples of {step}" if grown and step > 1 else "widths that it likes"


def _told(name: str, found: Removed, least: Removed, graph: ChannelGraph) -> str:
    before, after = (cost_of(graph, removed.plan).params for removed in (least, found))
    return (
        f"padded {len(_more(found, least))} of {sum(not group.pinned for group in graph.groups)} groups to {name}:"
        f" {after / max(before, 1) - 1:.1%} more parameters, the same outputs"
    )


def _times(faster: Mapping[int, float]) -> str:
    return " and ".join(f"{times:.2f}x at batch {batch}" for batch, times in faster.items())


def again(model: nn.Module, example: Any, *, graph: ChannelGraph, at_least: Mapping[str, int], told: str) -> Padding:
    """What was found before, without a clock: for a build that goes on."""
    return Padding(remove_zeros(model, example, graph=graph, at_least=at_least), at_least, told)


def with_origin(plan: Plan, padding: Padding) -> Plan:
    """The plan, which says in its origin what was found of its widths."""
    return replace(plan, origin={**plan.origin, "padded": padding.told}) if padding.told else plan
