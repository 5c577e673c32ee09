"""A switch that was asked for, and what came of it."""

import threading

from prunit.errors import PrunitError


class Wish:
    """A switch that was asked for; `wait` says when it is over."""

    def __init__(self, variant: str, asked_ns: int, why: str = "") -> None:
        self.variant, self.asked_ns, self.why = variant, asked_ns, why
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
