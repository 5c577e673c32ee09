"""Multilabel: any number of classes for each image, each by a score of its own."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.edge.pixels import Fit, Placing
from prunit.edge.tasks.means import mean, named, share
from prunit.edge.tasks.task import Evidence, Outputs
from prunit.errors import DataError

THRESHOLD: Final = 0.5
"""A class is said from this share on."""
_TRUTH, _SHARE = range(2)


class DeviceMultilabel:
    """Evidence (N, K, 2), float64: of each class whether it is there (1 or 0), and its share by the sigmoid.

    Targets are 0 or 1 for each class, (B, K); the output is scores (B, K) before the sigmoid.
    """

    name: str = "multilabel"
    metric: str = "mAP"
    fit: Fit = "crop"

    def settings(self) -> Mapping[str, Any]:
        return {}

    def evidence(self, outputs: Outputs, targets: npt.NDArray[Any]) -> Evidence:
        """Truths and shares. Raises `DataError` where there are not as many of both."""
        if outputs[0].shape != targets.shape:
            raise DataError(
                f"labels of shape {targets.shape}, but scores of shape {outputs[0].shape}: labels are 0 or 1 for each"
                " class, (images, classes)"
            )
        return np.stack([targets.astype(np.float64), _sigmoid(outputs[0])], axis=2)

    def metrics(self, evidence: Evidence) -> Mapping[str, float]:
        """The mean average precision over classes that have images (mAP); at shares of one half F1 as the mean over
        classes that are there or are said, and the share of images with exactly the right labels."""
        ap_K = self._average_precisions(evidence, np.ones((1, len(evidence))))[0]
        truth_NK, said_NK = _labels(evidence)
        return {
            "mAP": float(mean(ap_K)),
            "macro_f1": float(mean(_f1(truth_NK, said_NK))),
            "exact": float((truth_NK == said_NK).all(axis=1).mean()) if len(evidence) else float("nan"),
        }

    def resampled(self, evidence: Evidence, counts_RN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """mAP of resamples, (R,): of the images as often as `counts_RN` says."""
        return mean(self._average_precisions(evidence, counts_RN))

    def by_class(self, evidence: Evidence, classes: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        """Average precision, and at one half recall, precision and F1 of each class that has images or is said."""
        ap_K = self._average_precisions(evidence, np.ones((1, len(evidence))))[0]
        truth_NK, said_NK = _labels(evidence)
        hits_K, true_K, said_K = (part.sum(axis=0) for part in (truth_NK & said_NK, truth_NK, said_NK))
        f1_K = _f1(truth_NK, said_NK)
        recall_K, precision_K = share(hits_K, true_K), share(hits_K, said_K)
        return {
            named(classes, k): {
                "ap": float(ap_K[k]),
                "recall": float(recall_K[k]),
                "precision": float(precision_K[k]),
                "f1": float(f1_K[k]),
                "images": int(true_K[k]),
            }
            for k in np.flatnonzero(true_K + said_K).tolist()
        }

    def each(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """Minus the largest distance of a share from the truth: an image is as bad as its worst label."""
        if not evidence.shape[1]:
            return np.zeros(len(evidence))
        return -np.abs(evidence[:, :, _TRUTH] - evidence[:, :, _SHARE]).max(axis=1)

    def answer(self, outputs: Outputs, classes: Sequence[str], placing: Placing) -> Mapping[str, Any]:
        """{"labels": [{"label", "share"}, …]}: those from one half on, at least one, the best first."""
        shares = _sigmoid(outputs[0].reshape(-1))
        order = (-shares).argsort(kind="stable").tolist()
        said = [k for k in order if shares[k] >= THRESHOLD] or order[:1]
        return {"labels": [{"label": named(classes, k), "share": float(shares[k])} for k in said]}

    def drawn(
        self, photo_HWC: npt.NDArray[np.uint8], outputs: Outputs, classes: Sequence[str], placing: Placing
    ) -> npt.NDArray[np.uint8]:
        return photo_HWC

    def _average_precisions(self, evidence: Evidence, counts_RN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Of each resample and class, (R, K)."""
        classes = range(evidence.shape[1])
        columns = [average_precision(evidence[:, k, _TRUTH], evidence[:, k, _SHARE], counts_RN) for k in classes]
        return np.stack(columns, axis=1) if columns else np.zeros((len(counts_RN), 0))


def average_precision(
    truth_N: npt.NDArray[Any], share_N: npt.NDArray[np.float64], counts_RN: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The sum of precisions at each share, weighted by how much recall grows there, (R,); NaN without a true image.

    As scikit-learn has it: images of one share come in together, and nothing is interpolated between. Each image
    counts as often as `counts_RN` says.
    """
    order = (-share_N).argsort(kind="stable")
    true_T = np.flatnonzero(truth_N[order])  # the only places where recall grows
    if not len(true_T):
        return np.full(len(counts_RN), np.nan)
    falling_N = -share_N[order]
    last_T = falling_N.searchsorted(falling_N[true_T], side="right") - 1  # of the images of the same share
    known_T = true_T.searchsorted(last_T, side="right") - 1
    named_RT = counts_RN.take(order, axis=1).cumsum(axis=1).take(last_T, axis=1)
    grows_RT = counts_RN.take(order[true_T], axis=1)
    hits_RT = grows_RT.cumsum(axis=1)
    precision_RT = hits_RT.take(known_T, axis=1) / np.maximum(named_RT, 1)
    return share((grows_RT * precision_RT).sum(axis=1), hits_RT[:, -1])


def _sigmoid(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """In the form that does not overflow."""
    small = np.exp(-np.abs(scores.astype(np.float64)))
    return np.where(scores >= 0, 1, small) / (1 + small)


def _labels(evidence: Evidence) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which classes are there, and which are said, (N, K)."""
    return evidence[:, :, _TRUTH] > 0.5, evidence[:, :, _SHARE] >= THRESHOLD


def _f1(truth_NK: npt.NDArray[np.bool_], said_NK: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Of each class, NaN for one that is neither there nor said."""
    both_K = truth_NK.sum(axis=0) + said_NK.sum(axis=0)
    hits_K = (truth_NK & said_NK).sum(axis=0)
    return share(2 * hits_K, both_K)
