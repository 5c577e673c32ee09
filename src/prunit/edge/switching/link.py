"""A network link of a changing bandwidth, over which requests come to the device that answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunit.errors import ConfigError

_LEAST_KBPS = 1e-3
"""An outage: what is sent then arrives when it is over."""


@dataclass(frozen=True)
class Link:
    """`kbps` kilobits a second in each second, again from the beginning when they are over; bytes of each request."""

    kbps: Sequence[float]
    request_bytes: int

    def __post_init__(self) -> None:
        if self.request_bytes <= 0 or not len(self.kbps):
            raise ConfigError(
                f"a link of {len(self.kbps)} s and requests of {self.request_bytes} bytes: both must be > 0"
            )
        if not max(self.kbps) > 0:
            raise ConfigError(f"a link without bandwidth in all of its {len(self.kbps)} s: no request would arrive")

    def kbps_at(self, now_s: float) -> float:
        """The bandwidth at a moment."""
        return max(float(self.kbps[int(now_s) % len(self.kbps)]), _LEAST_KBPS)

    def arrivals(self, sent_s: np.ndarray) -> np.ndarray:
        """When requests that are sent at these ascending times have arrived: one after the other, in their order.

        A queue in the bits that the link could have carried so far: what is sent is served at the rate of the moment.
        """
        bits, request = self._carried(int(sent_s[-1]) + 2 if len(sent_s) else 1), 8.0 * self.request_bytes
        sent = np.interp(sent_s, np.arange(len(bits)), bits)
        # Each request takes equally many bits, so departures are cumulated maxima (Lindley 1952).
        each = request * np.arange(1, len(sent_s) + 1)
        leaves = each + np.maximum.accumulate(sent - (each - request)) if len(sent_s) else sent
        while len(leaves) and leaves[-1] > bits[-1]:
            bits = self._carried(2 * len(bits))
        return np.interp(leaves, bits, np.arange(len(bits)))

    def _carried(self, seconds: int) -> np.ndarray:
        """Bits that can have been carried at the beginning of each second."""
        rates = np.maximum(np.resize(np.asarray(self.kbps, dtype=float), seconds), _LEAST_KBPS)
        return np.concatenate(([0.0], np.cumsum(1000 * rates)))
