"""Data sets with a name: reading their usual files, and what is said when those are missing or broken."""

import gzip
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunit.errors import ConfigError, DataError, MissingExtraError, UnknownNameError
from prunit.zoo import data
from prunit.zoo.data.cifar import unpickle
from tests.zoo.layouts import idx_bytes, write_cifar10, write_cifar100, write_fashion_mnist


def test_cifar10_from_its_pickled_batches(tmp_path: Path) -> None:
    first = write_cifar10(tmp_path)
    loaded = data.load("cifar10", data_dir=tmp_path)
    assert loaded.name == "cifar10"
    assert loaded.train.x_BCHW.shape == (100, 3, 32, 32)
    assert loaded.test.x_BCHW.shape == (20, 3, 32, 32)
    assert loaded.classes == tuple(f"class {i}" for i in range(10))
    assert loaded.train.y_B.tolist() == [i % 10 for _ in range(5) for i in range(20)]
    assert np.array_equal(loaded.train.x_BCHW[:20].numpy().reshape(20, 3072), first)
    assert loaded.flip


def test_cifar100_has_the_fine_classes(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    loaded = data.load("cifar100", data_dir=tmp_path)
    assert len(loaded.classes) == 100
    assert loaded.test.y_B.tolist() == list(range(100))
    assert loaded.train.x_BCHW.unique().tolist() == [7]


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist_from_idx_files_packed_or_not(tmp_path: Path, packed: bool) -> None:
    write_fashion_mnist(tmp_path, packed=packed)
    loaded = data.load("fashion-mnist", data_dir=tmp_path)
    assert loaded.train.x_BCHW.shape == (30, 1, 28, 28)
    assert loaded.test.x_BCHW.shape == (10, 1, 28, 28)
    assert loaded.train.x_BCHW[:, 0, 3, 5].tolist() == list(range(30))
    assert loaded.test.y_B.tolist() == list(range(10))
    assert loaded.classes[9] == "ankle boot"


def test_digits_come_without_files() -> None:
    loaded = data.load("digits")
    assert loaded.train.x_BCHW.shape == (1437, 1, 8, 8)
    assert loaded.test.x_BCHW.shape == (360, 1, 8, 8)
    assert int(loaded.train.x_BCHW.max()) == 255
    assert loaded.test.y_B.bincount().tolist() == [36] * 10
    assert not loaded.flip
    assert torch.equal(loaded.test.x_BCHW, data.load("digits", seed=9).test.x_BCHW)


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"data set 'digits' needs the package 'scikit-learn'"):
        data.load("digits")


def test_mean_and_deviation_are_those_of_the_training_pixels() -> None:
    loaded = data.load("digits")
    pixels = loaded.train.x_BCHW.double() / 255
    assert loaded.mean_C == pytest.approx((float(pixels.mean()),), abs=1e-12)
    assert loaded.std_C == pytest.approx((float(pixels.std(correction=0)),), abs=1e-12)
    x_BCHW = loaded.normalise(loaded.train.x_BCHW)
    assert float(x_BCHW.mean()) == pytest.approx(0, abs=1e-5)


