"""A trace of requests against the measured service times: what a policy would deliver, a day in seconds.

One server answers in the order of arrival and never stops in the middle of a request. Every `step_s` the policy is
asked; another variant answers from the next request on, once it is open. Between two questions all requests are
computed at once: departures of a queue are cumulated maxima.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from prunit.edge.portfolio import Portfolio
from prunit.edge.switching.link import Link
from prunit.edge.switching.policy import ArrivalRate, Conditions, Option, Policy, ServiceTimes
from prunit.errors import ConfigError

Slowdown = Callable[[float], float]
"""How many times longer than measured answers take at a moment (in seconds)."""


@dataclass(frozen=True)
class Outcome:
    """What became of a trace.

    in_time    share of the requests answered within the target
    accuracy   mean over all requests of the accuracy of the variant that answered
    delivered  mean of accuracy over all requests, those that were late counting nothing
    energy     mean over all requests of the options' energy (macs, unless they say otherwise)
    """

    requests: int
    in_time: float
    accuracy: float
    delivered: float
    p50_ms: float
    p99_ms: float
    switches: int
    energy: float
    by_variant: Mapping[str, float]
    """Share of the requests that each variant answered."""


@dataclass(frozen=True)
class Service:
    """How long a variant takes: quantiles of measured times, by which random ones are drawn."""

    p50_ms: float
    p90_ms: float
    p99_ms: float

    @property
    def least_s(self) -> float:
        """No answer takes less."""
        return max(2 * self.p50_ms - self.p90_ms, 0.8 * self.p50_ms) / 1000

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Seconds of so many answers."""
        points = (1000 * self.least_s, self.p50_ms, self.p90_ms, self.p99_ms, self.p99_ms)
        return np.interp(rng.random(count), (0.0, 0.5, 0.9, 0.99, 1.0), points) / 1000


def services_of(portfolio: Portfolio) -> dict[str, Service]:
    """The measured times of each variant for one image; `ConfigError` for one that was not measured."""
    found: dict[str, Service] = {}
    for variant in portfolio.variants:
        latency = next((each for each in variant.metrics.latencies if each.batch == 1), None)
        if latency is None:
            raise ConfigError(f"variant '{variant.name}' was not measured: run prunit bench DIR --save first")
        found[variant.name] = Service(latency.p50_ms, latency.p90_ms, latency.p99_ms)
    return found


