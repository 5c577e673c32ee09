"""What variants of fewer bits are compared with: the float file, judged through an engine on the same images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from prunit.batches import Dataset, stratified
from prunit.cut.store import load as load_weights
from prunit.edge import runtimes
from prunit.edge.comparing.paired import Difference
from prunit.edge.portfolio import Artifact, Variant
from prunit.edge.session import Array, Session, outputs_of
from prunit.export import export_onnx
from prunit.recipe.quality import compared
from prunit.recipe.source import example_of
from prunit.recipe.work import Work
from prunit.train.accuracy import Judged, judge
from prunit.train.rounded import int8_settings, tuned_for_int8

AT_ONCE: Final = 64
"""Images of a batch that an engine answers: small activations stay in the caches."""


class _Answering(nn.Module):
    """A session in the place of a model that is judged."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def forward(self, x_BCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = tuple(torch.from_numpy(values) for values in outputs_of(self._session, x_BCHW.numpy()))
        return found[0] if len(found) == 1 else found


@dataclass(frozen=True)
class Beside:
    """A float variant of a build, as what others are compared with."""

    work: Work
    twin: Variant

    @cached_property
    def judged(self) -> Judged:
        """What the float file's outputs say of the test images."""
        with opened(self.twin.artifact, self.work.folder, runtimes.DEFAULT) as session:
            return judged_by(session, self.work.dataset)

    def trained_for_int8(self, epochs: int, *, name: str) -> nn.Module:
        """The float variant's model after a short training under the rounding of int8, told of as `name`."""
        work = self.work
        model = load_weights(work.folder / f"{self.twin.name}.safetensors", work.source.make)
        settings = int8_settings(work.settings, epochs=epochs)

        def told(done: int, total: int) -> None:
            work.progress(name, "quantise", done, total, "training for int8")

        return tuned_for_int8(model, work.dataset, settings, on_step=told)

    def exported(self, model: nn.Module, folder: Path) -> Artifact:
        """The file of such a model, under the float variant's name."""
        dataset, template = self.work.dataset, self.work.template
        return export_onnx(
            *(model, example_of(dataset), folder), name=self.twin.name, output=dataset.task.output, template=template
        )

    def compared(self, mine: Judged) -> tuple[Difference | None, float | None]:
        """The main metric less the float file's, image by image; and how often a classifier gives the same answer."""
        agreement = None
        if mine.answers is not None:
            agreement = float(np.mean(mine.evidence[:, 1] == self.judged.evidence[:, 1]))
        return compared(mine, self.judged), agreement


def judged_by(session: Session, dataset: Dataset) -> Judged:
    """What the outputs that a session gives say of the test images."""
    return judge(_Answering(session), dataset, device="cpu", batch_size=AT_ONCE)


@contextmanager
def opened(artifact: Artifact, folder: Path, engine: str) -> Iterator[Session]:
    """A session of an exported file, closed afterwards."""
    session = runtimes.runtime(engine).open(folder / artifact.path, threads=torch.get_num_threads())
    try:
        yield session
    finally:
        session.close()


def training_images(dataset: Dataset, images: int, seed: int) -> tuple[list[Array], list[Array]]:
    """Normalised batches of so many training images, as many of each class as can be, and of as many others."""
    found = stratified(dataset.task.strata(dataset.train.y_B), 2 * images, seed=seed)
    # Shuffled: the index is ascending, and images of a folder come class by class.
    order = found[torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))]
    parts = (order[: (len(order) + 1) // 2], order[(len(order) + 1) // 2 :])
    split = dataset.train.x_BCHW
    first, second = (
        [dataset.normalise(split[index]).numpy() for index in part.split(AT_ONCE) if len(index)] for part in parts
    )
    return first, second or first
