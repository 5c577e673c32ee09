"""`ImageFiles`: images read from disk whenever they are asked for, in the place of a tensor that holds all of them."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from prunit.edge.pixels import Fit, opened, placed
from prunit.errors import DataError

PART: Final = 8
"""Files per task of a decoding thread."""
THREADS: Final = min(8, os.cpu_count() or 1)
Index = slice | Tensor | Sequence[int]


class ImageFiles:
    """Images of `size` x `size` pixels, used as x_BCHW (uint8): what is indexed is decoded, and not kept.

    It stays on the CPU wherever it is sent; batches taken from it are ordinary tensors. `taken` chooses images
    without reading them.
    """

    dtype: Final = torch.uint8
    device: Final = torch.device("cpu")
    ndim: Final = 4
    nbytes: Final = 0
    """Of memory."""

    def __init__(self, paths: Sequence[Path], size: int, fit: Fit) -> None:
        self.paths = tuple(paths)
        self.size = size
        self.fit: Fit = fit

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.paths), 3, self.size, self.size))

    def __repr__(self) -> str:
        return f"ImageFiles({tuple(self.shape)}, read from disk as needed)"

    def __getitem__(self, index: int | Index) -> Tensor:
        """The images at these places (B, C, H, W), decoded by several threads; of one number the image (C, H, W)."""
        if isinstance(index, int):
            return self._read([self.paths[index]])[0]
        return self._read(self.taken(index).paths)

    def taken(self, index: Index) -> "ImageFiles":
        """Some of the images, not read."""
        if isinstance(index, slice):
            return ImageFiles(self.paths[index], self.size, self.fit)
        if isinstance(index, Tensor):
            index = (index.nonzero().flatten() if index.dtype == torch.bool else index).tolist()
        return ImageFiles([self.paths[i] for i in index], self.size, self.fit)

    def split(self, batch: int) -> Iterator[Tensor]:
        """All images in batches of so many; while one is used, the next is read."""
        parts = [self.paths[start : start + batch] for start in range(0, len(self), batch)]
        with ThreadPoolExecutor(THREADS) as pool:
            waiting = [self._begin(pool, part) for part in parts[:1]]
            for i in range(len(parts)):
                if i + 1 < len(parts):
                    waiting.append(self._begin(pool, parts[i + 1]))
                yield self._end(*waiting.pop(0))

    def to(self, device: torch.device | str) -> "ImageFiles":
        return self

    def cpu(self) -> "ImageFiles":
        return self

    def _read(self, paths: Sequence[Path]) -> Tensor:
        with ThreadPoolExecutor(THREADS) as pool:
            return self._end(*self._begin(pool, paths))

    def _begin(self, pool: ThreadPoolExecutor, paths: Sequence[Path]) -> tuple[Tensor, list[Future[None]]]:
        x_BCHW = np.empty((len(paths), 3, self.size, self.size), np.uint8)

        def fill(start: int) -> None:
            for i in range(start, min(start + PART, len(paths))):
                try:
                    with opened(paths[i]) as image:
                        x_BCHW[i] = placed(image, (self.size, self.size), fit=self.fit)[0]
                except Exception as cause:  # decoders fail in many ways; all files were whole when they were listed
                    reason = " ".join(str(cause).split()) or type(cause).__name__
                    raise DataError(f"broken image: '{paths[i]}' ({reason}); it could be read before") from cause

        return torch.from_numpy(x_BCHW), [pool.submit(fill, start) for start in range(0, len(paths), PART)]

    def _end(self, x_BCHW: Tensor, parts: list[Future[None]]) -> Tensor:
        for part in parts:
            part.result()
        return x_BCHW