def test_a_constant_channel_can_still_be_normalised(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    loaded = data.load("cifar100", data_dir=tmp_path)
    assert torch.isfinite(loaded.normalise(loaded.test.x_BCHW)).all()


def test_a_subset_has_as_many_of_each_class_and_depends_on_the_seed() -> None:
    one, same, other = (data.load("digits", subset=50, seed=seed) for seed in (1, 1, 2))
    assert one.train.y_B.bincount().tolist() == [5] * 10
    assert len(one.test) == 360
    assert torch.equal(one.train.x_BCHW, same.train.x_BCHW)
    assert not torch.equal(one.train.x_BCHW, other.train.x_BCHW)
    assert len(data.load("digits", subset=10**6).train) == 1437


def test_images_are_resized_on_wish() -> None:
    loaded = data.load("digits", image_size=16, subset=20)
    assert loaded.train.x_BCHW.shape == (20, 1, 16, 16)
    assert loaded.test.x_BCHW.shape == (360, 1, 16, 16)
    assert loaded.train.x_BCHW.dtype == torch.uint8
    small = data.load("digits", subset=20).train.x_BCHW.float().mean()
    assert float(loaded.train.x_BCHW.float().mean()) == pytest.approx(float(small), abs=2)


def test_images_too_large_for_memory_are_refused() -> None:
    message = r"'digits' would need 17\.0 GB .* \(1437 training and 360 test images at 3072x3072\), .* --image-size"
    with pytest.raises(DataError, match=message):
        data.load("digits", image_size=3072)


def test_the_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion_mnist(tmp_path / "data", packed=True)
    monkeypatch.setenv("PRUNIT_DATA", str(tmp_path / "data"))
    assert len(data.load("fashion-mnist").test) == 10
    monkeypatch.delenv("PRUNIT_DATA")
    monkeypatch.chdir(tmp_path)
    assert len(data.load("fashion-mnist").test) == 10


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", r"'cifar10': no data_batch_1, .*, batches\.meta in '.*cifar-10-batches-py'; .* --download"),
        ("cifar100", r"'cifar100': no train, test, meta in '.*cifar-100-python'; .*PRUNIT_DATA, or .* --download"),
        ("fashion-mnist", r"'fashion-mnist': no train-images-idx3-ubyte, .* in '.*FashionMNIST/raw'; .* --download"),
        ("tiny-imagenet", r"'tiny-imagenet': no folder tiny-imagenet-200 .* in '.*'; unpack http"),
    ],
)
def test_a_missing_set_says_where_it_was_looked_for(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.load(name, data_dir=tmp_path)


def test_one_missing_file_is_named_alone(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"'cifar10': no data_batch_3 in"):
        data.load("cifar10", data_dir=tmp_path)


class Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch PWNED",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    write_cifar10(tmp_path)
    monkeypatch.chdir(tmp_path)
    bad = {"data": Malicious(), "labels": [0]}
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps(bad, protocol=protocol))
    with pytest.raises(DataError, match=r"data_batch_2' cannot be read .*posix\.system, which no CIFAR file needs"):
        data.load("cifar10", data_dir=tmp_path)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("name", [b"cbuiltins\neval\n(S'1'\ntR.", b"cnumpy\nload\n(S'x'\ntR.", b"cos\nsystem\n."])
def test_no_other_name_can_be_reached(tmp_path: Path, name: bytes) -> None:
    (tmp_path / "x").write_bytes(name)
    with pytest.raises(DataError, match=r"it asks for \w+\.\w+, which no CIFAR file needs"):
        unpickle(tmp_path / "x")


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps({"data": np.array([None])}, protocol=2))
    with pytest.raises(DataError, match=r"it holds an array of object"):
        unpickle(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"data_batch_1' cannot be read as a CIFAR file: EOFError.*fetch it again"),
        (pickle.dumps([1]), r"data_batch_1' is not a CIFAR file: it holds a list"),
        (pickle.dumps({}), r"'data' should be uint8 \(N, 3072\) and is NoneType"),
        (pickle.dumps({"data": np.zeros((2, 5), np.uint8)}, 2), r"'data' should be .* and is uint8 \(2, 5\)"),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 10]}, 2),
            r"'labels' should hold 2 classes below 10",
        ),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, 2), r"'labels' should hold 2 classes"),
    ],
)
def test_a_broken_cifar_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match=message):
        data.load("cifar10", data_dir=tmp_path)


def test_a_cifar_file_cut_short_is_named(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"test_batch' cannot be read as a CIFAR file"):
        data.load("cifar10", data_dir=tmp_path)


def test_cifar_without_class_names(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({"label_names": []}))
    with pytest.raises(DataError, match=r"batches\.meta' holds no list 'label_names'"):
        data.load("cifar10", data_dir=tmp_path)


