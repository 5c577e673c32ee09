"""The queue and its thread."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunit.edge.serve.batching import Batcher, BatchTimes, Job, Outcome, Result
from prunit.edge.serve.settings import Refusal
from prunit.edge.switching.switch import Switcher
from tests.edge.folders import FACTORS, SHAPE, X_BCHW, gives, portfolio_in


@pytest.fixture(scope="module")
def switcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switcher]:
    folder = tmp_path_factory.mktemp("batching")
    portfolio_in(folder)
    with Switcher(folder, start="large") as found:
        found.preload()
        yield found


class Held:
    """A switcher whose first answer waits until it may come, so that a queue builds up."""

    def __init__(self, switcher: Switcher, broken: Callable[[Any], bool] = lambda x: False) -> None:
        self._switcher, self._broken = switcher, broken
        self.begun, self.may = threading.Event(), threading.Event()

    @property
    def active(self) -> str:
        return self._switcher.active

    def run(self, x_BCHW: Any, variant: str | None = None, /) -> Any:
        self.begun.set()
        assert self.may.wait(20)
        if self._broken(x_BCHW):
            raise ValueError("no")
        return self._switcher.run(x_BCHW, variant)


def batcher(held: Any, found: list[tuple[Job, Outcome]], **settings: Any) -> Batcher:
    defaults = {"target_ms": lambda: 1000.0, "one_ms": lambda name: 1.0, "queue": 64, "max_batch": 8}
    return Batcher(held, found.extend, **{**defaults, **settings})


def job(value: float = 1.0, **more: Any) -> Job:
    return Job(np.full((1, *SHAPE), value, np.float32), **more)


def answers(found: list[tuple[Job, Outcome]]) -> list[Result]:
    assert all(isinstance(outcome, Result) for _, outcome in found)
    return [outcome for _, outcome in found if isinstance(outcome, Result)]


def test_each_request_gets_its_own_answer_in_order(switcher: Switcher) -> None:
    held, found = Held(switcher), list[tuple[Job, Outcome]]()
    mine, jobs = batcher(held, found), [job(value) for value in range(12)]
    for each in jobs:
        mine.submit(each)
        held.begun.wait(20)
    held.may.set()
    mine.close()
    assert [done for done, _ in found] == jobs
    for each, result in zip(jobs, answers(found), strict=True):
        np.testing.assert_allclose(result.output, each.x_BCHW * FACTORS["large"], atol=1e-4)
    assert [result.batch for result in answers(found)] == [1] + [8] * 8 + [3] * 3


def test_batches_are_as_large_as_half_the_target_allows(switcher: Switcher) -> None:
    held, found = Held(switcher), list[tuple[Job, Outcome]]()
    mine = batcher(held, found, target_ms=lambda: 30.0, one_ms=lambda name: 5.0)
    mine.times.observe("large", 1, 5.0)
    for _ in range(5):
        mine.submit(job())
        held.begun.wait(20)
    mine.times.observe = lambda variant, size, ms: None  # pyright: ignore[reportAttributeAccessIssue]
    held.may.set()
    mine.close()
    assert [result.batch for result in answers(found)] == [1, 3, 3, 3, 1]


def test_a_version_is_not_answered_by_another(switcher: Switcher) -> None:
    held, found = Held(switcher), list[tuple[Job, Outcome]]()
    mine = batcher(held, found)
    for variant in (None, None, "small", "small", None):
        mine.submit(job(variant=variant))
        held.begun.wait(20)
    held.may.set()
    mine.close()
    assert [r.variant for r in answers(found)] == ["large", "large", "small", "small", "large"]
    assert [r.batch for r in answers(found)] == [1, 1, 2, 2, 1]


def test_a_full_queue_refuses_and_a_late_request_is_not_computed(switcher: Switcher) -> None:
    held, found = Held(switcher), list[tuple[Job, Outcome]]()
    mine = batcher(held, found, queue=2)
    mine.submit(job())
    held.begun.wait(20)
    late = job(deadline=time.perf_counter())
    mine.submit(late)
    mine.submit(job())
    with pytest.raises(Refusal, match="2 requests wait already") as raised:
        mine.submit(job())
    assert (raised.value.status, raised.value.retry_after_s) == (429, 1)
    held.may.set()
    mine.close()
    outcome = next(outcome for done, outcome in found if done is late)
    assert isinstance(outcome, Refusal)
    assert outcome.status == 504
    assert len(found) == 3
    with pytest.raises(Refusal) as raised:
        mine.submit(job())
    assert raised.value.status == 503


def test_one_bad_request_does_not_hurt_those_beside_it(switcher: Switcher) -> None:
    held, found = Held(switcher, broken=lambda x: bool((x == 7).any())), list[tuple[Job, Outcome]]()
    mine = batcher(held, found)
    bad = job(7.0)
    for each in (job(), job(2.0), bad, job(3.0)):
        mine.submit(each)
        held.begun.wait(20)
    held.may.set()
    mine.close()
    for done, outcome in found:
        if done is bad:
            assert isinstance(outcome, RuntimeError)
        else:
            assert isinstance(outcome, Result)
            assert gives(outcome.output, done.x_BCHW, "large")


def test_images_of_one_request_stay_together(switcher: Switcher) -> None:
    found: list[tuple[Job, Outcome]] = []
    mine = batcher(switcher, found)
    mine.submit(Job(np.concatenate([X_BCHW, 2 * X_BCHW])))
    mine.close()
    assert answers(found)[0].output.shape == (2, *SHAPE)


def test_times_of_batches_are_learned() -> None:
    times = BatchTimes(lambda name: 4.0)
    assert times.expected_ms("a", 3) == 12.0
    times.observe("a", 4, 8.0)
    assert times.expected_ms("a", 2) == 4.0  # two of what four took 2 ms each for
    assert times.expected_ms("a", 8) == 16.0
    times.observe("a", 4, 13.0)
    assert times.expected_ms("a", 4) == pytest.approx(9.0)
    times.forget()
    assert times.expected_ms("a", 3) == 12.0


class Attempted(Held):
    """One that may be asked on the spot."""

    def __init__(self, switcher: Switcher, *, able: bool = True) -> None:
        super().__init__(switcher)
        self.may.set()
        self.able, self.attempts = able, 0

    def attempt(self, x_BCHW: Any, variant: str | None = None, /) -> Any:
        self.attempts += 1
        return self._switcher.attempt(x_BCHW, variant) if self.able else None


def test_a_short_job_that_waits_alone_is_answered_on_the_spot(switcher: Switcher) -> None:
    held, found = Attempted(switcher), list[tuple[Job, Outcome]]()
    mine = batcher(held, found, one_ms=lambda name: 0.5)
    alone = job(2.0)
    mine.submit(alone, wake=False)
    ((done, outcome),) = mine.begin(1.0)
    assert done is alone
    assert isinstance(outcome, Result)
    assert gives(outcome.output, alone.x_BCHW, "large")
    late = job(deadline=time.perf_counter())
    mine.submit(late, wake=False)
    ((_, outcome),) = mine.begin(1.0)
    assert isinstance(outcome, Refusal)
    assert (found, held.begun.is_set()) == ([], False)
    mine.close()


def test_everything_else_is_left_to_the_thread(switcher: Switcher) -> None:
    """Several jobs, one that takes long, one whose variant is not open or fails, one that comes while it computes."""
    for able, one_ms, jobs in ((True, 0.5, 2), (True, 5.0, 1), (False, 0.5, 1)):
        held, found = Attempted(switcher, able=able), list[tuple[Job, Outcome]]()
        mine = batcher(held, found, one_ms=lambda name, one_ms=one_ms: one_ms)
        for _ in range(jobs):
            mine.submit(job(), wake=False)
        assert mine.begin(1.0) == []
        mine.close()
        assert [result.variant for result in answers(found)] == ["large"] * jobs
        assert held.attempts == (not able)
    held, found = Attempted(switcher), list[tuple[Job, Outcome]]()
    held.may.clear()
    mine = batcher(held, found, one_ms=lambda name: 0.5)
    mine.submit(job())
    assert held.begun.wait(20)
    mine.submit(job(), wake=False)
    assert mine.begin(1.0) == []
    held.may.set()
    mine.close()
    assert (len(answers(found)), held.attempts) == (2, 0)


def test_an_attempt_is_made_of_open_variants_alone(tmp_path: Path) -> None:
    portfolio_in(tmp_path)
    with Switcher(tmp_path, start="large") as found:
        answer = found.attempt(X_BCHW)
        assert answer is not None
        assert gives(answer.output, X_BCHW, "large")
        assert found.attempt(X_BCHW, "small") is None
        found.preload()
        assert found.attempt(X_BCHW, "small") is not None
        assert found.attempt(np.zeros((1, 2, 2), np.float32)) is None  # `run` says what is wrong with it
        assert found.failed == {}
    assert found.attempt(X_BCHW) is None
