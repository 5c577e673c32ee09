"""How far a build has come, and how long it will still take, learnt as it goes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter


@dataclass(frozen=True)
class Step:
    """`done` of `total` units of one stage of one variant ('all': of all together); a total of 0 is not known.

    `left_s` are the seconds until the whole build is done, None before there is anything to tell it from; `overall` is
    the share, 0 to 1, of its time from the first training on that has passed.
    """

    variant: str
    stage: str
    done: int
    total: int
    note: str = ""
    overall: float = 0.0
    left_s: float | None = None


OnStep = Callable[[Step], None]

_EXPORT_S = 4.0
"""What the first export is taken to last."""


class Progress:
    """Tells the caller how far the build has come, stage by stage and in all."""

    def __init__(self, on_step: OnStep | None, *, clock: Callable[[], float] = perf_counter) -> None:
        self._on_step, self._clock = on_step, clock
        self._weights: dict[str, float] = {}
        self._to_train: set[str] = set()
        self._to_export: set[str] = set()
        self._exports, self._probe_s = 0, 0.0
        # Seconds and weight of what was trained in this run, and seconds of each export.
        self._trained: dict[str, tuple[float, float]] = {}
        self._exports_s: list[float] = []
        self._stage, self._since, self._first = ("", ""), 0.0, 0

    def plan_to_train(
        self,
        macs: Mapping[str, int],
        *,
        probe_s: float,
        exports: Iterable[str] | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """How long each training takes, relatively, and what is exported.

        By the seconds that it is expected to last, else half by its macs and half the same for all.
        """
        dense = max(*macs.values(), 1)
        self._weights = {name: m / dense + 1 for name, m in macs.items()} | dict(seconds or {})
        self._to_train, self._probe_s = set(macs), probe_s
        self._to_export = set(macs if exports is None else exports)
        self._exports = len(self._to_export)

    def __call__(self, variant: str, stage: str, done: int, total: int, note: str = "") -> None:
        """A step of a stage is done."""
        now = self._clock()
        if self._stage != (variant, stage):
            self._stage, self._since, self._first = (variant, stage), now, done
        share = done / total if total else 0.0
        if stage == "train" and done > self._first:
            self._trained[variant] = (now - self._since, self._weights[variant] * (done - self._first) / total)
        if self._on_step:
            left_s, whole_s = self._times_s(share) or (None, 1.0)
            overall = 0.0 if left_s is None else 1 - left_s / max(whole_s, 1e-9)
            self._on_step(Step(variant, stage, done, total, note, overall, left_s))

    def trained(self, variant: str) -> None:
        """One more variant needs no more training."""
        self._to_train.discard(variant)

    def exported(self, variant: str) -> None:
        """One more variant is exported."""
        if self._stage == (variant, "export"):
            self._exports_s.append(self._clock() - self._since)
        self._to_export.discard(variant)

    def _times_s(self, share: float) -> tuple[float, float] | None:
        """Seconds that are still to come, and those of the whole build from its first training on, as expected now."""
        spent_s = sum(seconds for seconds, _ in self._trained.values())
        weight = sum(weight for _, weight in self._trained.values())
        if not self._weights or (self._to_train and not weight):
            return None
        variant, stage = self._stage
        per_weight_s = spent_s / weight if weight else 0.0
        weight_left = sum(self._weights[name] for name in self._to_train)
        if stage == "train":
            weight_left -= self._weights[variant] * share
        export_s = sum(self._exports_s) / len(self._exports_s) if self._exports_s else _EXPORT_S
        # Of all that is measured, the share of the rounds that are done is the share of the time.
        probe_left_s = self._probe_s * {"probe": 1 - share, "report": 0.0}.get(stage, 1.0)
        left_s = weight_left * per_weight_s + len(self._to_export) * export_s + probe_left_s
        whole_s = sum(self._weights.values()) * per_weight_s + self._exports * export_s + self._probe_s
        return left_s, whole_s
