"""Which channel each element of a tensor belongs to, and how views carry that along.

Every axis of every parameter gets fresh *ids*, one per position. A tensor's labels are blocks: a block covers an
ordered tuple of its dimensions and holds an array of ids, one for each index of those dimensions. An image tensor
x_BCHW has one block ((1,), ids_C); a weight w_OIHW two, ((0,), ids_O) and ((1,), ids_I); after
`view(B, g, C // g, H, W)` the block is ((1, 2), ids_gc). Dimensions in no block (batch, space) are free. Id 0 stands
for a position that is never cut. Dimensions of size 1 carry no block: they cannot shrink.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
    """Ids of the elements along `dims` (ascending); `ids.ndim == len(dims)`."""

    dims: tuple[int, ...]
    ids: np.ndarray


class Labels(NamedTuple):
    """Blocks of one tensor, the activation memory it lives in, and the weight that it is.

    `buffer` numbers an activation; -1 stands for none yet (a new output, a parameter), -2 for what is computed from
    parameters alone. `weight` names the parameter that this tensor is, or is made from by steps that keep all its
    elements apart; else ''. It is `clean` while those steps keep zeros zero, too: then zeroing a slice of the parameter
    zeroes the same slice here, and `mask` need do no more.

    `counts` are channels whose numbers are the *values* of this tensor (where a maximum over channels lies), with the
    operator that counted them: they must stay as soon as somebody reads it.
    """

    blocks: tuple[Block, ...] = ()
    buffer: int = -1
    weight: str = ""
    clean: bool = True
    counts: tuple[np.ndarray, str] | None = None

    def at(self, dim: int) -> Block | None:
        """The block that covers `dim`."""
        for block in self.blocks:
            if dim in block.dims:
                return block
        return None

    def ids(self, dim: int) -> np.ndarray | None:
        """The ids along `dim` if it is labelled alone (not jointly with another dimension)."""
        for dims, ids in self.blocks:
            if dim in dims:
                return ids if len(dims) == 1 else None
        return None


def all_ids(labels: Labels) -> np.ndarray:
    """Every id that the labels mention."""
    return np.concatenate([b.ids.reshape(-1) for b in labels.blocks]) if labels.blocks else np.empty(0, np.int64)


def ordered(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """The blocks in the order of their dimensions."""
    blocks = tuple(blocks)
    return blocks if len(blocks) < 2 else tuple(sorted(blocks, key=lambda block: block.dims[0]))


def permuted(labels: Labels, order: list[int]) -> Labels:
    """Labels after `tensor.permute(order)`."""
    new_of = {old: new for new, old in enumerate(order)}
    blocks: list[Block] = []
    for dims, ids in labels.blocks:
        moved = [new_of[d] for d in dims]
        blocks.append(Block(tuple(sorted(moved)), ids if len(dims) == 1 else ids.transpose(np.argsort(moved))))
    return labels._replace(blocks=tuple(blocks))


def without(labels: Labels, removed: list[int], keepdim: bool) -> Labels:
    """Labels after the dimensions `removed` are reduced away; blocks on them are dropped."""
    gone = set(removed)
    kept = [b for b in labels.blocks if not gone & set(b.dims)]
    if keepdim:
        return labels._replace(blocks=tuple(kept))
    return labels._replace(
        blocks=tuple(Block(tuple(d - sum(r < d for r in gone) for d in b.dims), b.ids) for b in kept)
    )


def inserted(labels: Labels, dim: int) -> Labels:
    """Labels after `tensor.unsqueeze(dim)`."""
    blocks = (Block(tuple(d + (d >= dim) for d in b.dims), b.ids) for b in labels.blocks)
    return labels._replace(blocks=tuple(blocks))


def reshaped(labels: Labels, old: tuple[int, ...], new: tuple[int, ...]) -> Labels | None:
    """Labels after a reshape from shape `old` to `new`; None where a block is torn apart and cannot be followed."""
    segments = _segments(old, new)
    blocks: list[Block] = []
    for block in labels.blocks:
        touched = [s for s in segments if set(s[0]) & set(block.dims)]
        if len(touched) != 1 or not set(block.dims) <= set(touched[0][0]):
            return None
        before, after = touched[0]
        if any(set(before) & set(other.dims) for other in labels.blocks if other is not block):
            return None
        moved = _reshape_block(block, [old[d] for d in before], before, [new[d] for d in after], after)
        if moved is not None:
            blocks.append(moved)
    return labels._replace(blocks=tuple(blocks))


def _reshape_block(block: Block, old: list[int], before: list[int], new: list[int], after: list[int]) -> Block | None:
    view = [old[i] if d in block.dims else 1 for i, d in enumerate(before)]
    ids = np.broadcast_to(block.ids.reshape(view), old)
    if [n for n in old if n > 1] != [n for n in new if n > 1]:
        ids = np.ascontiguousarray(ids)
    ids = ids.reshape(new)
    # An axis along which the ids do not change is free again (a flatten that is undone, say).
    varies = [n > 1 and bool((ids != ids.take([0], axis=i)).any()) for i, n in enumerate(new)]
    dims = tuple(d for d, v in zip(after, varies, strict=True) if v)
    if not dims:
        return None
    small = ids[tuple(slice(None) if v else 0 for v in varies)]
    # The same array stays the same object where it can: whole axes are then unified at once.
    return Block(dims, block.ids if small.ndim == 1 and np.array_equal(small, block.ids) else small)


def _segments(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The finest matching runs of dimensions: the elements of each old run fill exactly one new run."""
    segments: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before, after = [], []
        a = b = 1
        while (not before and not after) or a != b:
            if i >= len(old) and j >= len(new):
                break  # only with empty tensors, whose products are all 0
            if (a <= b and i < len(old)) or j >= len(new):
                a *= old[i]
                before.append(i)
                i += 1
            else:
                b *= new[j]
                after.append(j)
                j += 1
        # Sizes of 1 belong to the run before them, so that (B, C, 1, 1) -> (B, C) keeps C in a run of its own.
        while i < len(old) and old[i] == 1:
            before.append(i)
            i += 1
        while j < len(new) and new[j] == 1:
            after.append(j)
            j += 1
        segments.append((before, after))
    return segments
