"""Budgets of microcontrollers and NPUs: met by what TensorFlow Lite Micro and Vela report of the very plan.

An arena and a file's size are asked for each plan that a search looks at: a few ms. An NPU's compiler takes longer, so
a search goes by a table of single layers, which that compiler filled, and its own word on the whole network comes last:
what it says more or less than the table corrects the table, and the search goes again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np

from prunit.allocate import Limit
from prunit.mcu.memory import live_bytes
from prunit.mcu.parts import Part, part
from prunit.mcu.pricing import grid, priced
from prunit.mcu.tables import CycleTable
from prunit.mcu.tflm import arena
from prunit.mcu.vela import Compiled, compiled
from prunit.recipe.blueprint import Blueprint

BLOCK: Final = 8
"""Output channels that an Ethos-U computes together: fewer of them take no less time."""

_GRID: Final = 4000
"""Layers that are measured ahead, some 15 ms each and once on a machine; of larger networks, as a search needs them."""
_BRICK: Final = 16
"""Channels that an Ethos-U holds together in its layout of feature maps."""


@dataclass(frozen=True)
class Asked:
    """One part, and what it said of plans of one model: each is asked once."""

    part: Part
    blueprint: Blueprint
    reports: dict[tuple[int, ...], Mapping[str, float]] = field(default_factory=dict)

    def figures(self, widths: np.ndarray) -> Mapping[str, float]:
        """What the part's own tools report when group i keeps `widths[i]` channels."""
        key = tuple(map(int, widths))
        if key not in self.reports:
            self.reports[key] = figures_of(self.blueprint.file(widths, self.part), self.part)
        return self.reports[key]

    @cached_property
    def table(self) -> CycleTable:
        """Cycles of single layers on it: of all widths that a search may look at, where these are not too many."""
        table = CycleTable(self.part)
        wanted = grid(self.blueprint.shapes_at(self.blueprint.graph.sizes), BLOCK)
        if len(wanted) <= _GRID:
            table.fill(wanted)
        return table

    def known(self, widths: np.ndarray) -> Mapping[str, float] | None:
        """What was reported of these widths, None if nobody asked."""
        return self.reports.get(tuple(map(int, widths)))


def figures_of(data: bytes, on: Part) -> Mapping[str, float]:
    """What a part's own tools report of a flatbuffer; `ModelError` where an operator would be left to the CPU."""
    if on.kind == "tflm":
        return {"arena_bytes": arena(data).total_bytes, "flash_bytes": len(data)}
    return figures_by_compiler(compiled(data, on))


def figures_by_compiler(found: Compiled) -> Mapping[str, float]:
    """What a compiled file takes; `ModelError` where an operator is left to the CPU."""
    found.check()
    return {
        "cycles": found.cycles,
        "sram_bytes": found.sram_bytes,
        "flash_bytes": len(found.data),
        "latency_ms": found.latency_ms,
    }


@dataclass(frozen=True)
class PartMeter:
    """One figure of a part at any widths: as it reported, or predicted, `factor` times what the table says."""

    figure: str
    asked: Asked
    factor: float = 1.0

    @property
    def step(self) -> int:
        """The channels that widths should be multiples of: the accelerator computes blocks of so many."""
        return BLOCK if self.predicts else 1

    @property
    def predicts(self) -> bool:
        """The part is not asked for each plan."""
        return self.asked.part.kind != "tflm"

    def __call__(self, widths: np.ndarray) -> float:
        """The figure at these widths, in its unit."""
        told = self.asked.known(widths) if self.predicts else self.asked.figures(widths)
        return told[self.figure] if told is not None else self.factor * float(self._estimate(widths).sum())

    def exact(self, widths: np.ndarray) -> float:
        """The same as the part's own tools report it."""
        return self.asked.figures(widths)[self.figure]

    def by_layer(self, widths: np.ndarray) -> np.ndarray:
        """What of it each layer takes, by the table; of bytes that are no sum over layers, all of them alike."""
        layers = self.asked.blueprint.layers
        if self.figure not in ("cycles", "latency_ms"):
            return np.full(len(layers), self(widths) / max(len(layers), 1))
        network = self.asked.blueprint.shapes_at(widths)
        by_name = dict.fromkeys(layers, 0.0)
        for operator, amount in zip(network.operators, self._estimate(widths), strict=True):
            if operator.layer in by_name:
                by_name[operator.layer] += self.factor * float(amount)
        return np.array([by_name[name] for name in layers])

    def corrected(self, widths: np.ndarray, strict: float = 1.0) -> "PartMeter":
        """The meter that predicts at these widths what the part reports of them, or `strict` times that."""
        if not self.predicts:
            return self
        predicted = float(self._estimate(widths).sum())
        return replace(self, factor=strict * (self.exact(widths) / predicted if predicted else 1.0))

    def _estimate(self, widths: np.ndarray) -> np.ndarray:
        """What the network takes by shapes alone: of each operator, or in all."""
        network, on = self.asked.blueprint.shapes_at(widths), self.asked.part
        if self.figure in ("cycles", "latency_ms"):
            return priced(network, self.asked.table) * (1.0 if self.figure == "cycles" else on.milliseconds(1))
        total = network.constant_bytes if self.figure == "flash_bytes" else live_bytes(network, brick=_BRICK)
        return np.array([total], np.float64)


def meters_on_parts(limits: Sequence[Limit], blueprint: Blueprint) -> dict[str, PartMeter]:
    """By figure what tells it of plans of a model."""
    asked = {name: Asked(part(name), blueprint) for name in {limit.part for limit in limits}}
    return {limit.figure: PartMeter(limit.figure, asked[limit.part]) for limit in limits}
