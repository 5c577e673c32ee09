"""A trace of requests for real: against a `Switcher`, in real time, to check what `simulate` says."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunit.edge.policy import ArrivalRate, Conditions, Option, Policy, ServiceTimes
from prunit.edge.session import Array
from prunit.edge.simulate import Outcome, outcome
from prunit.edge.switch import Switcher
from prunit.errors import PrunitError


@dataclass(frozen=True)
class Replayed:
    """What became of the trace, and what the switcher told of: requests without an answer, and errors of switches."""

    outcome: Outcome
    lost: int
    switch_errors: tuple[str, ...]
    swap_p50_ms: float
    swap_p99_ms: float
    """From the wish to the variant being active, opening it included where it was not open."""


def replay(
    switcher: Switcher,
    policy: Policy,
    arrivals_s: np.ndarray,
    options: Sequence[Option],
    *,
    target_ms: float,
    step_s: float = 0.25,
    learn: bool = True,
) -> Replayed:
    """What a policy delivers in real time: as long as the last arrival says, one request after the other.

    Requests wait in a queue from the moment at which they arrive, whether or not this process wakes in time for it;
    one thread answers them in order, on a random image. The policy is asked every `step_s`.
    """
    shape = switcher.portfolio.variant(switcher.active).artifact.input_shape
    rng = np.random.default_rng(0)
    images: list[Array] = [rng.standard_normal((1, *shape), dtype=np.float32) for _ in range(8)]
    run = _Run(switcher, policy, arrivals_s, options, target_ms, step_s, ServiceTimes(_expected(options)), learn)
    asking = threading.Thread(target=run.ask, daemon=True)
    run.begin()
    asking.start()
    try:
        run.answer(images)
    finally:
        run.over.set()
        asking.join()
    names = {option.name: i for i, option in enumerate(options)}
    answered = np.array([names[name] for name in run.names if name is not None], dtype=np.int16)
    latency_ms = np.array([ms for name, ms in zip(run.names, run.latencies_ms, strict=True) if name is not None])
    swaps = [event.ms for event in switcher.events if event.kind == "switched"] or [0.0]
    return Replayed(
        outcome=outcome(options, answered, latency_ms, target_ms, run.switches),
        lost=run.names.count(None) + len(arrivals_s) - len(run.names),
        switch_errors=tuple(run.errors),
        swap_p50_ms=float(np.percentile(swaps, 50)),
        swap_p99_ms=float(np.percentile(swaps, 99)),
    )


def _expected(options: Sequence[Option]) -> dict[str, float]:
    return {option.name: option.service_ms for option in options}


@dataclass
class _Run:
    switcher: Switcher
    policy: Policy
    arrivals_s: np.ndarray
    options: Sequence[Option]
    target_ms: float
    step_s: float
    times: ServiceTimes
    learn: bool

    def begin(self) -> None:
        self.over = threading.Event()
        self.names: list[str | None] = []
        self.latencies_ms: list[float] = []
        self.errors: list[str] = []
        self.switches = 0
        self.answered = 0
        self.started = time.perf_counter() + 0.05
        self.since = self.started

    def answer(self, images: Sequence[Array]) -> None:
        """Answer every request at its time or as soon as the ones before it are answered."""
        for i, arrival_s in enumerate(self.arrivals_s.tolist()):
            wait_s = self.started + arrival_s - time.perf_counter()
            if wait_s > 0.0005:
                time.sleep(wait_s - 0.0003)
            while time.perf_counter() < self.started + arrival_s:
                pass  # a sleep comes too late by up to a millisecond, which is as long as an answer
            begun = time.perf_counter()
            try:
                name: str | None = self.switcher.run(images[i % len(images)]).variant
            except PrunitError as error:
                name = None
                self.errors.append(str(error))
            done = time.perf_counter()
            if name is not None:
                self.times.observe(name, 1000 * (done - begun))
            self.names.append(name)
            self.latencies_ms.append(1000 * (done - self.started - arrival_s))
            self.answered = i + 1

    def ask(self) -> None:
        """Ask the policy every step, and do what it says."""
        rate, before = ArrivalRate(), 0
        while not self.over.wait(self.step_s):
            now = time.perf_counter()
            come = int(np.searchsorted(self.arrivals_s, now - self.started))
            rate.observe(come - before, self.step_s)
            before = come
            active = self.switcher.active
            wanted = self.policy(
                Conditions(
                    now_s=now - self.started,
                    active=active,
                    active_for_s=now - self.since,
                    arrival_rate=rate.per_s,
                    queue_length=max(come - self.answered, 0),
                    target_ms=self.target_ms,
                    slowdown=self.times.slowdown if self.learn else 1.0,
                ),
                self.options,
            )
            if wanted != active:
                wish = self.switcher.switch(wanted)
                if wish.wait(10) and wish.error is None:
                    self.switches, self.since = self.switches + 1, time.perf_counter()
                elif wish.error is not None:
                    self.errors.append(str(wish.error))
