"""Fashion-MNIST (Xiao et al., 2017) from its four idx files, packed with gzip or not."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Final

import numpy as np

from prunit.edge.data_sets import DATA_SETS
from prunit.errors import DataError
from prunit.zoo.data.raw import AnyArray, Raw, split_of

_FILES: Final = DATA_SETS["fashion-mnist"].files
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def read(folder: Path) -> Raw:
    """60,000 and 10,000 images of 1x28x28 in 10 classes."""
    x_train, y_train, x_test, y_test = (read_idx(folder / name) for name in _FILES)
    for name, x, y in ((_FILES[0], x_train, y_train), (_FILES[2], x_test, y_test)):
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y) or len(y) == 0 or y.max() >= len(CLASSES):
            raise DataError(
                f"'{folder / name}' does not go with its labels: images {x.shape}, labels {y.shape}"
                f" (wanted: one label below {len(CLASSES)} per image); fetch the files again"
            )
    return Raw(split_of(x_train[:, None], y_train), split_of(x_test[:, None], y_test), CLASSES)


def read_idx(path: Path) -> AnyArray:
    """The uint8 array in an idx file, or in `path`.gz where `path` itself is not there.

    Format: two zero bytes, the type (8 = uint8), the number of dimensions, each length as a big-endian 32-bit number.
    """
    path = path if path.is_file() else path.with_name(f"{path.name}.gz")
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as cause:
        raise DataError(f"'{path}' cannot be read: {cause}; fetch it again") from cause
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise DataError(f"'{path}' is not an idx file of bytes: it starts with {content[:4].hex(' ') or 'nothing'}")
    dimensions = content[3]
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    body = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if len(body) != math.prod(shape):
        raise DataError(f"'{path}' should hold {math.prod(shape)} bytes {shape} and holds {len(body)}; fetch it again")
    return body.reshape(shape)
