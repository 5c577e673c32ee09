"""Which variant should run now: pure functions of `Conditions`.

A policy is told what is going on and what there is, and names a variant; it keeps nothing. What it must remember, the
active variant and how long it has been active, stands in the conditions. So the same policy can be simulated, replayed
and served, and gives the same answers.

    accurate   the most accurate variant that keeps a share of the answers in time at this rate of arrivals
    queue      the same with the queue as it is; to a faster variant at once, to a slower one after a while
    delivered  the variant whose accuracy times its share of answers in time is highest
    saver      as `queue`, but the lower the battery or the hotter the device, the cheaper the variants it may choose
    fixed      one variant, always
    schedule   variants by the time of day
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from prunit.edge.portfolio import Portfolio, Variant
from prunit.errors import ConfigError, unknown


@dataclass(frozen=True)
class Option:
    """A variant as a policy sees it: `service_ms` is what one request takes, `energy` in any unit (macs by default)."""

    name: str
    accuracy: float
    service_ms: float
    memory_bytes: int = 0
    energy: float = 0.0


@dataclass(frozen=True)
class Conditions:
    """What is going on. None: not known, and no policy asks for it then.

    `arrival_rate` in requests per second; `queue_length` of requests that wait; `target_ms` from a request's arrival
    to its answer; `memory_bytes` that variants may take; `battery` 0 to 1, while not charging; `throttled`: the device
    has lowered its clock, or is about to; `slowdown` how many times longer answers take now than the options say;
    `bandwidth_kbps` of the link over which requests of `request_bytes` come, if the target counts from their sending;
    `around_ms` that a server computes around each answer, `alongside` the engine if it has another core for that.
    """

    now_s: float
    active: str
    active_for_s: float
    arrival_rate: float
    queue_length: int
    target_ms: float
    memory_bytes: int | None = None
    battery: float | None = None
    throttled: bool = False
    slowdown: float = 1.0
    bandwidth_kbps: float | None = None
    request_bytes: int = 0
    around_ms: float = 0.0
    alongside: bool = True

    @property
    def left_ms(self) -> float:
        """What is left of the target when a request has crossed the link."""
        if self.bandwidth_kbps is None:
            return self.target_ms
        return self.target_ms - 8 * self.request_bytes / max(self.bandwidth_kbps, 1e-9)


Policy = Callable[[Conditions, Sequence[Option]], str]
"""Names one of the options."""


def options_of(portfolio: Portfolio) -> list[Option]:
    """The variants with what was measured of them; `ConfigError` for one without accuracy or latency."""
    return [option_of(variant) for variant in portfolio.variants]


def option_of(variant: Variant) -> Option:
    """A variant with what was measured of it; `ConfigError` without accuracy or latency."""
    metrics, service_ms = variant.metrics, variant.metrics.latency_ms()
    if service_ms is None or metrics.accuracy is None:
        lacks = "latency" if service_ms is None else "accuracy"
        raise ConfigError(f"variant '{variant.name}' has no {lacks} in the manifest: run prunit bench DIR --save first")
    return Option(variant.name, metrics.accuracy, service_ms, metrics.open_bytes, float(metrics.macs))


def late_share(rate: float, service_ms: float, target_ms: float) -> float:
    """The share of requests that are late in the long run at a rate of arrivals per second, 1 for an overload.

    The tail of the waiting time in an M/D/1 queue (random arrivals, equal service times s, ρ = rate · s) is
    (1 − ρ) / (ρ e^x − 1) · exp(−x t / s) with e^x − 1 = x / ρ: the Cramér–Lundberg estimate (Asmussen, "Applied
    probability and queues", 2003).
    """
    busy, free_ms = rate * service_ms / 1000, target_ms - service_ms
    if busy > 1 - 1e-6 or free_ms < 0:  # just below 1 the root is 0 within rounding, and all but all are late
        return 1.0
    if busy < 1e-9:
        return 0.0
    x = min(2 * (1 - busy) / busy, 2 - 2 * math.log(busy))  # above the root, from where Newton comes down to it
    for _ in range(30):
        x -= (math.expm1(x) - x / busy) / (math.exp(x) - 1 / busy)
    return min(1.0, (1 - busy) / (busy * math.exp(x) - 1) * math.exp(-x * free_ms / service_ms))


@dataclass(frozen=True)
class Accurate:
    """The most accurate variant of whose answers at most the share `late` is late at this rate."""

    late: float = 0.01

    def __call__(self, conditions: Conditions, options: Sequence[Option]) -> str:
        """The name of the variant."""
        found = [o for o in _allowed(conditions, options) if _late(o, conditions) <= self.late]
        return _best(found, conditions, options)


@dataclass(frozen=True)
class Queue:
    """As `Accurate`, and only variants that answer the requests that wait now in time.

    To a faster variant at once; to a slower one only if fewer than `late` times `margin` would be late, and after
    `dwell_s` on the present one: requests come in bursts, and switching back and forth costs accuracy and delays.
    """

    late: float = 0.01
    margin: float = 0.5
    dwell_s: float = 2.0

    def __call__(self, conditions: Conditions, options: Sequence[Option]) -> str:
        """The name of the variant."""
        return self.choose(conditions, _allowed(conditions, options), options)

    def choose(self, conditions: Conditions, allowed: Sequence[Option], options: Sequence[Option]) -> str:
        """As a call, of the options that are allowed."""
        active = next((o for o in options if o.name == conditions.active), None)
        found = [option for option in allowed if self._holds(option, conditions, active)]
        if active in found and conditions.active_for_s < self.dwell_s:
            found = [o for o in found if o.service_ms <= active.service_ms]
        return _best(found, conditions, options)

    def _holds(self, option: Option, conditions: Conditions, active: Option | None) -> bool:
        slower = active is not None and option.service_ms > active.service_ms
        if _late(option, conditions) > self.late * (self.margin if slower else 1):
            return False
        return (conditions.queue_length + 1) * option.service_ms * conditions.slowdown <= conditions.left_ms


@dataclass(frozen=True)
class Delivered:
    """The variant that delivers most: its accuracy times the share of its answers that is in time.

    A few late answers of an accurate variant may be worth more than answers in time of a poor one. Slower variants
    only after `dwell_s` on the present one and for a gain of `gain` at least.
    """

    gain: float = 0.005
    dwell_s: float = 2.0

    def __call__(self, conditions: Conditions, options: Sequence[Option]) -> str:
        """The name of the variant."""
        allowed = _allowed(conditions, options)
        worth = {o.name: self._worth(o, conditions) for o in allowed}
        best = max(allowed, key=lambda o: (worth[o.name], -o.service_ms), default=None)
        if best is None or worth[best.name] < 1e-6:
            return _best([], conditions, options)
        active = next((o for o in allowed if o.name == conditions.active), None)
        if active is not None and best.service_ms > active.service_ms and worth[active.name] > 0:
            early = conditions.active_for_s < self.dwell_s
            if early or worth[best.name] < worth[active.name] + self.gain:
                return active.name
        return best.name

    def _worth(self, option: Option, conditions: Conditions) -> float:
        """Accuracy times the share in time, of what waits and of what comes in the next `dwell_s`."""
        service_ms, rate = option.service_ms * conditions.slowdown, conditions.arrival_rate
        late, waiting = _late(option, conditions), conditions.queue_length
        over_ms = (waiting + 1) * service_ms - conditions.left_ms
        if over_ms > 0 and late < 1:
            # What waits is late, and so is what comes until the server has caught up.
            catching_up_s = over_ms / 1000 / (1 - rate * service_ms / 1000)
            late += (1 - late) * min(1.0, (waiting + rate * catching_up_s) / (waiting + rate * self.dwell_s))
        return option.accuracy * (1 - late)


def _late(option: Option, conditions: Conditions) -> float:
    """The share of late answers in the long run. What is around them takes turns with the engine, or runs beside it."""
    engine_ms, around_ms = option.service_ms * conditions.slowdown, conditions.around_ms
    if not conditions.alongside:
        return late_share(conditions.arrival_rate, engine_ms + around_ms, conditions.left_ms)
    left_ms = conditions.left_ms - min(engine_ms, around_ms)
    return late_share(conditions.arrival_rate, max(engine_ms, around_ms), left_ms)


@dataclass(frozen=True)
class Saver:
    """`Queue` among variants that the battery and the temperature allow.

    Above `full` of the battery all are allowed, at `empty` the cheapest alone, and in between those whose energy is at
    most that share of the way from the cheapest to the dearest. A throttled device counts as half empty at most.
    """

    queue: Queue = field(default_factory=Queue)
    full: float = 0.5
    empty: float = 0.1

    def __call__(self, conditions: Conditions, options: Sequence[Option]) -> str:
        """The name of the variant."""
        battery = 1.0 if conditions.battery is None else conditions.battery
        share = min(max((battery - self.empty) / (self.full - self.empty), 0.0), 1.0)
        share = min(share, 0.5) if conditions.throttled else share
        least, most = min(o.energy for o in options), max(o.energy for o in options)
        allowed = [o for o in _allowed(conditions, options) if o.energy <= least + share * (most - least)]
        cheap = allowed or [min(options, key=lambda o: o.energy)]
        return self.queue.choose(conditions, cheap, cheap)


@dataclass(frozen=True)
class Fixed:
    """One variant, whatever happens; the most accurate one without a name."""

    name: str = ""

    def __call__(self, conditions: Conditions, options: Sequence[Option]) -> str:
        """The name of the variant; `UnknownNameError` if it is not there."""
        if not self.name:
            return max(options, key=lambda o: o.accuracy).name
        if self.name not in {o.name for o in options}:
            raise unknown("variant", self.name, [o.name for o in options])
        return self.name


@dataclass(frozen=True)
class Schedule:
    """Variants by the time of day: pairs of hours (0 to 24, of `now_s` in UTC) and names, in ascending order.

    Before the first hour of a day the last one of the day before holds.
    """

    times: tuple[tuple[float, str], ...]

    def __call__(self, conditions: Conditions, options: Sequence[Option]) -> str:
        """The name of the variant; `UnknownNameError` if it is not there."""
        hour = conditions.now_s / 3600 % 24
        name = next((name for since, name in reversed(self.times) if since <= hour), self.times[-1][1])
        return Fixed(name)(conditions, options)


POLICIES: Final[Mapping[str, Callable[..., Policy]]] = {
    "accurate": Accurate,
    "queue": Queue,
    "delivered": Delivered,
    "saver": Saver,
    "fixed": Fixed,
    "schedule": Schedule,
}
"""By name, as `prunit simulate --policy` has them; each is called with its own settings."""


def policy(text: str) -> Policy:
    """The policy in a text: NAME, `fixed:VARIANT`, `schedule:8=small,20=dense`, or NAME:SETTING=NUMBER,…

    Raises `UnknownNameError` or `ConfigError` for what is none.
    """
    name, _, rest = text.partition(":")
    if name not in POLICIES:
        raise unknown("policy", name, POLICIES)
    parts = [part.strip() for part in rest.split(",") if part.strip()]
    if name == "fixed":
        return Fixed(rest)
    try:
        pairs = [(key.strip(), value.strip()) for key, _, value in (part.partition("=") for part in parts)]
        if name == "schedule":
            if not pairs:
                raise ConfigError("schedule: give hours and variants, schedule:8=small,20=dense")
            return Schedule(tuple(sorted((float(hour), variant) for hour, variant in pairs)))
        settings: dict[str, Any] = {key: float(value) for key, value in pairs}
        return Saver(Queue(**settings)) if name == "saver" else POLICIES[name](**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"policy '{text}': {error}; settings are numbers, for example queue:dwell_s=5") from error


def _allowed(conditions: Conditions, options: Sequence[Option]) -> list[Option]:
    """Those for which there is memory."""
    most = conditions.memory_bytes
    return [o for o in options if most is None or o.memory_bytes <= most]


def _best(found: Sequence[Option], conditions: Conditions, options: Sequence[Option]) -> str:
    """The most accurate of what holds; the fastest that there is memory for if nothing does, so that queues drain."""
    if found:
        return max(found, key=lambda o: (o.accuracy, -o.service_ms)).name
    left = _allowed(conditions, options) or [min(options, key=lambda o: o.memory_bytes)]
    return min(left, key=lambda o: o.service_ms).name


@dataclass
class ArrivalRate:
    """Requests per second of late: an exponential mean over about a second."""

    per_s: float = 0.0

    def observe(self, arrived: int, seconds: float) -> float:
        """The rate, after so many requests have arrived in so many seconds."""
        self.per_s += min(1.0, seconds) * (arrived / seconds - self.per_s)
        return self.per_s


@dataclass
class ServiceTimes:
    """What answers really take, learned as they come: how many times longer than the manifest says.

    An exponential mean of observed over expected time, of all variants together: heat, other load and another machine
    than the one that was measured slow them all. `weight` is that of one observation.
    """

    expected_ms: Mapping[str, float]
    weight: float = 0.05
    slowdown: float = 1.0

    def observe(self, name: str, ms: float) -> None:
        """One answer of a variant took so long, without its time in the queue."""
        self.slowdown += self.weight * (ms / max(self.expected_ms[name], 1e-9) - self.slowdown)
