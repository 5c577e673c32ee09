"""Checkpoints: refused when they are another training's or damaged, and never lost to a failed write."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prunit.batches import Dataset, Split
from prunit.errors import FileError
from prunit.train import Epoch, TrainConfig, fitted_to, train
from prunit.train.checkpoint import State, fingerprint, load, save
from tests.train.toys import Small, small, stripes

CONFIG = TrainConfig(epochs=2, batch_size=16, device="cpu")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The checkpoint of a finished training of the default toy."""
    path = tmp_path / "run.safetensors"
    list(train(small(), stripes(), CONFIG, checkpoint=path))
    return path


@contextmanager
def files_up_to(limit_bytes: int) -> Iterator[None]:
    """Inside, the system refuses to write more to a file, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    tensors = {
        "model.a": torch.randn(3, 2),
        "model.n": torch.tensor(7),
        "model.h": torch.ones(2, dtype=torch.bfloat16),
        "momentum.none": torch.zeros(0),
    }
    state = State(tensors, (Epoch(1, 2, 1 / 3, 0.1, 0.7, 1e-17, 2.5),), {"scale": 65536.0})
    mark = fingerprint(small(), stripes(), fitted_to(CONFIG, stripes()))
    save(tmp_path / "x", state, mark)
    again = load(tmp_path / "x", mark)
    assert again is not None
    assert (again.history, again.scaler) == (state.history, state.scaler)
    assert again.tensors.keys() == tensors.keys()
    assert all(torch.equal(again.tensors[name], tensors[name]) for name in tensors)
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert load(tmp_path / "missing", {}) is None


def relabelled(dataset: Dataset) -> Dataset:
    return replace(dataset, train=Split(dataset.train.x_BCHW, dataset.train.y_B.flip(0)))


@pytest.mark.parametrize(
    ("model", "dataset", "config", "message"),
    [
        (small(), stripes(), CONFIG.model_copy(update={"epochs": 3}), "setting 'epochs' is 2 there and 3 here"),
        (small(), stripes(), CONFIG.model_copy(update={"lr": 0.1}), "setting 'lr' is 0.2 there and 0.1 here"),
        (small(7), stripes(), CONFIG, r"tensor 'conv1.weight' is \(6, 1, 3, 3\) float32 there and \(7, 1, 3, 3\)"),
        (small(), replace(stripes(), name="dots"), CONFIG, "data 'name' is stripes there and dots here"),
        (small(), stripes(49), CONFIG, "data 'training images' is 50 there and 49 here"),
        (small(), relabelled(stripes()), CONFIG, "data 'digest of the labels' is"),
    ],
)
def test_another_training_s_checkpoint_is_refused(
    path: Path, model: Small, dataset: Dataset, config: TrainConfig, message: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(FileError, match=f"belongs to another training: {message}.*; remove the file, or do not resume"):
        next(train(model, dataset, config, checkpoint=path))
    assert path.read_bytes() == before


def test_an_extra_layer_is_a_difference(path: Path) -> None:
    model = small()
    model.register_buffer("more", torch.zeros(2))
    with pytest.raises(FileError, match=r"tensor 'more' is missing there and \(2,\) float32 here"):
        next(train(model, stripes(), CONFIG, checkpoint=path))


def test_where_it_runs_may_change(path: Path) -> None:
    elsewhere = CONFIG.model_copy(update={"device": "auto", "channels_last": False})
    assert len(list(train(small(), stripes(), elsewhere, checkpoint=path))) == 2


def test_a_default_and_its_value_are_the_same_training(path: Path) -> None:
    spelled = CONFIG.model_copy(update={"lr": 0.2, "weight_decay": 5e-4, "label_smoothing": 0.1})
    assert len(list(train(small(), stripes(), spelled, checkpoint=path))) == 2


def flipped(whole: bytes) -> bytes:
    return whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"", "cannot be read"),
        (b"not a checkpoint at all", "cannot be read"),
        (lambda whole: whole[: len(whole) // 2], "cannot be read"),
        (lambda whole: whole[:-1], "cannot be read"),
        (flipped, "is damaged"),
    ],
    ids=["empty", "text", "half", "short", "one bit"],
)
def test_a_broken_checkpoint_is_named_and_kept(path: Path, broken: object, message: str) -> None:
    content = broken(path.read_bytes()) if callable(broken) else broken
    assert isinstance(content, bytes)
    path.write_bytes(content)
    with pytest.raises(FileError, match=f"'{path}' {message}.*: remove it to train from the start"):
        next(train(small(), stripes(), CONFIG, checkpoint=path))
    assert path.read_bytes() == content


def test_another_safetensors_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(FileError, match=f"'{path}' is not a prunit training checkpoint"):
        next(train(small(), stripes(), CONFIG, checkpoint=path))


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=f"the checkpoint '{tmp_path}' cannot be read"):
        next(train(small(), stripes(), CONFIG, checkpoint=tmp_path))


def test_a_path_through_a_file_is_found_before_training(path: Path) -> None:
    steps: list[int] = []
    with pytest.raises(FileError, match=r"cannot read the checkpoint .*run\.safetensors/x': Not a directory"):
        next(train(small(), stripes(), CONFIG, checkpoint=path / "x", on_step=lambda done, _: steps.append(done)))
    assert steps == []


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    epochs = train(small(), stripes(), CONFIG, checkpoint=path)
    next(epochs)
    before = path.read_bytes()
    with (
        files_up_to(1000),
        pytest.raises(FileError, match=r"cannot write '.*run\.safetensors': File too"),
    ):
        next(epochs)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert len(list(train(small(), stripes(), CONFIG, checkpoint=path))) == 2
