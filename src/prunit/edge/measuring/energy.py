"""Joules of one inference: from multiply-adds and bytes moved, at prices from the literature or measured here.

Prices of the literature are those of M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC
2014, for 45 nm: a float32 multiplication 3.7 pJ and an addition 0.9 pJ; a 64-bit access to DRAM from 1.3 nJ up, 160 pJ
for a byte. A core spends many times that on moving instructions and idling, so they rank models and do not predict a
battery's life. Where the processor counts its energy (RAPL: Intel and AMD on Linux, mostly for root only), prices are
measured: two workloads, one that computes and one that fetches weights, give the two unknowns.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from prunit.edge.measuring.profile import Energy

LITERATURE: Final = Energy(pj_per_mac=4.6, pj_per_byte=160.0, source="model of Horowitz 2014 (45 nm), not measured")
POWERCAP: Final = Path("/sys/class/powercap")

Workload = tuple[Callable[[], object], float, float]
"""Something to run again and again, and how many multiply-adds and bytes moved one run has."""


class Rapl:
    """The energy counter of a processor package; `readable` says whether this process may read it."""

    def __init__(self, root: Path = POWERCAP) -> None:
        packages = sorted(root.glob("intel-rapl:[0-9]")) or sorted(root.glob("*-rapl:[0-9]"))
        self._counters = [(package / "energy_uj", package / "max_energy_range_uj") for package in packages]

    @property
    def readable(self) -> bool:
        """There is a counter, and it gives a number."""
        try:
            return bool(self._counters) and all(int(energy.read_text()) >= 0 for energy, _ in self._counters)
        except (OSError, ValueError):
            return False

    def read_uj(self) -> list[int]:
        """Microjoules of each package since some moment; a counter starts anew at its range."""
        return [int(energy.read_text()) for energy, _ in self._counters]

    def since_uj(self, before: list[int]) -> int:
        """Microjoules spent since `before` was read, no more than one turn of a counter ago."""
        spent = 0
        for (_, most), old, new in zip(self._counters, before, self.read_uj(), strict=True):
            spent += new - old if new >= old else new - old + int(most.read_text())
        return spent


def energy_prices(
    computing: Workload,
    fetching: Workload,
    *,
    counter: Rapl | None = None,
    seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Energy:
    """What a multiply-add and a byte cost here: measured where the processor counts its energy, else as literature has.

    Measured prices are of the whole package, with what it takes when idle: that is what a battery sees.
    """
    counter = counter or Rapl()
    if not counter.readable:
        return LITERATURE
    rows: list[tuple[float, float]] = []
    pj: list[float] = []
    for run, macs, moved in (computing, fetching):
        run()
        before, end, runs = counter.read_uj(), clock() + seconds, 0
        while clock() < end:
            run()
            runs += 1
        rows.append((macs, moved))
        pj.append(counter.since_uj(before) * 1e6 / max(runs, 1))
    found = _prices(np.array(rows), np.array(pj))
    if found is None:
        return LITERATURE
    return Energy(pj_per_mac=found[0], pj_per_byte=found[1], source="measured with RAPL, whole package, idle included")


def _prices(rows: np.ndarray, pj: np.ndarray) -> tuple[float, float] | None:
    """The prices that explain what both workloads took, none of them below zero; None if nothing was counted."""
    if not (pj > 0).all():
        return None
    macs, byte = np.linalg.solve(rows, pj)
    if macs < 0:
        macs, byte = 0.0, float((pj / rows[:, 1]).mean())
    elif byte < 0:
        macs, byte = float((pj / rows[:, 0]).mean()), 0.0
    return float(macs), float(byte)
