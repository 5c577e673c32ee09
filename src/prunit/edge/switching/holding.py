"""`Holding`: the open sessions of a `Switcher`, how many of them may stay open, and what is told of them."""

import gc
import threading
import time
from collections import OrderedDict

from prunit.edge.portfolio import Variant
from prunit.edge.session import Held
from prunit.edge.switching.events import Event, Journal
from prunit.errors import ConfigError


class Holding:
    """Open variants within limits: `resident` of them at most, and `memory_bytes` by the manifest's figures."""

    _active: Held
    """The one that answers; it is never closed."""

    def __init__(self, resident: int | None, memory_bytes: int | None, journal: Journal) -> None:
        if resident is not None and resident < 1:
            raise ConfigError(f"resident={resident}: at least the active variant has to stay")
        self._resident, self._memory_bytes, self._journal = resident, memory_bytes, journal
        self._lock = threading.RLock()  # whoever is told of an event may ask for more
        self._held: OrderedDict[str, Held] = OrderedDict()
        """Open variants, the longest unused one first."""
        self._retired: list[Held] = []
        """Those that are closed as soon as they have answered."""

    @property
    def residents(self) -> tuple[str, ...]:
        """The variants that are open, the longest unused one first."""
        with self._lock:
            return tuple(self._held)

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened, the oldest first."""
        return self._journal.events

    def _evict(self) -> None:
        """Close what the limits do not allow, the longest unused first, and what was put aside, but the active one."""
        with self._lock:
            while self._too_many() and (oldest := self._oldest()) is not None:
                self._retired.append(self._held.pop(oldest))
                self._note("evicted", oldest)
            ready = [held for held in self._retired if not held.users]
            self._retired = [held for held in self._retired if held.users]
        for held in ready:  # outside of the lock: closing a large session takes as long as many answers
            held.session.close()
        if ready:
            gc.collect(0)

    def _too_many(self, more: int = 0, more_bytes: int = 0) -> bool:
        if self._resident is not None and len(self._held) + more > self._resident:
            return True
        total = sum(held.variant.metrics.open_bytes for held in self._held.values()) + more_bytes
        return self._memory_bytes is not None and total > self._memory_bytes

    def _room_for(self, variant: Variant) -> bool:
        with self._lock:
            return variant.name in self._held or not self._too_many(1, variant.metrics.open_bytes)

    def _oldest(self) -> str | None:
        return next((name for name, held in self._held.items() if held is not self._active), None)

    def _note(self, kind: str, variant: str, why: str = "", ms: float = 0.0, engine: str = "") -> None:
        self._journal.note(Event(time.time(), kind, variant, why, ms, engine))
