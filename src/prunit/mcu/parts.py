"""The parts that a network can be made for, by name: microcontrollers by TensorFlow Lite Micro, and Arm's Ethos-U.

What an Ethos-U costs depends on the memories around it. Each is taken with a system configuration and a memory mode of
`Arm/vela.ini`, which comes with Vela: Ethos-U55 in `Ethos_U55_High_End_Embedded` (500 MHz, SRAM of 4 GB/s, flash of
0.5 GB/s), Ethos-U65 in `Ethos_U65_Embedded` (500 MHz, SRAM of 8 GB/s, flash of 0.5 GB/s), Ethos-U85 in
`Ethos_U85_SYS_Flash_High` (500 MHz, SRAM of 16 GB/s, flash of 0.5 GB/s), all in `Shared_Sram`: weights lie in flash,
activations in SRAM. Another board has other figures: every report names its configuration.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prunit.errors import unknown

Kind = Literal["tflm", "ethos-u"]
Figure = Literal["arena_bytes", "flash_bytes", "cycles", "sram_bytes", "latency_ms"]

FIGURES: Final[Mapping[Kind, tuple[Figure, ...]]] = {
    "tflm": ("arena_bytes", "flash_bytes"),
    "ethos-u": ("cycles", "sram_bytes", "flash_bytes", "latency_ms"),
}
"""What is known of a network on a part of each kind, in bytes, cycles and milliseconds."""


@dataclass(frozen=True)
class Part:
    """A part as a network is measured on it.

    `accelerator`, `system_config` and `memory_mode` are Vela's names; a microcontroller has none, and no clock:
    TensorFlow Lite Micro reports memory, not time.
    """

    name: str
    kind: Kind
    accelerator: str = ""
    system_config: str = ""
    memory_mode: str = ""
    clock_hz: int = 0

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What is known of a network on it."""
        return FIGURES[self.kind]

    @property
    def described(self) -> str:
        """The part and its configuration in a line, for reports."""
        if self.kind == "tflm":
            return f"{self.name}: a microcontroller by TensorFlow Lite Micro"
        return f"{self.name}: {self.system_config}, {self.memory_mode}, {self.clock_hz / 1e6:g} MHz"

    def milliseconds(self, cycles: float) -> float:
        """How long so many cycles take at its clock."""
        return cycles / self.clock_hz * 1e3


_SYSTEMS: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "u55": ("Ethos_U55_High_End_Embedded", (32, 64, 128, 256)),
    "u65": ("Ethos_U65_Embedded", (256, 512)),
    "u85": ("Ethos_U85_SYS_Flash_High", (128, 256, 512, 1024, 2048)),
}
"""By generation the system configuration, and the multiply-adds per cycle in which it is made."""

_CLOCK_HZ: Final = 500_000_000
"""That of all three configurations."""

PARTS: Final[Mapping[str, Part]] = {
    "tflm": Part("tflm", "tflm"),
    **{
        name: Part(name, "ethos-u", name, system, "Shared_Sram", _CLOCK_HZ)
        for generation, (system, sizes) in _SYSTEMS.items()
        for name in (f"ethos-{generation}-{size}" for size in sizes)
    },
}


def part(name: str) -> Part:
    """The part of this name; `UnknownNameError` with the nearest one."""
    if name not in PARTS:
        raise unknown("part", name, PARTS)
    return PARTS[name]
