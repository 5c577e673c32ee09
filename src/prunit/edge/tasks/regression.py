"""Regression: one number or several for each image, in the user's units."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.edge.pixels import Fit, Placing
from prunit.edge.tasks.means import mean, named
from prunit.edge.tasks.task import Evidence, Outputs
from prunit.errors import ConfigError, DataError

_TRUTH, _ESTIMATE = range(2)
_NO_VARIANCE: Final = 1e-12
"""Of a resample, as a share of its values' mean square after they were centred: what rounding leaves."""


class DeviceRegression:
    """Evidence (N, D, 2), float64: the truth and the estimate of each value, in the user's units.

    Targets are values (B, D) in those units. The output is (B, D) in standardised units, of which `mean` and `std`,
    those of the training's values, make the user's: output * std + mean. Without them the output is taken as it is.
    Raises `ConfigError` where they do not belong together.
    """

    name: str = "regression"
    metric: str = "r2"
    fit: Fit = "crop"

    def __init__(self, mean: Sequence[float] = (), std: Sequence[float] = ()) -> None:
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        if len(self.mean) != len(self.std):
            raise ConfigError(
                f"regression with {len(self.mean)} means and {len(self.std)} deviations: give one of each per value"
            )
        if not np.isfinite([*self.mean, *self.std]).all() or min(self.std, default=1) <= 0:
            raise ConfigError(
                f"regression with means {self.mean} and deviations {self.std}: both must be finite numbers, deviations"
                " above 0 (1 for a value that never changes)"
            )

    def settings(self) -> Mapping[str, Any]:
        return {"mean": self.mean, "std": self.std}

    def evidence(self, outputs: Outputs, targets: npt.NDArray[Any]) -> Evidence:
        """Truths and estimates. Raises `DataError` where there are not as many of both."""
        estimates_BD = self._estimates(outputs)
        if estimates_BD.shape != targets.shape:
            raise DataError(
                f"values of shape {targets.shape}, but estimates of shape {estimates_BD.shape}: one value is needed for"
                " each output"
            )
        return np.stack([targets.astype(np.float64), estimates_BD], axis=2)

    def metrics(self, evidence: Evidence) -> Mapping[str, float]:
        """Means over the values: the coefficient of determination (R², of values that vary), the mean absolute error
        and the root of the mean squared one."""
        r2_D, mae_D, rmse_D = _of_values(evidence)
        return {"r2": float(mean(r2_D)), "mae": float(mean(mae_D)), "rmse": float(mean(rmse_D))}

    def resampled(self, evidence: Evidence, counts_RN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """R² of resamples, (R,): of the images as often as `counts_RN` says."""
        truth_ND = evidence[:, :, _TRUTH] - evidence[:, :, _TRUTH].mean(axis=0)  # small sums round less
        wrong_RD = counts_RN @ (evidence[:, :, _TRUTH] - evidence[:, :, _ESTIMATE]) ** 2
        squares_RD = counts_RN @ truth_ND**2
        spread_RD = squares_RD - (counts_RN @ truth_ND) ** 2 / counts_RN.sum(axis=1, keepdims=True)
        varies = spread_RD > _NO_VARIANCE * squares_RD
        return mean(np.where(varies, 1 - wrong_RD / np.where(varies, spread_RD, 1), np.nan))

    def by_class(self, evidence: Evidence, classes: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        """The same of each value by its name."""
        r2_D, mae_D, rmse_D = _of_values(evidence)
        return {
            named(classes, d): {"r2": float(r2_D[d]), "mae": float(mae_D[d]), "rmse": float(rmse_D[d])}
            for d in range(evidence.shape[1])
        }

    def each(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """Minus the image's absolute error, in deviations of each value, as the mean over the values."""
        return -(np.abs(evidence[:, :, _TRUTH] - evidence[:, :, _ESTIMATE]) / (self.std or 1.0)).mean(axis=1)

    def answer(self, outputs: Outputs, classes: Sequence[str], placing: Placing) -> Mapping[str, Any]:
        """{"values": {name: value}}, in the user's units."""
        values = self._estimates(outputs).reshape(-1).tolist()
        return {"values": {named(classes, d): value for d, value in enumerate(values)}}

    def drawn(
        self, photo_HWC: npt.NDArray[np.uint8], outputs: Outputs, classes: Sequence[str], placing: Placing
    ) -> npt.NDArray[np.uint8]:
        return photo_HWC

    def _estimates(self, outputs: Outputs) -> npt.NDArray[np.float64]:
        """(B, D) in the user's units."""
        standardised_BD = outputs[0].astype(np.float64)
        if not self.mean:
            return standardised_BD
        if standardised_BD.ndim != 2 or standardised_BD.shape[1] != len(self.mean):
            raise DataError(
                f"outputs of shape {standardised_BD.shape}, but means of {len(self.mean)} values: a regression model"
                f" gives (images, {len(self.mean)})"
            )
        return standardised_BD * self.std + self.mean


def _of_values(
    evidence: Evidence,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """R², mean absolute error and root of the mean squared one of each value, (D,); NaN where images do not tell."""
    truth_ND, wrong_ND = evidence[:, :, _TRUTH], evidence[:, :, _TRUTH] - evidence[:, :, _ESTIMATE]
    if not len(evidence):
        nothing_D = np.full(evidence.shape[1], np.nan)
        return nothing_D, nothing_D, nothing_D
    varies = truth_ND.max(axis=0) > truth_ND.min(axis=0)
    spread_D = ((truth_ND - truth_ND.mean(axis=0)) ** 2).sum(axis=0)
    r2_D = np.where(varies, 1 - (wrong_ND**2).sum(axis=0) / np.where(varies, spread_D, 1), np.nan)
    return r2_D, np.abs(wrong_ND).mean(axis=0), np.sqrt((wrong_ND**2).mean(axis=0))
