"""The fewest candidates that serve everybody: set cover, exact where the candidates are few."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

EXACT: Final = 16
"""Up to so many candidates all sets of them are tried, smaller ones first; of more the greedy choice is taken."""


def fewest(serves: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    """The smallest set of candidates such that each device that any of them serves is served, in the given order.

    `serves` has for each candidate the devices that it may serve, and what of its best each of these keeps (1 is all).
    Of sets that are equally small the one wins by which devices lose least in all, and among these the one whose
    candidates come first: give the preferred ones first. The smallest is found for certain up to `EXACT` candidates;
    beyond that sets come from the greedy choice (Chvátal 1979: at most ln n + 1 times as many).
    """
    wanted = {device for found in serves.values() for device in found}
    names = [name for name, found in serves.items() if found]
    if not wanted:
        return ()
    if len(names) > EXACT:
        return _greedy(serves, names, wanted)
    bits = {device: 1 << i for i, device in enumerate(sorted(wanted))}
    masks = {name: sum(bits[device] for device in serves[name]) for name in names}
    everybody = sum(bits.values())
    for size in range(1, len(names)):
        within = [each for each in combinations(names, size) if _together(each, masks) == everybody]
        if within:
            return min(within, key=lambda each: lost(serves, each))  # of equals the first
    return tuple(names)


def lost(serves: Mapping[str, Mapping[str, float]], chosen: Sequence[str]) -> float:
    """What the devices lose in all, each served by the one of these by which it keeps most; more than 1 is no gain."""
    best = served_by(serves, chosen)
    return round(sum(max(0.0, 1 - serves[name][device]) for device, name in best.items()), 12)


def served_by(serves: Mapping[str, Mapping[str, float]], chosen: Sequence[str]) -> dict[str, str]:
    """For each device the one of these by which it keeps most, of equals the first."""
    devices = dict.fromkeys(device for name in chosen for device in serves[name])
    return {
        device: max((name for name in chosen if device in serves[name]), key=lambda name: serves[name][device])
        for device in devices
    }


def _together(names: Sequence[str], masks: Mapping[str, int]) -> int:
    found = 0
    for name in names:
        found |= masks[name]
    return found


def _greedy(serves: Mapping[str, Mapping[str, float]], names: Sequence[str], wanted: set[str]) -> tuple[str, ...]:
    left, chosen = set(wanted), list[str]()
    while left:
        best = max(names, key=lambda name: len(left & serves[name].keys()))  # of equals the first
        chosen.append(best)
        left -= serves[best].keys()
    for name in reversed(chosen):  # one that was taken early may be needed no more
        others = [each for each in chosen if each != name]
        if wanted <= {device for each in others for device in serves[each]}:
            chosen = others
    return tuple(name for name in names if name in chosen)