@dataclass
class Simulation:
    """Options and their real service times; `open_ms` is what opening a variant takes, 0 for all that are resident."""

    options: Sequence[Option]
    services: Mapping[str, Service]
    target_ms: float
    step_s: float = 0.25
    open_ms: float = 0.0
    slowdown: Slowdown = lambda now_s: 1.0
    learn: bool = True
    """The policy is told how much slower answers are than measured, as `ServiceTimes` learns it."""
    battery: Callable[[float], float | None] = lambda now_s: None
    link: Link | None = None
    """Over which requests come; what is given is when they are sent then, and latencies count from there."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.target_ms <= 0 or self.step_s <= 0:
            raise ConfigError(f"target {self.target_ms:g} ms and step {self.step_s:g} s must be more than 0")

    def run(self, policy: Policy, sent_s: np.ndarray) -> Outcome:
        """What the policy delivers on requests that are sent at these ascending times, in seconds."""
        if not len(sent_s):
            raise ConfigError("the trace holds no request")
        arrivals_s = self.link.arrivals(sent_s) if self.link else sent_s
        rng = np.random.default_rng(self.seed)
        times = ServiceTimes({o.name: o.service_ms for o in self.options})
        active = max(self.options, key=lambda o: o.accuracy).name
        since_s, free_s, waiting, ready_s = 0.0, 0.0, 0, 0.0
        coming, switches = "", 0
        names = np.empty(len(arrivals_s), dtype=np.int16)
        latency_s = np.empty(len(arrivals_s))
        index = {option.name: i for i, option in enumerate(self.options)}
        steps = int(arrivals_s[-1] / self.step_s) + 2
        bounds = np.searchsorted(arrivals_s, np.arange(steps + 1) * self.step_s)
        rate, step = ArrivalRate(), 0
        while waiting < len(arrivals_s):
            now_s = step * self.step_s
            come = int(bounds[min(step, steps)])
            if step:
                rate.observe(come - int(bounds[min(step - 1, steps)]), self.step_s)
            conditions = Conditions(
                now_s=now_s,
                active=active,
                active_for_s=now_s - since_s,
                arrival_rate=rate.per_s,
                queue_length=max(come - waiting, 0),
                target_ms=self.target_ms,
                battery=self.battery(now_s),
                slowdown=times.slowdown if self.learn else 1.0,
                bandwidth_kbps=self.link.kbps_at(now_s) if self.link else None,
                request_bytes=self.link.request_bytes if self.link else 0,
            )
            wanted = policy(conditions, self.options)
            if not step:  # what a device begins with is no switch
                active = wanted
            if wanted != (coming or active):
                coming, ready_s = (wanted if wanted != active else ""), now_s + self.open_ms / 1000
            step += 1
            for until_s in sorted({min(max(ready_s, now_s), step * self.step_s), step * self.step_s}):
                if coming and ready_s <= now_s:
                    active, coming, since_s, switches = coming, "", now_s, switches + 1
                pace = self.slowdown(now_s)
                # No more can be begun until then: a long queue is not computed anew at each step.
                most = 2 + int((until_s - now_s) / (self.services[active].least_s * pace))
                first, last = waiting, min(int(bounds[min(step, steps)]), waiting + most)
                took = self.services[active].draw(last - first, rng) * pace
                leaves = departures(arrivals_s[first:last], took, free_s)
                served = int(np.searchsorted(leaves - took, until_s)) if last > first else 0
                if served:
                    free_s, waiting = float(leaves[served - 1]), first + served
                    latency_s[first:waiting] = leaves[:served] - sent_s[first:waiting]
                    names[first:waiting] = index[active]
                    mean_ms = 1000 * float(took[:served].mean())
                    for _ in range(min(served, 20)):
                        times.observe(active, mean_ms)
                now_s = until_s
        return outcome(self.options, names, 1000 * latency_s, self.target_ms, switches)

    def oracle(self, sent_s: np.ndarray) -> Outcome:
        """What one who knows every arrival could deliver who begins each step with an empty queue.

        In each step the variant that delivers most there. No policy can know that, or is given that start: it is what
        to measure regret by.
        """
        rng = np.random.default_rng(self.seed)
        arrivals_s = self.link.arrivals(sent_s) if self.link else sent_s
        accuracies = np.array([option.accuracy for option in self.options])
        names = np.empty(len(arrivals_s), dtype=np.int16)
        latency_ms = np.empty(len(arrivals_s))
        steps = int(arrivals_s[-1] / self.step_s) + 2
        bounds = np.searchsorted(arrivals_s, np.arange(steps + 1) * self.step_s)
        switches, before = 0, -1
        for step, (first, last) in enumerate(pairwise(bounds)):
            if first == last:
                continue
            mine, sent = arrivals_s[first:last], sent_s[first:last]
            pace = self.slowdown(step * self.step_s)
            found = [
                1000 * (departures(mine, self.services[o.name].draw(last - first, rng) * pace, 0.0) - sent)
                for o in self.options
            ]
            worth = [a * int((ms <= self.target_ms).sum()) for a, ms in zip(accuracies, found, strict=True)]
            best = int(np.argmax(worth))
            names[first:last], latency_ms[first:last] = best, found[best]
            switches, before = switches + (before not in (-1, best)), best
        return outcome(self.options, names, latency_ms, self.target_ms, switches)


def outcome(
    options: Sequence[Option], names: np.ndarray, latency_ms: np.ndarray, target_ms: float, switches: int
) -> Outcome:
    """The figures of requests that were answered by the options with these indices after so many milliseconds each."""
    in_time = latency_ms <= target_ms
    accuracies = np.array([option.accuracy for option in options])[names]
    energy = np.array([option.energy for option in options])[names]
    counts = np.bincount(names, minlength=len(options))
    return Outcome(
        requests=len(names),
        in_time=float(in_time.mean()),
        accuracy=float(accuracies.mean()),
        delivered=float((accuracies * in_time).mean()),
        p50_ms=float(np.percentile(latency_ms, 50)),
        p99_ms=float(np.percentile(latency_ms, 99)),
        switches=switches,
        energy=float(energy.mean()),
        by_variant={o.name: float(n) / len(names) for o, n in zip(options, counts, strict=True)},
    )


def departures(arrivals_s: np.ndarray, took_s: np.ndarray, free_s: float) -> np.ndarray:
    """When each request is answered, in the order of arrival, by a server that is free from `free_s` on.

    Departure j is the largest, over l ≤ j, of the arrival of l and the service of l to j (Lindley 1952).
    """
    done = np.cumsum(took_s)
    before = done - took_s
    return done + np.maximum(np.maximum.accumulate(arrivals_s - before), free_s) if len(done) else done
