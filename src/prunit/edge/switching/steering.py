"""Asks a policy every moment which variant should run, and makes it so: the loop around `Switcher` and `Policy`.

`replay` and the server share it, so what was replayed is what is served.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from prunit.edge import cpus
from prunit.edge.switching import sensors
from prunit.edge.switching.link import Link
from prunit.edge.switching.policy import ArrivalRate, Conditions, Option, Policy, ServiceTimes
from prunit.edge.switching.retreats import Retreats
from prunit.edge.switching.switch import Switcher
from prunit.errors import ConfigError, PrunitError, UnknownNameError

_SENSORS_S: Final = 1.0
"""Between two readings: heat and charge change slowly, and reading the kernel's files takes a millisecond."""
_LONGEST_OPENING_S: Final = 30.0
_AROUND: Final = 50
"""Requests over which what the server computes around one is averaged."""


@dataclass(frozen=True)
class Load:
    """Requests that have come so far, in total, and those of them that wait now.

    `around_s` is what the server has computed for all of them beside the engine: reading, writing, counting.
    """

    arrived: int
    waiting: int
    around_s: float = 0.0


class Steering:
    """A thread that asks the policy every `step_s` and switches.

    `load` is asked for the requests; `sensing` for the device's readings (`sensors.read`; None: no sensors are asked).
    With `learn` the policy is told how much slower answers are than the options say, as `observe` is told of them.
    `clock` gives the policy's time of day, in seconds.
    """

    def __init__(
        self,
        switcher: Switcher,
        policy: Policy,
        options: Sequence[Option],
        load: Callable[[], Load],
        *,
        target_ms: float,
        step_s: float = 0.25,
        learn: bool = True,
        link: Link | None = None,
        sensing: Callable[[], sensors.Readings] | None = sensors.read,
        memory_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
        on_step: Callable[[], None] | None = None,
    ) -> None:
        if target_ms <= 0 or step_s <= 0:
            raise ConfigError(f"target {target_ms:g} ms and step {step_s:g} s must be more than 0")
        self.switcher, self.policy, self.target_ms, self.step_s = switcher, policy, target_ms, step_s
        self.readings = sensors.Readings()
        self.conditions: Conditions | None = None
        """What the policy was told last."""
        self.switches, self.errors = 0, list[str]()
        self.pinned: str | None = None
        self._load, self._learn, self._link, self._sensing, self._clock = load, learn, link, sensing, clock
        self._memory_bytes, self._on_step = memory_bytes, on_step
        self._rate, self._retreats, self._read_at = ArrivalRate(), Retreats(), -_SENSORS_S
        self._before_load, self._around_ms = Load(0, 0), 0.0
        self._cores = len(cpus.usable())
        self._since = self._before = time.perf_counter()
        self.times = ServiceTimes({})
        self.change_options(options)
        self._over, self._stepping = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="prunit-steering", daemon=True)

    def change_options(self, options: Sequence[Option]) -> None:
        """Other variants from now on; what was learned of the device stays."""
        self.options = tuple(options)
        self.times = ServiceTimes({o.name: o.service_ms for o in options}, slowdown=self.times.slowdown)

    def observe(self, variant: str, ms: float) -> None:
        """An answer of a variant to one request took so long, without its time in the queue."""
        if variant in self.times.expected_ms:
            self.times.observe(variant, ms)

    def pin(self, variant: str | None) -> None:
        """One variant whatever the policy says, from the next step on; None: the policy's again."""
        if variant is not None:
            self.switcher.portfolio.variant(variant)
        self.pinned = variant

    def start(self) -> None:
        """Begin to ask."""
        self._since = self._before = time.perf_counter()
        self._thread.start()

    def close(self) -> None:
        """Ask no more; a switch that was asked for may still come."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def step(self) -> None:
        """Ask once, and switch if another variant is wanted."""
        with self._stepping:
            self._step()

    def _step(self) -> None:
        now, load, active = time.perf_counter(), self._load(), self.switcher.active
        seconds = max(now - self._before, 1e-6)
        come = load.arrived - self._before_load.arrived
        self._rate.observe(come, seconds)
        self._retreats.arrived(come / seconds, seconds)
        if come > 0:
            around_ms = 1000 * (load.around_s - self._before_load.around_s) / come
            self._around_ms += min(1.0, come / _AROUND) * (around_ms - self._around_ms)
        self._before_load, self._before = load, now
        if self._sensing is not None and now - self._read_at >= _SENSORS_S:
            self.readings, self._read_at = self._sensing(), now
        time_s = self._clock()
        self.conditions = Conditions(
            now_s=time_s,
            active=active,
            active_for_s=now - self._since,
            arrival_rate=self._rate.per_s,
            queue_length=load.waiting,
            target_ms=self.target_ms,
            memory_bytes=self._room(),
            battery=self.readings.battery,
            throttled=self.readings.throttled,
            slowdown=self.times.slowdown if self._learn else 1.0,
            bandwidth_kbps=self._link.kbps_at(time_s) if self._link else None,
            request_bytes=self._link.request_bytes if self._link else 0,
            around_ms=self._around_ms,
            alongside=self._cores > 1,
        )
        wanted = self._wanted(self.conditions)
        if wanted != active:
            self._switch(wanted, self.conditions)

    def _wanted(self, conditions: Conditions) -> str:
        failed = self.switcher.failed
        if self.pinned is not None and self.pinned not in failed:
            return self.pinned
        now = time.perf_counter()
        left = [
            option
            for option in self.options
            if option.name not in failed
            and (option.name == conditions.active or not self._retreats.hold_back(option.service_ms, now))
        ]
        try:
            return self.policy(conditions, left) if left else conditions.active
        except UnknownNameError:  # a fixed or scheduled variant that was put aside, or that the folder lost
            return conditions.active

    def _switch(self, wanted: str, conditions: Conditions) -> None:
        why = reason(conditions, self.options, wanted, pinned=self.pinned)
        active = next((option for option in self.options if option.name == conditions.active), None)
        if active is not None and why.startswith("load:"):
            self._retreats.gave_up(active.service_ms, conditions.arrival_rate, time.perf_counter())
        try:
            wish = self.switcher.switch(wanted, why=why)
        except UnknownNameError:  # the folder was read anew in between
            return
        if not wish.wait(_LONGEST_OPENING_S):
            self.errors.append(f"'{wanted}' was not open after {_LONGEST_OPENING_S:g} s")
        elif wish.error is not None:
            self.errors.append(str(wish.error))
        else:
            self.switches, self._since = self.switches + 1, time.perf_counter()
        del self.errors[:-100]

    def _room(self) -> int | None:
        """Bytes that variants may take: what is available and what open ones hold, or the limit if that is less."""
        available = self.readings.memory_bytes
        if available is None:
            return self._memory_bytes
        residents = self.switcher.residents
        held = sum(v.metrics.open_bytes for v in self.switcher.portfolio.variants if v.name in residents)
        return available + held if self._memory_bytes is None else min(available + held, self._memory_bytes)

    def _loop(self) -> None:
        while not self._over.wait(self.step_s):
            try:
                self.step()
                if self._on_step:
                    self._on_step()
            except PrunitError as error:
                self.errors.append(str(error))


def reason(conditions: Conditions, options: Sequence[Option], wanted: str, *, pinned: str | None = None) -> str:
    """Why another variant is wanted, in words: the first one is pinned, memory, battery, heat, load or relief.

    Of what the conditions say the first that the active variant cannot stand; a policy may have had other grounds.
    """
    found = {option.name: option for option in options}
    active, other = found.get(conditions.active), found.get(wanted)
    told = f"{conditions.arrival_rate:.0f} requests/s, {conditions.queue_length} waiting"
    if conditions.slowdown > 1.2:
        told += f", {conditions.slowdown:.1f}x slower than measured"
    if wanted == pinned:
        return "pinned"
    if active is not None and conditions.memory_bytes is not None and active.memory_bytes > conditions.memory_bytes:
        return f"memory: {conditions.memory_bytes / 1e6:.0f} MB"
    if active is None or other is None or other.service_ms >= active.service_ms:
        return f"relief: {told}"
    if conditions.battery is not None and conditions.battery < 0.5:
        return f"battery: {conditions.battery:.0%}; {told}"
    return f"heat: {told}" if conditions.throttled else f"load: {told}"