IMAGES = np.zeros((3, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "train-images-idx3-ubyte",
            b"",
            r"idx3-ubyte' is not an idx file of bytes: it starts with nothing",
        ),
        ("train-images-idx3-ubyte", b"\0\0\x0d\x01", r"is not an idx file of bytes: it starts with 00 00 0d 01"),
        ("train-images-idx3-ubyte", idx_bytes(IMAGES)[:-1], r"should hold 2352 bytes \(3, 28, 28\) and holds 2351"),
        ("train-images-idx3-ubyte", idx_bytes(IMAGES), r"does not go with its labels: images \(3, .* labels \(30,\)"),
        ("t10k-labels-idx1-ubyte", idx_bytes(np.full(10, 10, np.uint8)), r"t10k-images.*one label below 10 per image"),
        ("t10k-labels-idx1-ubyte", None, r"t10k-labels-idx1-ubyte\.gz' cannot be read: Not a gzipped file"),
    ],
)
def test_a_broken_idx_file_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    write_fashion_mnist(tmp_path, packed=False)
    path = tmp_path / "FashionMNIST" / "raw" / name
    if content is None:
        path.unlink()
        path.with_name(f"{name}.gz").write_bytes(b"not gzip")
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        data.load("fashion-mnist", data_dir=tmp_path)


def test_a_gz_cut_short_is_named(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, packed=True)
    path = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(IMAGES))[:-4])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz' cannot be read: Compressed file ended"):
        data.load("fashion-mnist", data_dir=tmp_path)


def test_an_unknown_set_names_the_nearest_and_the_other_forms() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown data set 'cifar11'; did you mean 'cifar10'\?.*Or a folder"):
        data.load("cifar11")


@pytest.mark.parametrize(("subset", "image_size"), [(0, None), (None, 0)])
def test_a_size_below_one_is_refused(subset: int | None, image_size: int | None) -> None:
    with pytest.raises(ConfigError, match=r"(subset|image_size)=0 for data set 'digits': it must be at least 1"):
        data.load("digits", subset=subset, image_size=image_size)


def test_every_set_has_one_line() -> None:
    about = data.datasets()
    assert set(about) == {"cifar10", "cifar100", "digits", "fashion-mnist", "tiny-imagenet"}
    assert all(line and "\n" not in line for line in about.values())


Place = Callable[[str], Path]


@pytest.mark.data
def test_the_real_cifar10(real_data: Place) -> None:
    loaded = data.load("cifar10", data_dir=real_data("cifar-10-batches-py"))
    assert loaded.train.x_BCHW.shape == (50_000, 3, 32, 32)
    assert loaded.train.y_B.bincount().tolist() == [5000] * 10
    assert loaded.test.y_B[:5].tolist() == [3, 8, 8, 0, 6]
    assert loaded.classes[3] == "cat"
    assert loaded.mean_C == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.003)
    assert loaded.std_C == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.003)


@pytest.mark.data
def test_the_real_cifar100(real_data: Place) -> None:
    loaded = data.load("cifar100", data_dir=real_data("cifar-100-python"))
    assert loaded.train.x_BCHW.shape == (50_000, 3, 32, 32)
    assert loaded.train.y_B.bincount().tolist() == [500] * 100


@pytest.mark.data
def test_the_real_fashion_mnist(real_data: Place) -> None:
    loaded = data.load("fashion-mnist", data_dir=real_data("FashionMNIST/raw"))
    assert loaded.train.x_BCHW.shape == (60_000, 1, 28, 28)
    assert loaded.train.y_B[:5].tolist() == [9, 0, 0, 3, 0]
    assert loaded.mean_C == pytest.approx((0.286,), abs=0.003)


@pytest.mark.data
def test_the_real_tiny_imagenet(real_data: Place) -> None:
    loaded = data.load("tiny-imagenet", data_dir=real_data("tiny-imagenet*"))
    assert loaded.train.x_BCHW.shape[1:] == (3, 64, 64)
    assert set(loaded.train.y_B.bincount().tolist()) == {500}
    assert set(loaded.test.y_B.bincount().tolist()) == {50}
