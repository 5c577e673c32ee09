"""Images from disk in batches, decoded by threads ahead of the engine, never more than a few batches at once."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.edge.pixels import Fit
from prunit.edge.reading import Files
from prunit.edge.reading.photos import Problem, filled

AHEAD: Final = 2
"""Batches that are decoded, or being so, besides the one that is used."""
_PART: Final = 8
"""Files per task of a decoding thread."""
_Target = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images of consecutive files, without those that cannot be used, and these."""

    index: tuple[int, ...]
    """Which of the files they are."""
    x_BCHW: npt.NDArray[np.uint8]
    targets: npt.NDArray[Any]
    """As the task takes them, (B, …)."""
    problems: tuple[Problem, ...]


def batches(
    files: Files, shape: tuple[int, int, int], fit: Fit, *, batch: int, threads: int
) -> Generator[Batch, None, None]:
    """All files in their order, `batch` at a time, as images of `shape` (C, H, W; one channel is grey).

    Decoders share the work by a few files each. Whoever reads the batches slowly makes them wait.
    """
    starts = iter(range(0, len(files), batch))
    waiting: deque[_Begun] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prunit-decode")
    try:
        while True:
            while len(waiting) <= AHEAD and (start := next(starts, None)) is not None:
                waiting.append(_begin(pool, files, range(start, min(start + batch, len(files))), shape, fit))
            if not waiting:
                return
            yield _end(waiting.popleft(), files)
    finally:
        # Also where nobody wants the rest.
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, eq=False)
class _Begun:
    indices: range
    x_BCHW: npt.NDArray[np.uint8]
    parts: list["Future[list[_Target | Problem]]"]


def _begin(pool: ThreadPoolExecutor, files: Files, indices: range, shape: tuple[int, int, int], fit: Fit) -> _Begun:
    x_BCHW = np.empty((len(indices), *shape), np.uint8)

    def fill(start: int) -> list[_Target | Problem]:
        end = min(start + _PART, len(indices))
        return [filled(x_BCHW[i], files, indices[i], fit) for i in range(start, end)]

    return _Begun(indices, x_BCHW, [pool.submit(fill, start) for start in range(0, len(indices), _PART)])


def _end(begun: _Begun, files: Files) -> Batch:
    found = [one for part in begun.parts for one in part.result()]
    problems = tuple(one for one in found if isinstance(one, Problem))
    targets = [one for one in found if not isinstance(one, Problem)]
    whole = [i for i, one in enumerate(found) if not isinstance(one, Problem)]
    x_BCHW = begun.x_BCHW[whole] if problems else begun.x_BCHW
    return Batch(tuple(begun.indices[i] for i in whole), x_BCHW, files.targets.together(targets), problems)
