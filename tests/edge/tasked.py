"""A portfolio folder of one tiny model for each task, whose answers can be told from the photo's colour."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from prunit.edge.pixels import Fit
from prunit.edge.portfolio import Latency, Metrics, Portfolio, Preprocessing, TaskRecord, Variant
from prunit.export.onnx import export_onnx

SIZE: Final = 8
"""Height and width of the models' input."""


class Made(nn.Module):
    """What a function makes of the images; of a 1 x 1 convolution that keeps them as they are."""

    def __init__(self, make: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv, self.make = nn.Conv2d(3, 3, 1, bias=False), make
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3)[:, :, None, None])

    def forward(self, x_BCHW: Tensor) -> object:
        return self.make(self.conv(x_BCHW))


def _boxes(x_BCHW: Tensor) -> Tensor:
    """The left half of the middle, the surer the redder the image is, and the right half, by its blue."""
    shares = torch.tensor([[0.0, 0.25, 0.5, 0.75], [0.5, 0.25, 1.0, 0.75]])
    level_BC = (1.5 * x_BCHW.mean((2, 3))).clamp(0, 1)
    nothing_B1 = torch.zeros_like(level_BC[:, :1])
    scores_BNK = torch.stack(
        [torch.cat([level_BC[:, :1], nothing_B1], 1), torch.cat([nothing_B1, level_BC[:, 2:]], 1)], 1
    )
    return torch.cat([shares[None] + 0 * scores_BNK.sum((1, 2))[:, None, None], scores_BNK], 2)


MODELS: Final[Mapping[str, tuple[Callable[[Tensor], object], tuple[str, ...], Fit, Mapping[str, Any]]]] = {
    "classification": (lambda x: 10 * x.mean((2, 3)), ("red", "green", "blue"), "crop", {}),
    "multilabel": (lambda x: 10 * x.mean((2, 3)) - 2, ("red", "green", "blue"), "crop", {}),
    "regression": (lambda x: x.mean((2, 3))[:, ::2], ("warm", "cold"), "crop", {"mean": [10, 0], "std": [5, 2]}),
    "segmentation": (lambda x: x, ("red", "green", "blue"), "letterbox", {}),
    "detection": (_boxes, ("rose", "sea"), "letterbox", {"size": SIZE}),
    "own": (lambda x: {"maps": x, "levels": x.mean((2, 3))}, ("red", "green", "blue"), "crop", {"any": [1, 2]}),
}
"""Of pixels from 0 to 1: what the model gives, its classes, how photos are brought to its size, the task's settings."""


def tasked_in(folder: Path, task: str) -> Portfolio:
    """The portfolio for a task, its manifest and files written to the folder."""
    make, classes, fit, settings = MODELS[task]
    folder.mkdir(parents=True, exist_ok=True)
    artifact = export_onnx(Made(make).eval(), torch.zeros(1, 3, SIZE, SIZE), folder, name="dense", output="found")
    latency = Latency(batch=1, threads=1, n=10, p50_ms=1.0, p90_ms=1.1, p99_ms=1.2)
    metrics = Metrics(
        accuracy=0.5,
        params=9,
        macs=9,
        weight_bytes=36,
        activation_bytes=768,
        file_bytes=artifact.bytes,
        latencies=(latency,),
    )
    found = Portfolio(
        name="colours",
        model="conv",
        data="photos",
        task=TaskRecord(name=task, metric="score", settings=dict(settings)),
        classes=classes,
        preprocessing=Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, size=(SIZE, SIZE), fit=fit),
        variants=(Variant(name="dense", recipe="dense", keep=1.0, artifact=artifact, metrics=metrics),),
        prunit_version="0.1.0",
        created="2026-07-04T12:31:44+00:00",
    )
    found.write(folder)
    return found
