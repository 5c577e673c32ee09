"""How far a piece on another node is, written down where its folder is; and one process at a time for a piece."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from prunit.errors import ConfigError
from prunit.recipe.lock import holding

_PATIENCE_S: Final = 60.0
"""How long a process that was given up may take to end."""


class Written:
    """What a piece tells, in a file: the last step, and all warnings."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._told: dict[str, Any] = {"logs": []}

    def __call__(self, message: Mapping[str, Any]) -> None:
        """Write it down. That a disk refuses is no reason to stop a training."""
        if "log" in message:
            self._told["logs"].append(message["log"])
        else:
            self._told.update(message)
        new = self.file.with_suffix(".new")
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(self._told))
            new.replace(self.file)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside, no other process does the piece that the folder is for: one that was given up may still be ending."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        held = holding(folder, what="piece", shown=folder)
        try:
            held.__enter__()
            break
        except ConfigError:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)
    try:
        yield
    finally:
        held.__exit__(None, None, None)
