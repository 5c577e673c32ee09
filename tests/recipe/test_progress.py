"""How long a build will still take, told from what it took so far, on a clock that is set by hand."""

import pytest

from prunit.recipe.progress import Progress, Step


class Clock:
    """A clock that only goes when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def steps() -> list[Step]:
    return []


def started(clock: Clock, steps: list[Step]) -> Progress:
    """Two variants: the small one is taken to train half as long as the dense one; 10 s of measuring in the end."""
    progress = Progress(steps.append, clock=clock)
    progress.plan_to_train({"dense": 1000, "small": 0}, probe_s=10.0)
    return progress


def test_nothing_is_foretold_before_there_is_anything_to_tell_it_from(clock: Clock, steps: list[Step]) -> None:
    progress = started(clock, steps)
    progress("dense", "train", 1, 100)
    assert steps == [Step("dense", "train", 1, 100, overall=0.0, left_s=None)]


def test_rest_follows_from_the_speed_so_far(clock: Clock, steps: list[Step]) -> None:
    progress = started(clock, steps)
    progress("dense", "train", 1, 101)
    clock.now_s += 20.0
    progress("dense", "train", 51, 101, "81.0%")
    # 50 steps took 20 s: the other 50 will too, the small variant half of all 101; two exports of 4 s are a guess.
    assert steps[-1].left_s == pytest.approx(20.0 + 20.2 + 2 * 4.0 + 10.0)
    assert steps[-1].overall == pytest.approx(20.4 / (40.4 + 20.2 + 8.0 + 10.0), rel=1e-6)
    assert steps[-1].note == "81.0%"


def test_measured_exports_replace_the_guess_and_the_rest_shrinks_to_nothing(clock: Clock, steps: list[Step]) -> None:
    progress = started(clock, steps)
    progress("dense", "train", 0, 10)
    clock.now_s += 10.0
    progress("dense", "train", 10, 10)
    progress.trained("dense")
    progress("dense", "export", 0, 0)
    clock.now_s += 2.0
    progress.exported("dense")
    progress("small", "train", 0, 10)
    assert steps[-1].left_s == pytest.approx(5.0 + 2.0 + 10.0)
    progress.trained("small")
    progress.exported("small")
    progress("small", "memory", 1, 2)
    assert steps[-1].left_s == pytest.approx(10.0)
    progress("all", "probe", 30, 40)
    assert steps[-1].left_s == pytest.approx(2.5)
    progress("all", "report", 0, 0)
    assert (steps[-1].left_s, steps[-1].overall) == (0.0, 1.0)


def test_what_an_earlier_run_trained_counts_as_done_but_not_as_speed(clock: Clock, steps: list[Step]) -> None:
    progress = started(clock, steps)
    progress.trained("dense")
    progress.exported("dense")
    # Resumed in the middle: the first 60 steps cost nothing in this run.
    progress("small", "train", 60, 100)
    assert steps[-1].left_s is None
    clock.now_s += 8.0
    progress("small", "train", 80, 100)
    assert steps[-1].left_s == pytest.approx(8.0 + 4.0 + 10.0)
    # Of 80 s and 40 s of training, 8 s of exports and 10 s of measuring.
    assert steps[-1].overall == pytest.approx(1 - 22 / 138)


def test_everything_trained_before_leaves_the_measuring(clock: Clock, steps: list[Step]) -> None:
    progress = started(clock, steps)
    for name in ("dense", "small"):
        progress.trained(name)
        progress.exported(name)
    progress("dense", "memory", 0, 2)
    assert steps[-1].left_s == pytest.approx(10.0)


def test_trainings_at_the_same_time_share_what_is_left(clock: Clock, steps: list[Step]) -> None:
    progress = Progress(steps.append, clock=clock)
    progress.plan_to_train({"dense": 1000, "small": 0, "other": 0}, probe_s=10.0, at_once=2)
    progress("dense", "train", 0, 100, place=1)
    progress("small", "train", 0, 100, place=2)
    clock.now_s += 10.0
    progress("dense", "train", 50, 100, place=1)
    progress("small", "train", 100, 100, place=2)
    # 10 s each: half of a weight of 2, and all of a weight of 1. The dense model's other half and `other` are left, at
    # the same time 10 s long; then three exports of 4 s, two at a time, and the measuring.
    assert (steps[-1].place, steps[-1].left_s) == (2, pytest.approx(10.0 + 6.0 + 10.0))
    progress.trained("small")
    progress.waits(2)
    progress.waits(2)
    assert [s.stage for s in steps].count("wait") == 1
    assert steps[-1] == Step("", "wait", 0, 0, place=2)
    progress("all", "probe", 30, 40)
    progress.trained("dense")
    progress.trained("other")
    for name in ("dense", "small", "other"):
        progress.exported(name)
    progress("all", "probe", 30, 40)
    assert steps[-1].left_s == pytest.approx(2.5)


def test_nobody_need_listen(clock: Clock) -> None:
    progress = Progress(None, clock=clock)
    progress("dense", "check", 0, 0)
    progress.plan_to_train({"dense": 5}, probe_s=1.0)
    progress("dense", "train", 1, 2)
    progress.trained("dense")
