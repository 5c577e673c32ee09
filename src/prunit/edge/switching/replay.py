"""A trace of requests for real: against a `Switcher`, in real time, to check what `simulate` says."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from prunit.edge.session import Array
from prunit.edge.switching.link import Link
from prunit.edge.switching.policy import Option, Policy
from prunit.edge.switching.simulate import Outcome, outcome
from prunit.edge.switching.steering import Load, Steering
from prunit.edge.switching.switch import Switcher
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
    sent_s: np.ndarray,
    options: Sequence[Option],
    *,
    target_ms: float,
    step_s: float = 0.25,
    learn: bool = True,
    link: Link | None = None,
) -> Replayed:
    """What a policy delivers in real time: as long as the last request says, one request after the other.

    Requests wait in a queue from the moment at which they arrive, whether or not this process wakes in time for it;
    one thread answers them in order, on a random image. The policy is asked every `step_s`. With a `link` requests
    arrive when it has carried them; that alone is computed.
    """
    shape = switcher.portfolio.variant(switcher.active).artifact.input_shape
    rng = np.random.default_rng(0)
    images: list[Array] = [rng.standard_normal((1, *shape), dtype=np.float32) for _ in range(8)]
    run = _Run(switcher, sent_s, link.arrivals(sent_s) if link else sent_s, time.perf_counter() + 0.05)
    steering = Steering(
        *(switcher, policy, options, run.load),
        target_ms=target_ms,
        step_s=step_s,
        learn=learn,
        link=link,
        clock=lambda: time.perf_counter() - run.started,
    )
    steering.start()
    try:
        run.answer(images, steering)
    finally:
        steering.close()
    names = {option.name: i for i, option in enumerate(options)}
    answered = np.array([names[name] for name in run.names if name is not None], dtype=np.int16)
    latency_ms = np.array([ms for name, ms in zip(run.names, run.latencies_ms, strict=True) if name is not None])
    swaps = [event.ms for event in switcher.events if event.kind == "switched"] or [0.0]
    return Replayed(
        outcome=outcome(options, answered, latency_ms, target_ms, steering.switches),
        lost=run.names.count(None) + len(sent_s) - len(run.names),
        switch_errors=(*run.errors, *steering.errors),
        swap_p50_ms=float(np.percentile(swaps, 50)),
        swap_p99_ms=float(np.percentile(swaps, 99)),
    )


@dataclass
class _Run:
    switcher: Switcher
    sent_s: np.ndarray
    arrivals_s: np.ndarray
    started: float
    names: list[str | None] = field(default_factory=list[str | None])
    latencies_ms: list[float] = field(default_factory=list[float])
    errors: list[str] = field(default_factory=list[str])
    answered: int = 0

    def load(self) -> Load:
        """What has come and what waits, at this moment."""
        come = int(np.searchsorted(self.arrivals_s, time.perf_counter() - self.started))
        return Load(come, max(come - self.answered, 0))

    def answer(self, images: Sequence[Array], steering: Steering) -> None:
        """Answer every request at its time or as soon as the ones before it are answered."""
        for i, (sent_s, arrival_s) in enumerate(zip(self.sent_s.tolist(), self.arrivals_s.tolist(), strict=True)):
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
                steering.observe(name, 1000 * (done - begun))
            self.names.append(name)
            self.latencies_ms.append(1000 * (done - self.started - sent_s))
            self.answered = i + 1
