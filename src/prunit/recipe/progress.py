"""How far a build has come, and how long it will still take, learnt as it goes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter


@dataclass(frozen=True)
class Step:
    """`done` of `total` units of one stage of one variant ('all': of all together); a total of 0 is not known.

    `left_s` are the seconds until the whole build is done, None before there is anything to tell it from; `overall` is
    the share, 0 to 1, of its time from the first training on that has passed. Where several variants are worked on at
    the same time, `place` (from 1) tells them apart; the stage 'wait' says that there is nothing to do there for now.
    """

    variant: str
    stage: str
    done: int
    total: int
    note: str = ""
    overall: float = 0.0
    left_s: float | None = None
    place: int = 0


OnStep = Callable[[Step], None]

_EXPORT_S = 4.0
"""What the first export is taken to last."""


@dataclass(frozen=True)
class _Running:
    """A stage of a variant, since when and from which step on; `share` of it is done."""

    variant: str
    stage: str
    since: float
    first: int
    share: float = 0.0


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
        self._at_once = 1
        self._running: dict[int, _Running] = {}

    def plan_to_train(
        self,
        macs: Mapping[str, int],
        *,
        probe_s: float,
        exports: Iterable[str] | None = None,
        seconds: Mapping[str, float] | None = None,
        at_once: int = 1,
    ) -> None:
        """How long each training takes, relatively, what is exported, and how many variants are worked on at once.

        By the seconds that it is expected to last, else half by its macs and half the same for all.
        """
        dense = max(*macs.values(), 1)
        self._weights = {name: m / dense + 1 for name, m in macs.items()} | dict(seconds or {})
        self._to_train, self._probe_s = set(macs), probe_s
        self._to_export = set(macs if exports is None else exports)
        self._exports, self._at_once = len(self._to_export), at_once

    def __call__(self, variant: str, stage: str, done: int, total: int, note: str = "", *, place: int = 0) -> None:
        """A step of a stage is done; `place` as in `Step`."""
        if stage != "plan":  # what is said in between ends no stage
            self._note(variant, stage, done, total, place)
        if self._on_step:
            left_s, whole_s = self._times_s() or (None, 1.0)
            overall = 0.0 if left_s is None else 1 - left_s / max(whole_s, 1e-9)
            self._on_step(Step(variant, stage, done, total, note, overall, left_s, place))

    def _note(self, variant: str, stage: str, done: int, total: int, place: int) -> None:
        """How far that is, and how long a training took so far."""
        now = self._clock()
        # What is done here alone, and what is done at several places, never overlap.
        self._running = {p: here for p, here in self._running.items() if p == place or (p and place)}
        here = self._running.get(place)
        if here is None or (here.variant, here.stage) != (variant, stage):
            here = _Running(variant, stage, now, done)
        here = self._running[place] = replace(here, share=done / total if total else 0.0)
        if stage == "train" and done > here.first:
            self._trained[variant] = (now - here.since, self._weights[variant] * (done - here.first) / total)

    def waits(self, place: int) -> None:
        """There is nothing to do at this place for now."""
        if self._running.pop(place, None) and self._on_step:
            self._on_step(Step("", "wait", 0, 0, place=place))

    def trained(self, variant: str) -> None:
        """One more variant needs no more training."""
        self._to_train.discard(variant)

    def exported(self, variant: str) -> None:
        """One more variant is exported."""
        for here in self._running.values():
            if (here.variant, here.stage) == (variant, "export") and variant in self._to_export:
                self._exports_s.append(self._clock() - here.since)
        self._to_export.discard(variant)

    def _times_s(self) -> tuple[float, float] | None:
        """Seconds that are still to come, and those of the whole build from its first training on, as expected now."""
        spent_s = sum(seconds for seconds, _ in self._trained.values())
        weight = sum(weight for _, weight in self._trained.values())
        if not self._weights or (self._to_train and not weight):
            return None
        per_weight_s = spent_s / weight if weight else 0.0
        training = {here.variant: here.share for here in self._running.values() if here.stage == "train"}
        to_train = {name: self._weights[name] * (1 - training.get(name, 0.0)) for name in self._to_train}
        # What is trained at the same time shares the time, but no training is shorter than itself.
        weight_left = max(sum(to_train.values()) / self._at_once, *to_train.values(), 0.0)
        export_s = sum(self._exports_s) / len(self._exports_s) if self._exports_s else _EXPORT_S
        # Of all that is measured, the share of the rounds that are done is the share of the time.
        alone = self._running.get(0)
        probe_share = {"probe": alone.share, "report": 1.0}.get(alone.stage, 0.0) if alone else 0.0
        probe_left_s = self._probe_s * (1 - probe_share)
        left_s = weight_left * per_weight_s + len(self._to_export) * export_s / self._at_once + probe_left_s
        all_weights = max(sum(self._weights.values()) / self._at_once, *self._weights.values())
        whole_s = all_weights * per_weight_s + self._exports * export_s / self._at_once + self._probe_s
        return left_s, whole_s
