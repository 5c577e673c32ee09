"""What a model is for, as far as a device must know: what its outputs mean, and how good they are. No torch.

The other half, with what a training asks, is `prunit.tasks`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prunit.edge.pixels import Fit, Placing

Outputs = Sequence[npt.NDArray[np.float32]]
"""What a model gave for a batch: its outputs in the manifest's order, the first dimension of each B."""
Evidence = npt.NDArray[Any]
"""What outputs say beside their targets, image by image (N, …): all that metrics are computed from, whatever images of
it are taken. Parts are joined by `np.concatenate`, so detection keeps objects in it."""


class DeviceTask(Protocol):
    """A task on a device. Metrics are plain numbers of which more is better for the main one."""

    @property
    def name(self) -> str:
        """The task's name in `TASKS`, or of the user's own."""
        ...

    @property
    def metric(self) -> str:
        """The name of the main metric among those of `metrics`."""
        ...

    @property
    def fit(self) -> Fit:
        """How a photo is brought to the size of the model's input."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """What a device must be told to make the same task, as JSON holds it: arguments of its class."""
        ...

    def evidence(self, outputs: Outputs, targets: npt.NDArray[Any]) -> Evidence:
        """What a batch says, beside its targets (B, …): evidence (B, …)."""
        ...

    def metrics(self, evidence: Evidence) -> Mapping[str, float]:
        """All metrics of the images in `evidence` (N, …) by name; NaN where these images do not tell."""
        ...

    def by_class(self, evidence: Evidence, classes: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        """Metrics of each class (or of each value that is estimated), by the name of the class; empty without any."""
        ...

    def each(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """How well each image was done, (N,): more is better; by it the worst pictures are found."""
        ...

    def answer(self, outputs: Outputs, classes: Sequence[str], placing: Placing) -> Mapping[str, Any]:
        """What a client is told of one image (outputs with B = 1), as JSON: places in pixels of the client's photo."""
        ...

    def drawn(
        self, photo_HWC: npt.NDArray[np.uint8], outputs: Outputs, classes: Sequence[str], placing: Placing
    ) -> npt.NDArray[np.uint8]:
        """A picture (H, W, 3) of the answer on the photo; the photo itself where there is nothing to draw."""
        ...
