"""Detectors as torchvision's, which in training take the boxes too and return losses: what is said, what works."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunit.batches import Dataset, Split
from prunit.errors import ModelError
from prunit.tasks import Detection
from prunit.train import TrainConfig, evaluate, train
from prunit.train.accuracy import check_model

SIZE, CLASSES = 16, ("left", "right")
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "detection.md"


class Finder(nn.Module):
    """One box for a photo: `model(images, targets)` gives losses in training mode, else a dict for each photo."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(8 * (SIZE // 2) ** 2, 6)

    def heads(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        found = self.head(self.body(x_BCHW))
        return found[:, :4].sigmoid(), found[:, 4:]

    @staticmethod
    def losses(heads: tuple[Tensor, Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        boxes = torch.stack([target["boxes"][0] for target in targets]) / SIZE
        labels = torch.stack([target["labels"][0] for target in targets])
        return {
            "box": nn.functional.smooth_l1_loss(heads[0], boxes, beta=0.1),
            "label": nn.functional.cross_entropy(heads[1], labels),
        }

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        heads = self.heads(torch.stack(list(images)))
        if self.training:
            assert targets is not None, "targets should not be none when in training mode"
            return self.losses(heads, targets)
        scores, labels = heads[1].softmax(1).max(1)
        return [
            {"boxes": SIZE * box[None], "scores": score[None], "labels": label[None]}
            for box, score, label in zip(heads[0], scores, labels, strict=True)
        ]


class Wrapped(nn.Module):
    """What a build takes."""

    def __init__(self, detector: Finder) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x_BCHW: Tensor) -> Any:
        boxes, logits = self.detector.heads(x_BCHW)
        return (boxes, logits) if self.training else torch.cat([boxes, logits.softmax(1)], 1)[:, None]


def dataset(n: int, task: Detection) -> Dataset:
    def split(seed: int) -> Split:
        drawn = torch.Generator().manual_seed(seed)
        x = torch.randint(0, 40, (n, 3, SIZE, SIZE), generator=drawn, dtype=torch.uint8)
        y = torch.full((n, 2, 6), -1.0)  # the second row is none
        for i in range(n):
            x1, y1 = 8 * (i % 2), int(torch.randint(0, 9, (1,), generator=drawn))
            x[i, :, y1 : y1 + 8, x1 : x1 + 8] = 220
            y[i, 0] = torch.tensor([x1, y1, x1 + 8, y1 + 8, i % 2, 0])
        return Split(x, y)

    return Dataset("blocks", split(0), split(1), CLASSES, (0.3,) * 3, (0.3,) * 3, task=task)


def test_a_list_of_dicts_is_refused_with_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"gives a list of dicts for one of .*, as torchvision's.*Wrap it") as raised:
        check_model(Finder(), dataset(4, Detection(size=SIZE)))
    assert "\n" not in str(raised.value)
    with pytest.raises(ModelError, match=r"gives a list for one of"):
        Detection().check_outputs([1, 2], 1, CLASSES, SIZE, where="for one of the images")


def test_wrapped_as_the_page_says_it_learns() -> None:
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S) if "as_dicts" in block
    ]
    names: dict[str, Any] = {}
    exec(code, names)
    torch.manual_seed(0)
    model, data = Wrapped(Finder()), dataset(64, names["task"](Finder.losses).fitted(torch.zeros(1, 1, 6), SIZE))
    settings = TrainConfig(epochs=40, batch_size=16, device="cpu", augment=False, lr=0.05)
    first, *_, last = train(model, data, settings)
    assert last.loss < first.loss / 3
    assert evaluate(model, data, device="cpu") > 0.4
