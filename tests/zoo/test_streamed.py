"""Images that stay on disk."""

from pathlib import Path

import pytest
import torch
from torch import nn

from prunit.batches import Split
from prunit.errors import DataError
from prunit.train import TrainConfig, evaluate, train
from prunit.train.accuracy import digest_of_images
from prunit.zoo import data
from prunit.zoo.data import raw
from prunit.zoo.data.streamed import ImageFiles
from tests.train.toys import assert_same
from tests.zoo.layouts import save_image


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Eighty training images of colours of their own, and eight to judge by."""
    folder = tmp_path / "many"
    for split, n in (("train", 40), ("val", 4)):
        for k, name in enumerate(("cat", "dog")):
            for i in range(n):
                save_image(folder / split / name / f"{i:02}.png", color=(6 * i, 200 * k, i))
    return folder


def test_the_same_images_whether_held_or_read_when_asked_for(many: Path) -> None:
    held, streamed = (data.load(str(many), stream=stream) for stream in (False, True))
    whole, x = held.train.x_BCHW, streamed.train.x_BCHW
    assert isinstance(x, ImageFiles)
    assert (x.shape, x.dtype, len(x), x.ndim, x.nbytes) == (whole.shape, whole.dtype, len(whole), 4, 0)
    chosen = torch.tensor([50, 3, 3])
    for index in (chosen, slice(2, 70, 9), slice(None, 1), [4, 1], torch.arange(80) % 7 == 2, 7, -1):
        assert torch.equal(x[index], whole[index])
    assert [part.shape[0] for part in x.split(30)] == [30, 30, 20]
    assert torch.equal(torch.cat(list(x.split(30))), whole)
    assert (held.mean_C, held.std_C) == (streamed.mean_C, streamed.std_C)
    assert torch.equal(held.train.y_B, streamed.train.y_B)
    assert digest_of_images(held.test) == digest_of_images(streamed.test)
    assert "26.4 kB in memory" in held.told
    assert "read from disk as needed" in streamed.told


def test_parts_of_a_split_are_chosen_without_reading(many: Path) -> None:
    streamed = data.load(str(many), stream=True)
    for path in many.rglob("*.png"):
        path.unlink()
    for index in (slice(1, None, 2), torch.arange(5), torch.arange(80) < 40):
        part = streamed.train.taken(index)
        assert isinstance(part.x_BCHW, ImageFiles)
        assert torch.equal(part.y_B, streamed.train.y_B[index])
    few = streamed.subset(10, seed=0)
    assert few.train.y_B.bincount().tolist() == [5, 5]
    assert isinstance(few.train.to("cpu"), Split)
    with pytest.raises(DataError, match=r"^broken image: '.*png' \(.*No such file.*\); it could be read before"):
        few.train.x_BCHW[:2]


def test_a_training_comes_to_the_same_weights(many: Path) -> None:
    config = TrainConfig(epochs=2, batch_size=16, device="cpu")
    models = []
    for stream in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 2))
        dataset = data.load(str(many), stream=stream)
        epochs = list(train(model, dataset, config))
        models.append(model)
        assert evaluate(model, dataset, device="cpu") == epochs[-1].test_accuracy
    assert_same(*models)


def test_what_does_not_fit_into_memory_stays_on_disk(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "LIMIT_BYTES", 88 * 3 * 10 * 10)
    assert isinstance(data.load(str(many)).train.x_BCHW, torch.Tensor)
    monkeypatch.setattr(raw, "LIMIT_BYTES", 88 * 3 * 10 * 10 - 1)
    streamed = data.load(str(many))
    assert isinstance(streamed.train.x_BCHW, ImageFiles)
    with pytest.raises(DataError, match=r"\(80 training and 8 test images at 10x10\).*--image-size N"):
        data.load(str(many), stream=False)


def test_broken_images_are_found_before_a_training_begins(many: Path) -> None:
    (many / "train" / "cat" / "03.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"^broken image: '.*cat/03\.png'"):
        data.load(str(many), stream=True)
    left = data.load(str(many), stream=True, skip_broken=True).train
    assert len(left) == len(left.x_BCHW) == 79
    assert torch.equal(left.x_BCHW[:], data.load(str(many), stream=False, skip_broken=True).train.x_BCHW)
