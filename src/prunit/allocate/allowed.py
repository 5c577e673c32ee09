"""Which widths each group may have: a ladder from the least to the most, in equal steps above a knee."""

from dataclasses import dataclass, replace

import numpy as np

from prunit.shown import Shown


@dataclass(frozen=True, eq=False, repr=False)
class Allowed(Shown):
    """The widths that each group of a graph may have, as arrays in the order of its groups.

    A group may be `least` wide, wider than that by whole `step`s, or `most` wide, which may lie between two steps.
    Where it has a `knee`, a power of two above its least width, equal steps begin there, and below are powers of two.
    `least_by` and `most_by` say what set a bound that is not the general minimum or the dense width, else ''.
    """

    least: np.ndarray
    most: np.ndarray
    step: np.ndarray
    least_by: tuple[str, ...]
    most_by: tuple[str, ...]
    knee: np.ndarray | None = None
    """None where no group has one; a group without has its least width here."""

    def __post_init__(self) -> None:
        for array in (self.least, self.most, self.step, *([] if self.knee is None else [self.knee])):
            array.flags.writeable = False  # allocators take them as they are, and may forget to copy

    def down(self, widths: np.ndarray) -> np.ndarray:
        """The widest allowed widths that are no wider than these real numbers, or the least ones."""
        # A hair is added so that 0.1 * 30 counts as 3.
        whole = np.floor(widths + 1e-9)
        base = self._base
        found = base + np.floor_divide(whole - base, self.step) * self.step
        if self.knee is not None:
            found = np.where(whole < base, _power_of_two(whole, np.floor), found)
        return np.where(whole >= self.most, self.most, np.maximum(found, self.least)).astype(np.int64)

    def up(self, widths: np.ndarray) -> np.ndarray:
        """The narrowest allowed widths that are no narrower than these real numbers, or the most."""
        whole = np.ceil(widths - 1e-9)
        base = self._base
        found = base - np.floor_divide(base - whole, self.step) * self.step
        if self.knee is not None:
            found = np.where(whole < base, _power_of_two(whole, np.ceil), found)
        return np.clip(found, self.least, self.most).astype(np.int64)

    def near(self, widths: np.ndarray) -> np.ndarray:
        """The allowed widths nearest to these real numbers, the narrower of two that are as near."""
        below, above = self.down(widths), self.up(widths)
        return np.where(above - widths < widths - below, above, below)

    def ladder(self, group: int) -> np.ndarray:
        """All widths that the group with this position may have, ascending."""
        least, most, base = self.least[group], self.most[group], self._base[group]
        powers = 2 ** np.arange(int(base).bit_length())
        below = powers[(powers >= least) & (powers < min(base, most))]
        return np.concatenate([below, np.arange(base, most, self.step[group]), [most]])

    @property
    def _base(self) -> np.ndarray:
        """Where equal steps begin."""
        return self.least if self.knee is None else self.knee

    def hold(self, widths: np.ndarray) -> bool:
        """These are whole numbers that are all allowed."""
        return bool((self.down(widths) == widths).all())

    def at_most(self, widths: np.ndarray, by: str) -> "Allowed":
        """The same, but no group may be wider than these allowed widths; `by` says what sets that bound."""
        lower = widths < self.most
        most_by = (by if less else was for less, was in zip(lower, self.most_by, strict=True))
        return replace(self, most=np.where(lower, widths, self.most), most_by=tuple(most_by))

    def widest(self, groups: np.ndarray) -> "Allowed":
        """The same, but the groups that this boolean array names have their most width only."""
        by = (self.most_by[i] if chosen else self.least_by[i] for i, chosen in enumerate(groups))
        least = np.where(groups, self.most, self.least)
        knee = None if self.knee is None else np.where(groups, self.most, self.knee)
        return Allowed(least, self.most, self.step, tuple(by), self.most_by, knee)


def _power_of_two(widths: np.ndarray, rounded: np.ufunc) -> np.ndarray:
    """The powers of two next to these widths, at least 1."""
    return 2.0 ** rounded(np.log2(np.maximum(widths, 1)))
