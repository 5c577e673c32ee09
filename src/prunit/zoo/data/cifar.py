"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from the pickled batches of their Python version."""

import io
import pickle
from pathlib import Path
from typing import Any, Final

import numpy as np

from prunit.edge.data_sets import DATA_SETS
from prunit.errors import DataError
from prunit.user import reason
from prunit.zoo.data.raw import Raw, split_of

_TRAIN_10: Final = DATA_SETS["cifar10"].files[:5]


def read_10(folder: Path) -> Raw:
    """50,000 and 10,000 images of 3x32x32 in 10 classes."""
    parts = [folder / name for name in _TRAIN_10]
    return _read(parts, folder / "test_batch", folder / "batches.meta", ("labels", "label_names"))


def read_100(folder: Path) -> Raw:
    """50,000 and 10,000 images of 3x32x32 in 100 (fine) classes."""
    return _read([folder / "train"], folder / "test", folder / "meta", ("fine_labels", "fine_label_names"))


def _read(train: list[Path], test: Path, meta: Path, keys: tuple[str, str]) -> Raw:
    label_key, name_key = keys
    names = unpickle(meta).get(name_key)
    if not isinstance(names, list) or not names:
        raise DataError(f"'{meta}' holds no list '{name_key}'; it is not CIFAR's: fetch the data set again")
    classes = tuple(str(name) for name in names)
    batches = [_batch(path, label_key, len(classes)) for path in train]
    x_BCHW = np.concatenate([x for x, _ in batches])
    y_B = [label for _, labels in batches for label in labels]
    return Raw(split_of(x_BCHW, y_B), split_of(*_batch(test, label_key, len(classes))), classes)


def _batch(path: Path, label_key: str, classes: int) -> tuple[np.ndarray[Any, Any], list[int]]:
    """Images x_BCHW (uint8) and labels of one file."""
    content = unpickle(path)
    data, labels = content.get("data"), content.get(label_key)
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3072 or data.dtype != np.uint8:
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"'{path}' is not a CIFAR batch: 'data' should be uint8 (N, 3072) and is {found}")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(_is_class(y, classes) for y in labels):
        raise DataError(f"'{path}' is not a CIFAR batch: '{label_key}' should hold {len(data)} classes below {classes}")
    return data.reshape(-1, 3, 32, 32), [int(label) for label in labels]


def _is_class(label: object, classes: int) -> bool:
    return isinstance(label, int | np.integer) and 0 <= int(label) < classes


def unpickle(path: Path) -> dict[str, Any]:
    """The dictionary in a CIFAR file, which may hold arrays of numbers, builtin containers, text and numbers.

    These are third-party pickles, and a pickle may call anything: every other name in it is refused.
    """
    try:
        # The files were written by Python 2, whose strings are bytes: latin1 keeps them byte by byte.
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as cause:  # a broken pickle fails with almost any error
        raise DataError(f"'{path}' cannot be read as a CIFAR file: {reason(cause)}; fetch it again") from cause
    if not isinstance(content, dict):
        raise DataError(f"'{path}' is not a CIFAR file: it holds a {type(content).__name__} instead of a dict")
    return content


def _dtype(code: str, align: object = False, copy: object = False) -> np.dtype[Any]:
    """The dtype of a whole number. The files give `align` as 0, which numpy 2.4 warns of; it has no effect here."""
    dtype = np.dtype(code)
    if dtype.kind not in "iu":
        raise pickle.UnpicklingError(f"it holds an array of {dtype}")
    return dtype


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes as Python 3 writes them in the old protocols; `encoding` is always latin1."""
    return text.encode("latin1")


_reconstruct: Any = np.empty(0).__reduce__()[0]
_scalar: Any = np.int64(0).__reduce__()[0]
_ALLOWED: Final[dict[tuple[str, str], Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # numpy 1 and Python 2
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which no CIFAR file needs")
        return _ALLOWED[module_name, global_name]
