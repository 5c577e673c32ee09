"""`Retreats`: variants that a load was too much for are not tried again while it lasts."""

from dataclasses import dataclass, field
from typing import Final

_FIRST_S: Final = 8.0
_LONGER: Final = 3.0
_LONGEST_S: Final = 180.0
_FORGOTTEN_S: Final = 180.0
_EASED: Final = 0.7
_MEAN_S: Final = 5.0
"""Over how long the rate of arrivals is averaged to see whether a load has eased."""


@dataclass
class _Retreat:
    rate: float
    wait_s: float
    until_s: float


@dataclass
class Retreats:
    """What a policy, which keeps nothing, cannot know: that it has tried before.

    Just below what a variant can answer every policy that goes by rate and queue swings: the variant seems to hold, a
    queue builds up, the next faster one clears it, and so on. So one that was given up for a load is held back for a
    while, with all that are slower: at first for 8 s, each further time for three times as long, up to three minutes,
    so that under a steady load a trial, which is two switches, comes less than once a minute. When the load has eased
    by a third it may come back at once: a burst costs accuracy no longer than it lasts.
    """

    _rate: float = 0.0
    _given_up: dict[float, _Retreat] = field(default_factory=dict[float, _Retreat])
    """By milliseconds of service."""

    def arrived(self, rate: float, seconds: float) -> None:
        """So many requests per second came in so many seconds."""
        self._rate += min(1.0, seconds / _MEAN_S) * (rate - self._rate)

    def gave_up(self, service_ms: float, rate: float, now_s: float) -> None:
        """The variant with this time of service was given up for a faster one, at so many requests per second."""
        before = self._given_up.get(service_ms)
        again = before is not None and now_s < before.until_s + _FORGOTTEN_S
        wait_s = min(_LONGER * before.wait_s, _LONGEST_S) if before is not None and again else _FIRST_S
        self._given_up[service_ms] = _Retreat(rate, wait_s, now_s + wait_s)
        self._rate = max(self._rate, rate)  # a load that came suddenly has not eased because it was not there before

    def hold_back(self, service_ms: float, now_s: float) -> bool:
        """Whether a variant with this time of service is not to be tried now."""
        return any(
            given_up <= service_ms and now_s < each.until_s and self._rate >= _EASED * each.rate
            for given_up, each in self._given_up.items()
        )
