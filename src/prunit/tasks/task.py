"""`Task`: what a model is for. All that training, recipes and reports know of it.

Written by hand for one's own: any object with these attributes and methods will do; those of `prunit.tasks` can be
inherited. Its other half, which a device has too, is `edge.tasks.DeviceTask`.
"""

from collections.abc import Sequence
from typing import Any, Protocol, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunit.edge.tasks.task import DeviceTask, Evidence
from prunit.graph.running import tensors_in


class Task(DeviceTask, Protocol):
    """A task with what a training needs. Targets y (B, …) are one tensor; its first dimension is that of the images.

    One may also have an attribute `lr`: the highest rate of SGD that suits its loss in batches of 16.
    """

    @property
    def output(self) -> str:
        """What the model's output is called in an exported file."""
        ...

    def fitted(self, targets: Tensor, size: int) -> "Task":
        """The task with what it must know of its training targets (N, …) and of images of `size` pixels; most often
        itself.
        """
        ...

    def loss(self, outputs: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        """The mean loss of a batch, one number: of what the model returns in training mode, whatever that is.

        `smoothing` is the label smoothing that was asked for; a task without it leaves it out.
        """
        ...

    def judged(self, outputs: Any, targets: Tensor) -> Evidence:
        """The evidence of a batch: of what the model returns in evaluation mode."""
        ...

    def hits(self, outputs: Any, targets: Tensor) -> Tensor | None:
        """How many images of a training batch were right, one number on their device; None where that is not told."""
        ...

    def check_targets(self, targets: Tensor, classes: Sequence[str], size: int, *, what: str) -> None:
        """`DataError` unless all targets are what this task takes, for so many classes and images of `size` pixels."""
        ...

    def check_outputs(self, found: Any, images: int, classes: Sequence[str], size: int, *, where: str) -> None:
        """`ModelError` unless what a model gave in evaluation mode for so many images can be judged."""
        ...

    def check_training_outputs(self, found: Any, images: int, classes: Sequence[str], size: int, *, where: str) -> None:
        """`ModelError` unless `loss` takes what a model gave in training mode."""
        ...

    def moved(self, targets: Tensor, shift_B2: Tensor, flip_B: Tensor, *, padding: int, size: int) -> Tensor:
        """The targets of images that were padded, cut at (row, column) `shift_B2` to `size`, and then mirrored."""
        ...

    def strata(self, targets: Tensor) -> Tensor:
        """A number from 0 for each image, int64 (N,): subsets and splits take images of each as evenly as they can."""
        ...

    def guessing_loss(self, targets: Tensor, classes: int, *, smoothing: float) -> float | None:
        """The loss of the best answer that is the same for all images; None where that is not known."""
        ...


def guess_of(task: Task, targets: Tensor, classes: int, *, smoothing: float) -> float | None:
    """`task.guessing_loss`; None too where a task has a loss of its own and the guess of what it inherits from."""
    loss, guess = (
        next(i for i, one in enumerate(type(task).__mro__) if name in vars(one)) for name in ("loss", "guessing_loss")
    )
    return None if loss < guess else task.guessing_loss(targets, classes, smoothing=smoothing)


def shown_of(task: DeviceTask) -> str:
    """A task as it is made: 'Regression(mean=(2.5,), std=(1.1,))'."""
    settings = ", ".join(f"{name}={value!r}" for name, value in task.settings().items())
    return f"{type(task).__name__}({settings})"


class Judging:
    """For tasks to inherit: `judged` by `evidence`, on the CPU; nothing to learn from a data set."""

    def __repr__(self) -> str:
        return shown_of(cast("DeviceTask", self))

    def fitted(self, targets: Tensor, size: int) -> Self:
        return self

    def evidence(self, outputs: Sequence[npt.NDArray[np.float32]], targets: npt.NDArray[Any]) -> Evidence:
        raise NotImplementedError

    def judged(self, outputs: Any, targets: Tensor) -> Evidence:
        arrays = [t.detach().to("cpu", torch.float32).numpy() for t in tensors_in(outputs)]
        return self.evidence(arrays, targets.cpu().numpy())

    def hits(self, outputs: Any, targets: Tensor) -> Tensor | None:
        return None
