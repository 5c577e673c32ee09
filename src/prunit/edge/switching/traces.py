"""Rates over time, read from what people have: requests (a number a second, or a time stamp each), and bandwidth."""

import bz2
import csv
import gzip
import io
import tarfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np

from prunit.errors import FileError

_STAMPS: Final = ("timestamp", "time", "end_timestamp", "start_timestamp", "arrival")
"""Columns that tell when a request came, in seconds or as a date, in lower case."""
_RATES: Final = ("requests", "rate", "rps", "requests_per_s")
"""Columns that tell how many came in each second."""
_BANDWIDTHS: Final = ("kbps", "bandwidth_kbps")


def rates_of(file: Path) -> np.ndarray:
    """Requests in each second of a trace, an array of numbers from 0.

    The file holds a number a line (requests per second), or is a CSV with a column of time stamps (one request a line)
    or of requests per second; .gz, .bz2 and .tar archives of one file are opened. Raises `FileError` for anything else.
    """
    lines = _lines(file)
    try:
        rates = _from_csv(lines) if "," in lines[0] else _numbers(lines)
    except ValueError as error:
        raise FileError(
            f"'{file}' is no trace: {error}; it takes a number of requests a second on each line, or a CSV with a"
            f" column {', '.join(_STAMPS[:3])} or {', '.join(_RATES[:3])}"
        ) from error
    return _checked(rates, file)


def _checked(rates: np.ndarray, file: Path) -> np.ndarray:
    if not np.isfinite(rates).all() or (rates < 0).any():
        raise FileError(f"the trace '{file}' holds rates that are negative or not finite")
    return rates


def _lines(file: Path) -> list[str]:
    try:
        text = _text(file)
    except FileNotFoundError as error:
        raise FileError(f"there is no trace '{file}'") from error
    except (OSError, EOFError, tarfile.TarError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read the trace '{file}': {error}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise FileError(f"the trace '{file}' is empty")
    return lines


def bandwidth_of(file: Path) -> np.ndarray:
    """Kilobits per second in each second of a recorded link.

    The file holds a number a line, or is a CSV with a column `kbps` or `bandwidth_kbps`; rows with a `duration_ms` of
    their own are put together to seconds. Of a file of several recordings (column `trace`) they follow each other.
    Raises `FileError` for anything else.
    """
    lines = _lines(file)
    try:
        if "," not in lines[0]:
            kbps = _numbers(lines)
        else:
            rows, names = _table(lines)
            column = next((names[name] for name in _BANDWIDTHS if name in names), None)
            if column is None:
                raise ValueError(f"its columns are {', '.join(names) or 'none'}")
            kbps = np.array([row[column] for row in rows], dtype=float)
            if "duration_ms" in names:
                kbps = _by_second(kbps, np.array([row[names["duration_ms"]] for row in rows], dtype=float))
    except ValueError as error:
        raise FileError(
            f"'{file}' is no trace of a bandwidth: {error}; it takes kilobits a second on each line, or a CSV with a"
            f" column {' or '.join(_BANDWIDTHS)}"
        ) from error
    return _checked(kbps, file)


def _by_second(kbps: np.ndarray, duration_ms: np.ndarray) -> np.ndarray:
    """Means over whole seconds of values that hold for a time each."""
    ends_s = np.concatenate(([0.0], np.cumsum(duration_ms) / 1000))
    carried = np.concatenate(([0.0], np.cumsum(kbps * duration_ms / 1000)))
    return np.diff(np.interp(np.arange(int(ends_s[-1]) + 1), ends_s, carried))


def arrivals_of(rates: Sequence[float] | np.ndarray, *, seed: int = 0) -> np.ndarray:
    """When requests arrive, in seconds, ascending: so many in each second, at random moments of it.

    A rate that is no whole number is rounded up or down at random, so that it holds on average.
    """
    rng = np.random.default_rng(seed)
    rates = np.asarray(rates, dtype=float)
    counts = np.floor(rates + rng.random(len(rates))).astype(np.int64)
    seconds = np.repeat(np.arange(len(counts)), counts)
    return np.sort(seconds + rng.random(len(seconds)))


def _text(file: Path) -> str:
    data = file.read_bytes()
    if tarfile.is_tarfile(io.BytesIO(data)):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            inside = [member for member in archive.getmembers() if member.isfile()]
            extracted = archive.extractfile(inside[0]) if len(inside) == 1 else None
            if extracted is None:
                raise tarfile.TarError(f"it holds {len(inside)} files instead of one")
            return extracted.read().decode("utf-8")
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    elif data[:3] == b"BZh":
        data = bz2.decompress(data)
    return data.decode("utf-8")


def _numbers(lines: list[str]) -> np.ndarray:
    return np.array(" ".join(lines).split(), dtype=float)


def _table(lines: list[str]) -> tuple[list[dict[str, str]], dict[str, str]]:
    """The rows of a CSV, and its columns by their names in lower case."""
    rows = list(csv.DictReader(lines))
    return rows, {name.strip().lower(): name for name in (rows[0] if rows else {}) if name}


def _from_csv(lines: list[str]) -> np.ndarray:
    rows, names = _table(lines)
    rate = next((names[name] for name in _RATES if name in names), None)
    if rate is not None:
        return np.array([row[rate] for row in rows], dtype=float)
    stamp = next((names[name] for name in _STAMPS if name in names), None)
    if stamp is None:
        raise ValueError(f"its columns are {', '.join(names) or 'none'}")
    times = np.array([_seconds(row[stamp]) for row in rows])
    return np.bincount((times - times.min()).astype(np.int64)).astype(float)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        head, _, fraction = text.strip().partition(".")
        # Some traces have seven digits of a second, one more than dates here take.
        return datetime.fromisoformat(head).timestamp() + float(f"0.{fraction.rstrip('Z') or 0}")
