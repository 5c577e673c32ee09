"""Steps of several trainings that take turns, timed."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch

from prunit.train.run import Run

_LEAST: Final = 3
_MOST: Final = 15
"""Rounds; medians of more are hardly steadier."""
_LR: Final = 1e-6
"""So low that weights stay where they are: numbers that have become denormal take longer."""


def times_of_steps(runs: Sequence[Run], *, seconds: float) -> list[float]:
    """Seconds of a step of each of the trainings, all on the same images; rounds as in `times_in_turns`."""
    draws = runs[0].feed.draws(seed=runs[0].job.config.seed, epoch=0)

    def stepped(run: Run, turn: int) -> object:
        run.wrapped.train()
        return run.step(run.feed.batch(draws.part(run.share(turn % run.steps))), _LR)

    found = times_in_turns({str(i): on_device(run, stepped) for i, run in enumerate(runs)}, seconds)
    return list(found.values())


def on_device(run: Run, work: Callable[[Run, int], object]) -> Callable[[int], float]:
    """What gives the seconds until the training's device has done `work` in a turn."""

    def timed(turn: int) -> float:
        _finished(run.fabric.device)
        started = time.perf_counter()
        work(run, turn)
        _finished(run.fabric.device)
        return time.perf_counter() - started

    return timed


def times_in_turns(runs: Mapping[str, Callable[[int], float]], seconds: float) -> dict[str, float]:
    """The median of what each gives in 3 to 15 rounds, as many as fit into `seconds` for each; after one that does not
    count."""
    for run in runs.values():
        run(0)
    times: dict[str, list[float]] = {name: [] for name in runs}
    spent, round_s = 0.0, 0.0
    for turn in range(1, _MOST + 1):
        if turn > _LEAST and spent + round_s > seconds * len(runs):
            break
        for name, run in runs.items():
            times[name].append(run(turn))
        round_s = sum(own[-1] for own in times.values())
        spent += round_s
    return {name: statistics.median(own) for name, own in times.items()}


def _finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
