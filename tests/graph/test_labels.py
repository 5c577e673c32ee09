"""Labels follow views exactly: each case is compared with moving an array of ids, one for every element."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunit.graph.labels import Block, Labels, all_ids, inserted, permuted, reshaped, without


def labels(*blocks: tuple[tuple[int, ...], list]) -> Labels:
    return Labels(tuple(Block(dims, np.array(ids)) for dims, ids in blocks))


def spread(block: Block, shape: tuple[int, ...]) -> np.ndarray:
    """The block's id of every element of a tensor."""
    view = [n if d in block.dims else 1 for d, n in enumerate(shape)]
    return np.broadcast_to(block.ids.reshape(view), shape)


IMAGE = labels(((1,), [11, 12, 13]))  # x_BCHW of shape (2, 3, 4, 5)


def test_at_and_ids_find_the_block_of_a_dimension() -> None:
    joint = labels(((1, 2), [[1, 2], [3, 4]]), ((3,), [5, 6]))
    assert joint.at(2) is joint.blocks[0]
    assert joint.at(0) is None
    assert joint.ids(1) is None  # labelled, but not alone
    assert joint.ids(3) is joint.blocks[1].ids
    assert all_ids(joint).tolist() == [1, 2, 3, 4, 5, 6]
    assert all_ids(Labels()).size == 0


def test_permuted_moves_a_block_and_transposes_a_joint_one() -> None:
    assert permuted(IMAGE, [0, 2, 3, 1]).blocks[0].dims == (3,)
    joint = permuted(labels(((0, 1), [[1, 2, 3], [4, 5, 6]])), [1, 2, 0])
    assert joint.blocks[0].dims == (0, 2)
    assert joint.blocks[0].ids.tolist() == [[1, 4], [2, 5], [3, 6]]


def test_without_drops_blocks_and_moves_the_others_up() -> None:
    assert without(IMAGE, [2, 3], keepdim=False).blocks[0].dims == (1,)
    assert without(IMAGE, [0], keepdim=False).blocks[0].dims == (0,)
    assert without(IMAGE, [0], keepdim=True).blocks[0].dims == (1,)
    assert without(IMAGE, [1], keepdim=True).blocks == ()


def test_inserted_moves_later_blocks_down() -> None:
    assert inserted(IMAGE, 1).blocks[0].dims == (2,)
    assert inserted(IMAGE, 2).blocks[0].dims == (1,)


@pytest.mark.parametrize(
    ("old", "new", "dims", "ids"),
    [
        pytest.param((2, 3, 1, 1), (2, 3), (1,), [11, 12, 13], id="drop ones"),
        pytest.param((2, 3, 4, 5), (2, 3, 20), (1,), [11, 12, 13], id="join space"),
        pytest.param((2, 3, 2, 1), (2, 6), (1,), [11, 11, 12, 12, 13, 13], id="flatten"),
        pytest.param((2, 3, 4, 5), (6, 20), (0,), [11, 12, 13, 11, 12, 13], id="batch and channels"),
    ],
)
def test_reshaped(old: tuple[int, ...], new: tuple[int, ...], dims: tuple[int, ...], ids: list[int]) -> None:
    moved = reshaped(IMAGE, old, new)
    assert moved is not None
    assert [(b.dims, b.ids.tolist()) for b in moved.blocks] == [(dims, ids)]


def test_a_flatten_that_is_undone_frees_space_again() -> None:
    flat = reshaped(IMAGE, (2, 3, 4, 5), (2, 60))
    assert flat is not None
    back = reshaped(flat, (2, 60), (2, 3, 4, 5))
    assert back is not None
    assert [(b.dims, b.ids.tolist()) for b in back.blocks] == [((1,), [11, 12, 13])]


def test_channels_split_over_two_dimensions_stay_one_joint_block() -> None:
    split = reshaped(labels(((1,), [1, 2, 3, 4, 5, 6])), (2, 6, 7), (2, 2, 3, 7))
    assert split is not None
    assert [(b.dims, b.ids.tolist()) for b in split.blocks] == [((1, 2), [[1, 2, 3], [4, 5, 6]])]


def test_two_labelled_dimensions_that_become_one_cannot_be_followed() -> None:
    weight = labels(((0,), [1, 2]), ((1,), [3, 4, 5]))
    assert reshaped(weight, (2, 3), (6,)) is None
    assert reshaped(weight, (2, 3, 3, 3), (2, 27)) is not None


def test_repeated_ids_in_another_order_are_not_taken_for_the_same_axis() -> None:
    # Two free rows of (a a b b) read as four rows of two: a, b, a, b.
    moved = reshaped(labels(((1,), [7, 7, 8, 8])), (2, 4), (4, 2))
    assert moved is not None
    assert [(b.dims, b.ids.tolist()) for b in moved.blocks] == [((0,), [7, 8, 7, 8])]


def test_an_axis_that_stays_whole_stays_the_same_object() -> None:
    moved = reshaped(IMAGE, (2, 3, 4, 5), (2, 3, 20))
    assert moved is not None
    assert moved.blocks[0].ids is IMAGE.blocks[0].ids  # whole axes are unified at once by identity


def factorisations(n: int) -> list[tuple[int, ...]]:
    """All shapes of n elements without sizes of one."""
    return [()] if n == 1 else [(f, *rest) for f in range(2, n + 1) if n % f == 0 for rest in factorisations(n // f)]


@settings(max_examples=200, deadline=None)
@given(
    old=st.sampled_from(factorisations(24)),
    new=st.sampled_from(factorisations(24)),
    ones=st.lists(st.integers(0, 3), max_size=2),
    first=st.integers(0, 3),
    second=st.integers(0, 3),
)
def test_reshaped_agrees_with_moving_every_element(
    old: tuple[int, ...], new: tuple[int, ...], ones: list[int], first: int, second: int
) -> None:
    for where in ones:
        old, new = (*old[:where], 1, *old[where:]), (*new[: where + 1], 1, *new[where + 1 :])
    blocks = []
    for d in sorted({first, second} & set(range(len(old)))):
        if old[d] > 1:
            blocks.append(Block((d,), 1 + 100 * d + np.arange(old[d])))
    moved = reshaped(Labels(tuple(blocks)), old, new)
    if moved is None:
        assert len(blocks) == 2  # one labelled dimension can always be followed
        return
    expected = sorted(spread(b, old).reshape(new).tolist() for b in blocks)
    assert sorted(spread(b, new).tolist() for b in moved.blocks) == expected
    assert all(b.ids.shape == tuple(new[d] for d in b.dims) for b in moved.blocks)
