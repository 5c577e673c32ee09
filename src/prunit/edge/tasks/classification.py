"""Classification: one class for each image, by the highest of its scores."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.edge.pixels import Fit, Placing
from prunit.edge.tasks.task import Evidence, Outputs

_TOP: Final = 5
_TRUTH, _SAID, _RANK = range(3)


class DeviceClassification:
    """Evidence (N, 3), int64: the image's class, the class with the highest score, and the rank (from 0) of its own.

    Targets are class indices (B,); the output is scores (B, K) before softmax.
    """

    name: str = "classification"
    metric: str = "accuracy"
    fit: Fit = "crop"

    def settings(self) -> Mapping[str, Any]:
        return {}

    def evidence(self, outputs: Outputs, targets: npt.NDArray[Any]) -> Evidence:
        scores_BK, y_B = outputs[0], targets
        own_B1 = np.take_along_axis(scores_BK, y_B[:, None], axis=1)
        rank_B = (scores_BK > own_B1).sum(axis=1)
        return np.stack([y_B, scores_BK.argmax(axis=1), rank_B], axis=1).astype(np.int64)

    def metrics(self, evidence: Evidence) -> Mapping[str, float]:
        """Top-1 and top-5 accuracy, and F1 as the mean over the classes that are there or are named (macro)."""
        right = evidence[:, _TRUTH] == evidence[:, _SAID]
        f1 = list(_f1(evidence).values())
        return {
            "accuracy": int(right.sum()) / max(len(right), 1),
            "top5": float((evidence[:, _RANK] < _TOP).mean()) if len(evidence) else float("nan"),
            "macro_f1": float(np.mean(f1)) if f1 else float("nan"),
        }

    def resampled(self, evidence: Evidence, counts_RN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Accuracy of resamples, (R,): of the images as often as `counts_RN` says."""
        right_N = (evidence[:, _TRUTH] == evidence[:, _SAID]).astype(np.float64)
        return counts_RN @ right_N / counts_RN.sum(axis=1)

    def by_class(self, evidence: Evidence, classes: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        """Recall (the class's accuracy), precision and F1 of each class that has images or is named."""
        found: dict[str, dict[str, float]] = {}
        for index, f1 in _f1(evidence).items():
            mine, said = evidence[:, _TRUTH] == index, evidence[:, _SAID] == index
            hits = int((mine & said).sum())
            found[classes[index] if index < len(classes) else str(index)] = {
                "recall": hits / int(mine.sum()) if mine.any() else float("nan"),
                "precision": hits / int(said.sum()) if said.any() else float("nan"),
                "f1": f1,
                "images": int(mine.sum()),
            }
        return found

    def confusion(self, evidence: Evidence, classes: int) -> npt.NDArray[np.int64]:
        """How many images of each class (row) were given each class (column)."""
        table = np.zeros((classes, classes), np.int64)
        np.add.at(table, (evidence[:, _TRUTH], evidence[:, _SAID]), 1)
        return table

    def each(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        return -evidence[:, _RANK].astype(np.float64)

    def answer(self, outputs: Outputs, classes: Sequence[str], placing: Placing) -> Mapping[str, Any]:
        """{"labels": [{"label", "share"}, …]}: the best five, by softmax."""
        shares = softmax(outputs[0].reshape(1, -1))[0]
        best = (-shares).argsort(kind="stable")[:_TOP].tolist()
        named = ((classes[i] if i < len(classes) else str(i), float(shares[i])) for i in best)
        return {"labels": [{"label": label, "share": share} for label, share in named]}

    def drawn(
        self, photo_HWC: npt.NDArray[np.uint8], outputs: Outputs, classes: Sequence[str], placing: Placing
    ) -> npt.NDArray[np.uint8]:
        return photo_HWC


def softmax(scores_BK: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Shares that add up to 1 in each row."""
    powers = np.exp(scores_BK.astype(np.float64) - scores_BK.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _f1(evidence: Evidence) -> dict[int, float]:
    """F1 of each class that has images or is named, by its index."""
    found: dict[int, float] = {}
    for index in np.unique(evidence[:, :_RANK]).tolist():
        mine, said = evidence[:, _TRUTH] == index, evidence[:, _SAID] == index
        found[int(index)] = 2 * int((mine & said).sum()) / (int(mine.sum()) + int(said.sum()))
    return found
