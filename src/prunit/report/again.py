"""The report of a build, written anew from its folder after other figures were measured. Needs no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prunit.edge.portfolio import Portfolio
from prunit.errors import MissingExtraError, PortfolioError
from prunit.files import inside
from prunit.report.page import REPORT, TRIED, write_report

_STATE: Final = ".build"
_HISTORY: Final = "history.json"
_TRIALS: Final = "trials.json"
"""Where a build keeps its trainings and a sweep its trials: as in `recipe`, which a device cannot import."""


@dataclass(frozen=True)
class _Epoch:
    """What the page shows of an epoch."""

    index: int
    loss: float
    train_accuracy: float | None
    test_accuracy: float | None
    watched: bool


def rewrite_report(portfolio: Portfolio, folder: Path) -> str | None:
    """Write `folder/report.html` anew with the figures of `portfolio`.

    Returns '' when it is done, None where there is no report, else why it stayed as it was: nothing that is in it may
    be lost, and a device may lack what it takes.
    """
    page = folder / REPORT
    if not page.is_file():
        return None
    histories: dict[str, list[_Epoch]] = {}
    for variant in portfolio.variants:
        epochs = _epochs(folder, f"{_STATE}/{variant.name}/{_HISTORY}")
        if epochs is None:
            return f"the folder does not hold how '{variant.name}' was trained ({_STATE}/{variant.name}/{_HISTORY})"
        histories[variant.name] = epochs
    swept = f"<h2>{TRIED}</h2>" in page.read_text("utf-8", errors="replace")
    trials = _trials(folder.resolve().parent / _TRIALS) if swept else []
    if trials is None:
        return f"what the sweep tried ({_TRIALS}) does not lie beside the folder"
    try:
        write_report(portfolio, folder, histories=histories, trials=trials)
    except MissingExtraError as error:
        return str(error)
    return ""


def _epochs(folder: Path, path: str) -> list[_Epoch] | None:
    """The epochs of a training, None if they are not there."""
    try:
        found: Any = json.loads(inside(folder, path).read_text("utf-8"))
        return [
            _Epoch(
                *(int(e["index"]), float(e["loss"]), _maybe(e["train_accuracy"]), _maybe(e["test_accuracy"])),
                watched=bool(e.get("watched", False)),
            )
            for e in found
        ]
    except (PortfolioError, OSError, ValueError, TypeError, KeyError):
        return None


def _maybe(accuracy: Any) -> float | None:
    """None for an epoch after which no test images were seen, or of a task that counts no hits in training."""
    return None if accuracy is None else float(accuracy)


def _trials(file: Path) -> list[dict[str, Any]] | None:
    """What a sweep tried, None if that is not there."""
    try:
        found: Any = json.loads(file.read_text("utf-8"))
        return [
            {
                **{name: str(trial[name]) for name in ("variant", "budget", "recipe", "out")},
                "cost": {name: int(trial["cost"][name]) for name in ("params", "macs")} if trial["cost"] else {},
                "accuracies": [(int(epochs), float(accuracy)) for epochs, accuracy in trial["accuracies"]],
            }
            for trial in found["trials"]
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return None
