"""One process at a time in a folder: a lock that the system takes back when its holder ends, however it ends.

The lock is on an open file (flock, or on Windows a byte far behind its end), not the file itself: after `kill -9` or a
power cut the file lies there and is free. What it says of its holder is for people. On a file system that cannot lock,
as some network mounts, and between machines that share one without a lock service, nobody is kept out.
"""

import errno
import json
import os
import platform
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from prunit.errors import ConfigError, FileError

LOCK: Final = ".lock"
"""The file, in the folder that is held."""
_HELD: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
"""What the system says where another one holds a lock; all else means that it cannot lock here."""
_PATIENCE_S: Final = 0.5
"""Someone who only looks whether a folder is free holds it for a moment."""


@contextmanager
def holding(folder: Path, *, what: str, shown: Path) -> Generator[None, None, None]:
    """Inside, `folder` is this process's alone; it is made if it is not there.

    `what` is going on in it ('build', 'sweep'); `shown` is the folder as the user knows it. Raises `ConfigError`, which
    tells the holder and leaves the folder as it is, or `FileError` where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise FileError(f"cannot use '{shown}': {error.strerror}; choose another folder (--out)") from error
    owner = os.getpid()
    try:
        if not _taken(descriptor, _PATIENCE_S):
            raise ConfigError(_told(descriptor, what, shown))
        about = {"pid": owner, "host": platform.node(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"}
        with suppress(OSError):  # on a full disk the lock holds without its label
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(about).encode())
        _OPEN.add(descriptor)
        yield
    finally:
        if os.getpid() == owner:  # in a process forked meanwhile the descriptor is closed, see below
            if descriptor in _OPEN:
                _OPEN.discard(descriptor)
                with suppress(OSError):
                    os.ftruncate(descriptor, 0)
                _let_go(descriptor)
            os.close(descriptor)


def check_free(folder: Path, *, what: str, shown: Path) -> None:
    """Raise `ConfigError`, which tells the holder, if the folder is held; nothing is written."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR)
    except OSError:  # nobody was here; or who comes later will hear why it cannot be written
        return
    try:
        if not _taken(descriptor, 0):
            raise ConfigError(_told(descriptor, what, shown))
        _let_go(descriptor)
    finally:
        os.close(descriptor)


def _told(descriptor: int, what: str, shown: Path) -> str:
    found: Any = {}
    with suppress(OSError, ValueError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        found = json.loads(os.read(descriptor, 4096))
    try:
        who = f"process {int(found['pid'])} on {found['host']} since {found['since']}"
        mine = int(found["pid"]) == os.getpid() and found["host"] == platform.node()
    except (KeyError, TypeError, ValueError):
        who, mine = "another process", False
    who = f"this process itself, since {found['since']}" if mine else who
    return (
        f"'{shown}' is in use: a {what} is running in it, by {who}; wait until it ends, or stop it and go on with "
        "--resume, or choose another folder (--out)"
    )


def _taken(descriptor: int, patience_s: float) -> bool:
    """Whether the lock is ours now, or this file system has none."""
    until = time.monotonic() + patience_s
    while True:
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno not in _HELD:
                return True
        else:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.02)


if sys.platform == "win32":
    import msvcrt

    _FAR: Final = 1 << 30
    """A locked byte cannot be read by others; the label can."""

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

    def _let_go(descriptor: int) -> None:
        with suppress(OSError):
            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _let_go(descriptor: int) -> None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


_OPEN: Final[set[int]] = set()
"""Of locks that this process holds."""


def _close_all() -> None:
    """In a process just forked: it would keep the lock after its parent was killed."""
    for descriptor in _OPEN:
        with suppress(OSError):
            os.close(descriptor)
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
