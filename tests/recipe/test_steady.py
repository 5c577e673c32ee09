"""Timings on a busy machine: plans that were disturbed are timed again, and one figure that is off does not count."""

from collections.abc import Mapping, Sequence

import torch

from prunit.cut.plans import Plan, keep_all
from prunit.edge.comparing.compare import is_noisy
from prunit.graph import trace
from prunit.recipe.steady import middle, steadily
from prunit.recipe.stopwatch import Timing
from tests.recipe.nets import Plain


def timing(times_faster: float, spread: float = 1.1) -> Timing:
    ms = 1 / times_faster
    return Timing(1, 1, 50, ms, spread * ms, 1.0, times_faster)


class Busy:
    """Times plans as it is told for each, call by call; keeps what it was asked for."""

    def __init__(self, told: Mapping[str, Sequence[Timing]]) -> None:
        self.told, self.asked = {name: list(timings) for name, timings in told.items()}, list[list[str]]()

    def __call__(self, plans: Mapping[str, Plan]) -> dict[str, tuple[Timing, ...]]:
        self.asked.append(list(plans))
        return {name: (self.told[name].pop(0),) for name in plans}


PLAN = keep_all(trace(Plain(), torch.zeros(1, 1, 8, 8)))


def test_only_what_was_disturbed_is_timed_again() -> None:
    busy = Busy({"calm": [timing(2.0)], "off": [timing(9.0, spread=3.0), timing(1.9), timing(2.1)]})
    found = steadily(busy, {"calm": PLAN, "off": PLAN})
    assert busy.asked == [["calm", "off"], ["off"], ["off"]]
    assert [each.times_faster for (each,) in found["calm"]] == [2.0]
    assert middle([each for (each,) in found["off"]]).times_faster == 2.1


def test_a_larger_batch_that_was_disturbed_counts_too() -> None:
    def watch(plans: Mapping[str, Plan]) -> dict[str, tuple[Timing, ...]]:
        return {name: (timing(2.0), timing(2.0, spread=1.6)) for name in plans}

    assert [len(timings) for timings in steadily(watch, {"a": PLAN})["a"]] == [2, 2, 2]


def test_nothing_is_timed_where_there_is_no_plan() -> None:
    busy = Busy({})
    assert (steadily(busy, {}), busy.asked) == ({}, [])


def test_noise_is_one_run_in_ten_that_takes_half_as_long_again() -> None:
    assert is_noisy(timing(2.0, spread=1.51))
    assert not is_noisy(timing(2.0, spread=1.49))
