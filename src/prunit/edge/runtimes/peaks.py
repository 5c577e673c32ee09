"""When an engine should give back the memory that a large batch took."""

from typing import Final

PATIENCE: Final = 100
"""Answers to small batches: a large one that comes after memory was given back takes longer, by up to a third."""
_MUCH: Final = 4


class Peak:
    """The largest batch that a session holds memory for, and how many much smaller ones it has answered since.

    Engines keep what they have taken: after one batch of 32 images a session that answers single ones holds memory for
    32 until it ends. Calls from several threads may lose count, which delays what is to be done and does no harm.
    """

    def __init__(self) -> None:
        self._largest = self._recent = self._small = 0

    def over(self, batch: int) -> bool:
        """Counts a batch; true for one after which memory is to be given back: of 100 in a row none was large."""
        if batch * _MUCH > self._largest:
            self._largest = max(self._largest, batch)
            self._recent = self._small = 0
            return False
        self._recent = max(self._recent, batch)
        self._small += 1
        if self._small < PATIENCE:
            return False
        self._largest, self._recent, self._small = self._recent, 0, 0
        return True
