"""Where tensors lie in an arena: a plan made here, which the file carries with it.

TensorFlow Lite Micro plans by itself, the largest tensor first, which leaves gaps where one half of a sum waits for the
other: the activations of a ResNet-20 take a third more than what is needed at once. It takes a plan instead that stands
in the file (metadata "OfflineMemoryAllocation"). An interpreter on a computer does not look at it.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from prunit.mcu.memory import ALIGNED, Life, lives, most_at_once
from prunit.mcu.network import IntegerNetwork

_TRIES: Final = 300
"""Orders that are tried where none of the simple ones needs as little as can be; each takes less than a millisecond."""
_PAIRS: Final = 500_000
"""Pairs of tensors that all tries look at, about: a second at the most."""
_WORSE: Final = 0.05
"""How often an order that needs more is gone on with."""

Offsets = Mapping[str, int]


def offsets_of(network: IntegerNetwork) -> Offsets:
    """The byte at which each tensor begins, by name; empty where TensorFlow Lite Micro does as well by itself.

    That is so where every tensor is read by the next operator alone, and large ones first take no more than is alive at
    once. Else the best of several orders in which tensors are
    placed, each at the first gap that holds it (Pisarchyk and Lee, 2020), and of those that a search makes of the best
    by placing what lies on top earlier. It ends where no more is needed than is alive at once.
    """
    every = lives(network)
    chain = all(life.last <= life.first + 1 for life in every.values())
    least = most_at_once(every.values(), aligned=ALIGNED)
    found: list[tuple[int, dict[str, int], list[str]]] = []
    for order in _orders(every):
        offsets = _placed(every, order)
        found.append((_top(every, offsets), offsets, order))
        if found[-1][0] <= least:
            return {} if chain and len(found) == 1 else offsets
    _, offsets, order = min(found, key=lambda each: each[0])
    best = offsets
    draws = random.Random(0)
    for _ in range(min(_TRIES, _PAIRS // len(every) ** 2)):
        if _top(every, best) <= least:
            break
        changed = _changed(every, offsets, order, draws)
        placed = _placed(every, changed)
        if _top(every, placed) <= _top(every, offsets) or draws.random() < _WORSE:
            offsets, order = placed, changed
        best = min(best, placed, key=lambda each: _top(every, each))
    return best


def _orders(every: Mapping[str, Life]) -> list[list[str]]:
    """Large ones first, in the order of the network, those that live long first, and by size times life."""

    keys: list[Callable[[Life], tuple[int, ...]]] = [
        lambda life: (-life.bytes,),
        lambda life: (life.first, -life.bytes),
        lambda life: (life.first - life.last, -life.bytes),
        lambda life: (-life.bytes * (life.last - life.first + 1),),
    ]
    return [sorted(every, key=lambda name, key=key: key(every[name])) for key in keys]  # type: ignore[misc]


def _placed(every: Mapping[str, Life], order: Sequence[str]) -> dict[str, int]:
    """Each tensor in turn at the lowest byte where it disturbs none that was placed before."""
    found: dict[str, int] = {}
    for name in order:
        life, at = every[name], 0
        taken = sorted((found[other], _size(every[other])) for other in found if every[other].meets(life))
        for begin, size in taken:
            if begin - at >= _size(life):
                break
            at = max(at, begin + size)
        found[name] = at
    return found


def _changed(every: Mapping[str, Life], offsets: Offsets, order: Sequence[str], draws: random.Random) -> list[str]:
    """The order with one of the tensors that end at the top placed earlier."""
    top = _top(every, offsets)
    name = draws.choice([name for name in order if offsets[name] + _size(every[name]) == top])
    changed = [other for other in order if other != name]
    changed.insert(draws.randrange(max(order.index(name), 1)), name)
    if changed[0] == order[0] == name:
        other = draws.randrange(len(changed))
        changed[0], changed[other] = changed[other], changed[0]
    return changed


def _top(every: Mapping[str, Life], offsets: Offsets) -> int:
    return max((at + _size(every[name]) for name, at in offsets.items()), default=0)


def _size(life: Life) -> int:
    return -(-life.bytes // ALIGNED) * ALIGNED
