"""What a `Switcher` is asked for, what it answers, and what it tells of."""

import threading
from dataclasses import dataclass
from typing import NamedTuple

from prunit.edge.portfolio import Variant
from prunit.edge.session import Array, Session
from prunit.errors import PrunitError


class Answer(NamedTuple):
    """The output for a batch, and the variant that gave it."""

    output: Array
    variant: str


@dataclass(frozen=True)
class Event:
    """Something that happened to a variant: `kind` is switched, loaded, evicted, failed, note or install.

    `ms` is how long it took: of a switch from the wish to the new variant being active.
    """

    at: float
    kind: str
    variant: str
    why: str = ""
    ms: float = 0.0


class Wish:
    """A switch that was asked for; `wait` says when it is over."""

    def __init__(self, variant: str, asked_ns: int) -> None:
        self.variant, self.asked_ns = variant, asked_ns
        self.error: PrunitError | None = None
        self.ms = 0.0
        """From the wish to the variant being active."""
        self._done = threading.Event()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether the switch is over, after waiting for it; it has failed if `error` is set."""
        return self._done.wait(timeout_s)

    def end(self, *, ms: float = 0.0, error: PrunitError | None = None) -> None:
        """Over: done, or not to be done."""
        self.ms, self.error = ms, error
        self._done.set()


class Held:
    """An open session and how many requests it answers right now."""

    def __init__(self, variant: Variant, session: Session) -> None:
        self.variant, self.session, self.users = variant, session, 0


def bytes_of(variant: Variant) -> int:
    """What a variant takes while it is open, by the manifest."""
    return variant.metrics.peak_memory_bytes or variant.metrics.weight_bytes
