"""A bounded queue of requests, and the thread that answers them in batches.

What waits is answered together, as many as half of the target allows: who comes while a batch is computed waits for at
most that half, and has the other one for itself. Nobody waits for a batch to fill.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from prunit.edge.serve.settings import Refusal
from prunit.edge.session import Array
from prunit.edge.switching.switch import Switcher
from prunit.errors import PrunitError

_WEIGHT: Final = 0.2
"""Of one batch's time in the mean of those of its size."""


class Result(NamedTuple):
    """The outputs for a request's images, who gave them and in what time; `batch` images were computed together."""

    outputs: tuple[Array, ...]
    variant: str
    queue_ms: float
    compute_ms: float
    batch: int

    @property
    def output(self) -> Array:
        """The first output, of most models the only one."""
        return self.outputs[0]


@dataclass(slots=True)
class Job:
    """A request that waits. `variant` if it wants a certain one; `deadline` by the clock `time.perf_counter`."""

    x_BCHW: Array
    variant: str | None = None
    deadline: float = float("inf")
    came: float = field(default_factory=time.perf_counter)
    waiter: Any = None
    """Who is told; only `deliver` looks at it."""


Outcome = Result | Exception
Deliver = Callable[[list[tuple[Job, Outcome]]], None]


class BatchTimes:
    """How long batches of each size take, by variant: learned as they come, at first the measured time times size."""

    def __init__(self, one_ms: Callable[[str], float]) -> None:
        self._one_ms, self._found = one_ms, dict[str, dict[int, float]]()

    def observe(self, variant: str, size: int, ms: float) -> None:
        """A batch of so many images took so long."""
        mine = self._found.setdefault(variant, {})
        mine[size] = ms if size not in mine else mine[size] + _WEIGHT * (ms - mine[size])

    def expected_ms(self, variant: str, size: int) -> float:
        """By the nearest size that was seen and is not larger; a larger batch takes at most its multiple."""
        mine = self._found.get(variant, {})
        nearest = max((seen for seen in mine if seen <= size), default=None)
        if nearest is None:
            return size * min([self._one_ms(variant), *(ms / seen for seen, ms in mine.items())])
        return mine[nearest] * size / nearest

    def forget(self) -> None:
        """Of variants that were exchanged."""
        self._found.clear()


class Batcher:
    """Takes jobs from any thread, answers them in their order in one of its own, and tells `deliver` of each batch."""

    def __init__(
        self,
        switcher: Switcher,
        deliver: Deliver,
        *,
        target_ms: Callable[[], float],
        one_ms: Callable[[str], float],
        queue: int,
        max_batch: int,
        observe: Callable[[str, float], None] = lambda variant, ms: None,
    ) -> None:
        self._switcher, self._deliver, self._target_ms, self._observe = switcher, deliver, target_ms, observe
        self._most, self._max_batch = queue, max_batch
        self.times = BatchTimes(one_ms)
        self._queue: deque[Job] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._busy = False
        """A batch is being computed, by the thread or by who called `begin`."""
        self.here_s = 0.0
        """Seconds that `begin` has computed."""
        self.arrived = 0
        """Requests that were taken so far."""
        self._thread = threading.Thread(target=self._loop, name="prunit-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue, without those that are being computed."""
        return len(self._queue)

    def submit(self, job: Job, *, wake: bool = True) -> None:
        """Take a job, or refuse it: 429 if the queue is full, 503 once it is closed. Without `wake` `begin` has to be
        called afterwards.
        """
        with self._change:
            if self._closing:
                raise Refusal(503, "the server is going down", retry_after_s=1)
            if len(self._queue) >= self._most:
                raise Refusal(429, f"{self._most} requests wait already", retry_after_s=1)
            self._queue.append(job)
            self.arrived += 1
            if wake and len(self._queue) == 1:
                self._change.notify()

    def begin(self, within_ms: float) -> list[tuple[Job, Outcome]]:
        """Have what waits answered: a single job that takes so long at most here and now, anything else by the thread.

        Gives what was answered here.
        """
        with self._change:
            if self._busy or len(self._queue) != 1 or self._closing or not self._is_short(self._queue[0], within_ms):
                self._change.notify()
                return []
            self._busy = True
            jobs = [self._queue.popleft()]
        began = time.thread_time()
        found = self._outcomes(jobs, here=True)
        self.here_s += time.thread_time() - began
        with self._change:
            self._busy = False
            if not found:  # there is more to do than to compute
                self._queue.extendleft(jobs)
            if self._queue or self._closing:
                self._change.notify()
        return found

    def _is_short(self, job: Job, within_ms: float) -> bool:
        return self.times.expected_ms(job.variant or self._switcher.active, len(job.x_BCHW)) <= within_ms

    def close(self) -> None:
        """Answer what waits, take no more, and end."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._change:
                while self._busy or not (self._queue or self._closing):
                    self._change.wait()
                if not self._queue:
                    return
                jobs, self._busy = self._taken(), True
            found = self._outcomes(jobs)
            with self._change:
                self._busy = False
            self._deliver(found)

    def _outcomes(self, jobs: list[Job], *, here: bool = False) -> list[tuple[Job, Outcome]]:
        """Answers, and refusals of jobs that are late; nothing if `here`, on the event loop, it would take longer."""
        now = time.perf_counter()
        found: list[tuple[Job, Outcome]] = []
        if any(job.deadline <= now for job in jobs):
            late = Refusal(504, "the request's time was over before it was its turn")
            found = [(job, late) for job in jobs if job.deadline <= now]
            jobs = [job for job in jobs if job.deadline > now]
        if jobs:
            found += self._answers(jobs, here=here)
        return found

    def _taken(self) -> list[Job]:
        """Under the lock: the first job, and those behind it that can be answered with it."""
        jobs = [self._queue.popleft()]
        variant = jobs[0].variant or self._switcher.active
        size, allowed_ms = len(jobs[0].x_BCHW), self._target_ms() / 2
        while self._queue and self._queue[0].variant == jobs[0].variant:
            more = size + len(self._queue[0].x_BCHW)
            if more > self._max_batch or self.times.expected_ms(variant, more) > allowed_ms:
                break
            jobs.append(self._queue.popleft())
            size = more
        return jobs

    def _answers(self, jobs: list[Job], *, here: bool = False) -> Iterable[tuple[Job, Outcome]]:
        begun = time.perf_counter()
        try:
            x_BCHW = jobs[0].x_BCHW if len(jobs) == 1 else np.concatenate([job.x_BCHW for job in jobs])
            ask = self._switcher.attempt if here else self._switcher.run
            answer = ask(x_BCHW, jobs[0].variant)
            if answer is None:
                return []
        except Exception as error:  # whatever an engine throws
            if len(jobs) == 1:
                return [(jobs[0], error if isinstance(error, PrunitError) else _hidden(error))]
            # One of them may be to blame: the others are not to suffer for it.
            return [pair for job in jobs for pair in self._answers([job])]
        took_ms, size = 1000 * (time.perf_counter() - begun), len(x_BCHW)
        self.times.observe(answer.variant, size, took_ms)
        self._observe(answer.variant, took_ms / size)
        found: list[tuple[Job, Outcome]] = []
        start = 0
        for job in jobs:
            end = start + len(job.x_BCHW)
            own = tuple(output[start:end] for output in answer.outputs)
            found.append((job, Result(own, answer.variant, 1000 * (begun - job.came), took_ms, size)))
            start = end
        return found


def _hidden(error: Exception) -> Exception:
    found = RuntimeError("the engine failed on this request")
    found.__cause__ = error
    return found
