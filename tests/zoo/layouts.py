"""Tiny made-up data sets in the layouts in which the real ones are found on disk."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def write_cifar10(data_dir: Path, per_batch: int = 20) -> np.ndarray:
    """Five training batches and a test batch; the images of the first training batch, (N, 3072)."""
    folder = data_dir / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    images = [random.integers(0, 256, (per_batch, 3072), np.uint8) for _ in names]
    for name, x in zip(names, images, strict=True):
        batch = {"data": x, "labels": [i % 10 for i in range(per_batch)], "batch_label": name}
        # Protocol 2 is that of the real files, which Python 2 wrote.
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {"label_names": [f"class {i}" for i in range(10)], "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return images[0]


def write_cifar100(data_dir: Path) -> None:
    folder = data_dir / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, n in (("train", 200), ("test", 100)):
        batch = {"data": np.full((n, 3072), 7, np.uint8), "fine_labels": [i % 100 for i in range(n)]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=4))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"fine {i}" for i in range(100)]}, protocol=4))


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion_mnist(data_dir: Path, *, packed: bool) -> None:
    folder = data_dir / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, n in (("train", 30), ("t10k", 10)):
        images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 28, 28)).copy()
        labels = (np.arange(n) % 10).astype(np.uint8)
        for what, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx_bytes(array)
            name = f"{part}-{what}-ubyte"
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


def save_image(path: Path, size: tuple[int, int] = (10, 10), color: tuple[int, int, int] = (0, 0, 0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
