"""How long each variant is trained: by a rule, or so that the whole build ends in time.

equal-epochs   the dense model's epochs: the papers' way, though an epoch costs a variant a fraction
equal-macs     as many epochs as cost the dense model's multiply-adds
equal-time     as many as take the dense model's time, told by training steps that are timed here, in turns

Multiply-adds are not time: on narrow layers a step is bound by memory and by the overhead of each operation.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final

from prunit.errors import ConfigError
from prunit.files import write_atomically
from prunit.recipe.folder import read_json
from prunit.train import Epoch

MOST: Final = 8.0
"""By the rule equal-macs a variant is trained for at most so many times the dense model's epochs."""

EXPORT_S: Final = 4.0
"""Seconds that evaluating and exporting a variant is taken to last, where no export was timed."""
_PLANNED: Final = 0.97
"""Share of the time left that is planned with, for what nobody foresees."""


def stretched(ratio: float) -> float:
    """How many times the dense epochs, from how many would be equal: at least 1, in quarters, halves, then whole ones.

    In steps, so that a build that is repeated on the same machine trains for the same epochs although steps are timed.
    """
    step = 0.25 if ratio < 2 else 0.5 if ratio < 4 else 1.0
    return max(1.0, round(ratio / step) * step)


def ratios(
    rule: str, macs: Mapping[str, int], step_s: Mapping[str, float], *, dense: str = "dense"
) -> dict[str, float]:
    """By the rule, how many epochs each model is trained for while the dense one is for one."""
    if rule == "equal-time":
        return {name: stretched(step_s[dense] / seconds) for name, seconds in step_s.items()}
    if rule == "equal-macs":
        return {name: min(stretched(macs[dense] / max(each, 1)), MOST) for name, each in macs.items()}
    return dict.fromkeys(macs, 1.0)


@dataclass(frozen=True)
class Effort:
    """What is trained, in this order: epochs for one of the dense model, and seconds of an epoch (empty: not timed)."""

    ratios: Mapping[str, float]
    epoch_s: Mapping[str, float] = field(default_factory=dict)

    def epochs(self, dense: int) -> dict[str, int]:
        """Epochs of each training where the dense model is trained for so many."""
        return {name: max(1, round(dense * ratio)) for name, ratio in self.ratios.items()}

    def within(self, seconds: float, names: Collection[str] | None = None, *, slower: float = 1.0) -> dict[str, int]:
        """Epochs of each of the trainings in so many seconds, where an epoch takes `slower` times what was timed."""
        names = list(self.ratios) if names is None else names
        one_s = sum(self.ratios[name] * self.epoch_s[name] * slower for name in names)
        return {name: int(seconds * self.ratios[name] / one_s) for name in names}


