"""Parts of a tensor, by number or from here to there: which channels are in them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunit.graph.labels import Block, Labels, ordered, without
from prunit.graph.rules.elementwise import aligned
from prunit.graph.rules.seam import (
    TracerLike,
    alike,
    argument,
    buffer_for,
    name_of,
    part_of,
    tensors,
    tie,
)


def part(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """select, unbind, index_select: one channel or some, by number, so all stay; other dimensions are handed on."""
    x = args[0]
    dim = argument(func, args, kwargs, "dim") % x.ndim
    labels = t.labels(x)
    outs = tensors(out)
    block = labels.at(dim)
    if block is not None:
        t.pin(block.ids, f"{name_of(func)} takes channels by number")
    labels = part_of(labels)
    for leaf in outs:
        t.set(leaf, without(labels, [dim], keepdim=leaf.ndim == x.ndim))


def pieces(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """slice, split, chunk, narrow: runs of channels.

    Equal pieces that cover all channels may lose the same ones, as where the code takes a share of the shape. Pieces
    may also go their own ways, where the code takes their sizes from attributes.
    """
    x = args[0]
    dim = argument(func, args, kwargs, "dim") % x.ndim
    labels = t.labels(x)
    outs = tensors(out)
    block = labels.at(dim)
    if len(outs) == 1 and outs[0].shape == x.shape:
        t.set(outs[0], labels)
        return
    ends = _ends(func, args, kwargs, x.shape[dim], outs, dim)
    rest = without(part_of(labels), [dim], keepdim=True)
    if block is None or len(block.dims) > 1 or not ends:
        if block is not None:
            t.pin(block.ids, f"{name_of(func)} takes channels by number")
        for leaf in outs:
            t.set(leaf, rest)
        return
    ids = block.ids
    followed = _followed(t, func, args, kwargs, ids, ends)
    for leaf, (start, stop) in zip(outs, ends, strict=True):
        if stop - start == 1:  # it cannot shrink, and what has size 1 has no labels
            t.pin(ids[start:stop], f"{name_of(func)} takes one channel")
        wide = followed and stop - start > 1
        blocks = (*rest.blocks, Block((dim,), ids[start:stop])) if wide else rest.blocks
        t.set(leaf, rest._replace(blocks=ordered(blocks)))


def _ends(func: Any, args: Any, kwargs: Any, size: int, outs: list[Tensor], dim: int) -> list[tuple[int, int]]:
    """Where each output starts and stops along the dimension; [] where it takes only every so-many-th channel."""
    if name_of(func) == "slice":
        start = argument(func, args, kwargs, "start") or 0
        start = min(max(start + size if start < 0 else start, 0), size)
        return [(start, start + outs[0].shape[dim])] if argument(func, args, kwargs, "step") == 1 else []
    stops = np.cumsum([leaf.shape[dim] for leaf in outs]).tolist()
    return [(stop - leaf.shape[dim], stop) for stop, leaf in zip(stops, outs, strict=True)]


def _followed(t: TracerLike, func: Any, args: Any, kwargs: Any, ids: np.ndarray, ends: list[tuple[int, int]]) -> bool:
    """Take a reading of runs of channels; False if they are pinned."""
    length = ends[0][1] - ends[0][0]
    if not length and len(ends) == 1:  # an empty slice stays empty
        return False
    equal = length > 0 and len(ids) % length == 0 and all(b - a == length and a % length == 0 for a, b in ends)
    # What the code was given: where a slice begins and ends, how long the parts of a split are; or it computed that
    # from the number of all channels.
    if name_of(func) == "slice":
        asked = [argument(func, args, kwargs, name) or 0 for name in ("start", "end")]
        edges = [(edge, wish) for edge, wish in zip(ends[0], asked, strict=True) if 0 < edge < len(ids)]
        given = [ids[edge:] if wish < 0 else ids[:edge] for edge, wish in edges]
    else:
        given = [ids[start:stop] for start, stop in ends]
    # Only sizes that a module holds can be changed to whatever each part keeps; a share of the shape cannot.
    readings = ["apart"] if any(t.holds(len(some)) for some in given) else []
    if equal:
        readings = [*readings, "alike"] if len(ends) == 1 else ["alike", *readings]
    taken = t.reading("part", len(readings) + 1, ids)
    if taken == len(readings):
        t.pin(ids, f"{name_of(func)} takes channels by number")
        return False
    if readings[taken] == "alike":
        rows = ids.reshape(-1, length)
        alike(t, rows, name_of(func))
    for some in [*given, ids]:
        t.size(len(some), some)
    return True


def index(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """x[i, j]: what is looked up by number stays whole; the dimensions that are not looked up are handed on."""
    x, wanted = args[0], args[1]
    labels = t.labels(x)
    looked_up = [d for d, i in enumerate(wanted) if i is not None]
    for leaf in tensors(wanted):
        t.pin_tensor(leaf, f"operator {name_of(func)} counts channels")
    for d in looked_up:
        block = labels.at(d)
        if block is not None:
            t.pin(block.ids, f"operator {name_of(func)} takes channels by number")
    together = looked_up == list(range(looked_up[0], looked_up[-1] + 1))
    width = max(wanted[d].ndim for d in looked_up)
    place = looked_up[0] if together else 0
    if any(wanted[d].dtype == torch.bool for d in looked_up):
        t.pin_tensor(x, f"operator {name_of(func)} takes elements by their values")
        t.set(out, Labels())
        return
    kept = without(part_of(labels), looked_up, keepdim=False)
    blocks = tuple(Block(tuple(d + width * (d >= place) for d in b.dims), b.ids) for b in kept.blocks)
    t.set(out, Labels(blocks, buffer_for(t, [x])))


def gathered(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """gather, take_along_dim: along one dimension by number, along the others each with its own."""
    x, dim, numbers = args[0], argument(func, args, kwargs, "dim"), argument(func, args, kwargs, "index")
    dim %= max(x.ndim, 1)
    labels, theirs = t.labels(x), t.labels(numbers)
    block = labels.at(dim)
    if block is not None:
        t.pin(block.ids, f"operator {name_of(func)} takes channels by number")
    blocks = [b for b in theirs.blocks if b.dims == (dim,)]
    for other in (*labels.blocks, *theirs.blocks):
        if len(other.dims) > 1:
            t.pin(other.ids, f"operator {name_of(func)} on a part of the channels")
    for d in range(x.ndim):
        mine, asked = labels.ids(d), theirs.ids(d)
        if d == dim or (mine is None and asked is None):
            continue
        if x.shape[d] == numbers.shape[d]:
            tie(t, mine, asked, f"{name_of(func)} by numbers for fixed channels")
            if mine is not None and asked is not None:
                blocks.append(Block((d,), mine))
        else:  # of the first few only
            for ids in (mine, asked):
                t.pin(ids, f"operator {name_of(func)} takes channels by number")
    t.set(out, Labels(ordered(blocks), buffer_for(t, [x])))


def written_to(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """x[i, j] = value: channels that are looked up stay, the others are handed on if all get the same value."""
    x, wanted, value = args[:3]
    looked_up = [d for d, i in enumerate(wanted) if i is not None]
    masks = [wanted[d] for d in looked_up if wanted[d].dtype in (torch.bool, torch.uint8)]
    if value.numel() == 1 and len(wanted) == 1 and len(masks) == 1 and masks[0].shape == x.shape:
        t.set(out, t.labels(x)._replace(blocks=aligned(t, [x, masks[0]], tuple(x.shape), name_of(func))))
        return
    for leaf in [*tensors(wanted), *([value] if value.numel() > 1 else [])]:
        t.pin_tensor(leaf, f"operator {name_of(func)} counts channels")
    # A mask may run over several dimensions, and a value of several elements has to fit what it is written to.
    touched = looked_up if not masks and value.numel() == 1 else range(x.ndim)
    for block in t.labels(x).blocks:
        if set(block.dims) & set(touched):
            t.pin(block.ids, f"operator {name_of(func)} takes channels by number")
    t.set(out, t.labels(x))


def embedding(t: TracerLike, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """Rows of a table: each channel of the table is one of the output's."""
    table, numbers = args[0], args[1]
    labels = t.labels(table)
    t.pin(labels.ids(0), f"operator {name_of(func)} takes channels by number")
    t.pin_tensor(numbers, f"operator {name_of(func)} counts channels")
    made = labels.ids(1)
    t.produce(made)
    t.set(out, Labels(() if made is None else (Block((out.ndim - 1,), made),)))
