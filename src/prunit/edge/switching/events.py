"""What a `Switcher` tells of: events, remembered and written to a log where something went wrong."""

import json
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

LOG: Final = "events.jsonl"
"""Beside the installed form: what went wrong on this device, a line each."""
_LONGEST_BYTES: Final = 1 << 18
_EVENTS: Final = 1000
"""So many of the last events are kept."""
WRONG: Final = ("failed", "note", "install", "refused", "rerouted")
"""Kinds that are told once for each reason, and written to the log that `prunit inspect` shows."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a variant.

    `kind` is switched, loaded, evicted, failed, note, install, reloaded, refused or rerouted: it goes on in another
    engine. `ms` is how long it took: of a switch from the wish to the new variant being active. `engine` is that of a
    variant that was opened or switched to.
    """

    at: float
    kind: str
    variant: str
    why: str = ""
    ms: float = 0.0
    engine: str = ""


class Journal:
    """The last events, from any thread; what went wrong is told once for each reason, and written to a log."""

    def __init__(self, file: Path, on_event: Callable[[Event], None] | None = None) -> None:
        self._file, self._on_event, self._lock = file, on_event, threading.Lock()
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self._told: set[tuple[str, str, str]] = set()

    @property
    def events(self) -> tuple[Event, ...]:
        """The oldest first."""
        with self._lock:
            return tuple(self._events)

    def note(self, event: Event) -> None:
        """Remember what happened."""
        told = (event.kind, event.variant, event.why)
        with self._lock:
            if told in self._told:
                return
            if event.kind in WRONG:
                self._told.add(told)
            self._events.append(event)
        if event.kind in WRONG:
            log_event(self._file, event)
        if self._on_event:
            self._on_event(event)

    def forget(self, variant: str) -> None:
        """Tell the same of this variant again: it is another one now."""
        with self._lock:
            self._told = {told for told in self._told if told[1] != variant}


def log_event(file: Path, event: Event) -> None:
    """Add a line to a log that stays below a quarter of a megabyte; if it cannot be written nothing happens."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.stat().st_size > _LONGEST_BYTES:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            file.write_text("".join(lines[len(lines) // 2 :]), encoding="utf-8")
        with file.open("a", encoding="utf-8") as log:
            log.write(json.dumps(asdict(event)) + "\n")


def read_events(file: Path) -> list[Event]:
    """The events of a log, the oldest first; lines that are damaged are passed over."""
    found: list[Event] = []
    with suppress(OSError, UnicodeDecodeError):
        for line in file.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError):
                found.append(Event(**json.loads(line)))
    return found