class Pacer:
    """Says for how many epochs a variant is trained, and keeps in a file what it has said: a resumed build repeats it.

    Within a time, what is left of it is shared out anew before each training, by what those before it really took.
    `dense` are the dense model's epochs, of no effect within a time; `probe_s` the seconds of measuring at the end,
    `export_s` those of evaluating and exporting a variant; `started` is when the build began, by `perf_counter`.
    """

    def __init__(
        self,
        file: Path,
        effort: Effort,
        *,
        dense: int,
        limit_s: float | None,
        probe_s: float,
        started: float,
        export_s: float = EXPORT_S,
    ) -> None:
        self.file, self.effort, self.dense, self.limit_s, self.probe_s = file, effort, dense, limit_s, probe_s
        self.export_s = export_s
        kept = read_json(file) if file.exists() else {}
        self._said: dict[str, int] = {name: int(n) for name, n in kept.get("epochs", {}).items()}
        self._took_s: dict[str, float] = dict(kept.get("took_s", {}))
        # What earlier runs of a build that was stopped have used of its time.
        self._since = started - kept.get("spent_s", 0.0)

    @staticmethod
    def kept(file: Path) -> Effort | None:
        """What was timed before the build was stopped, None if it was not."""
        if not file.exists():
            return None
        found = read_json(file)
        return Effort(found["ratios"], found["epoch_s"])

    def planned(self) -> dict[str, int]:
        """Epochs of all trainings, as expected now; `ConfigError` if the time is too short for one epoch of each."""
        if self.limit_s is None:
            return {**self.effort.epochs(self.dense), **self._said}
        left = [name for name in self.effort.ratios if name not in self._said]
        found = self.effort.within(self._left_s(len(left)), left, slower=self._slower()) if left else {}
        if any(epochs < 1 for epochs in found.values()) and not self._said:
            raise ConfigError(self._too_short(left))
        return {name: self._said.get(name, max(1, found.get(name, 1))) for name in self.effort.ratios}

    def epochs(self, name: str) -> int:
        """Epochs of a training that is to begin now."""
        if name not in self._said:
            self._said[name] = self.planned()[name]
            self._write()
        return self._said[name]

    def trained(self, name: str, epochs: Sequence[Epoch]) -> None:
        """A training is over; a model that was kept as it was has none."""
        if name in self._said and name not in self._took_s:
            self._took_s[name] = sum(epoch.seconds for epoch in epochs)
            self._write()

    @property
    def over(self) -> bool:
        """Nothing is left to train."""
        return self._took_s.keys() >= self.effort.ratios.keys()

    def told(self) -> str:
        """The plan in a line, for whoever waits."""
        planned = self.planned()
        parts = [f"{name} {epochs} epoch{'s' * (epochs > 1)}" for name, epochs in planned.items()]
        if not self.effort.epoch_s:
            return f"training {', '.join(parts)}"
        whole = "" if self.limit_s is None else f", of {written_s(self.limit_s)} for the whole build"
        return f"training {', '.join(parts)}: about {written_s(sum(self.seconds().values()))}{whole}"

    def seconds(self) -> dict[str, float]:
        """About how long each training takes; empty where nothing was timed."""
        return {n: self.effort.epoch_s[n] * epochs for n, epochs in self.planned().items() if self.effort.epoch_s}

    def _left_s(self, trainings: int) -> float:
        """Seconds that are left for so many trainings, after what was spent and before what comes after them."""
        assert self.limit_s is not None
        return _PLANNED * (self.limit_s - (perf_counter() - self._since) - self._rest_s(trainings))

    def _rest_s(self, trainings: int) -> float:
        return self.probe_s + self.export_s * trainings

    def _slower(self) -> float:
        """How many times as long as timed the trainings so far have taken."""
        timed_s = sum(self.effort.epoch_s[name] * self._said[name] for name in self._took_s)
        return sum(self._took_s.values()) / timed_s if timed_s else 1.0

    def _too_short(self, names: Collection[str]) -> str:
        assert self.limit_s is not None
        one_s = sum(self.effort.ratios[name] * self.effort.epoch_s[name] for name in names)
        rest_s = perf_counter() - self._since + self._rest_s(len(names))
        enough_s = 1.25 * (one_s + rest_s)  # a machine that does other things is not as fast the next time
        return (
            f"time={written_s(self.limit_s)} is too short: one epoch of each of {len(names)} models takes"
            f" {written_s(one_s)} here, all else {written_s(rest_s)}; allow {written_s(enough_s)} or more,"
            " or train on fewer images (--subset)"
        )

    def _write(self) -> None:
        data = {
            "ratios": dict(self.effort.ratios),
            "epoch_s": dict(self.effort.epoch_s),
            "epochs": self._said,
            "took_s": self._took_s,
            "spent_s": perf_counter() - self._since,
        }
        write_atomically(self.file, json.dumps(data))


def written_s(seconds: float) -> str:
    """A duration as one is asked for: 90s, 4.5m, 2.0h."""
    if seconds < 120:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.1f}m" if seconds < 7200 else f"{seconds / 3600:.1f}h"
