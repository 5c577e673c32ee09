"""A variant as integers for microcontrollers and NPUs: its flatbuffer, how good it is, and what parts report of it."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from prunit.edge.precision import Comparison
from prunit.edge.records import Record, StoredFile


class Numbers(Record):
    """How an int8 tensor of the flatbuffer stands for real numbers: r = scale * (q - zero_point).

    `shape` is that of the file, batch first, channels last.
    """

    name: str
    shape: tuple[PositiveInt, ...]
    scale: PositiveFloat
    zero_point: int = Field(ge=-128, le=127)


class OnPart(Record):
    """What a part's own tools report of a variant.

    `figures` are `arena_bytes` and `flash_bytes` of TensorFlow Lite Micro (the arena as on a 64-bit host, where its
    records are larger), and `cycles`, `sram_bytes`, `flash_bytes` and `latency_ms` of an NPU by its compiler, which
    estimates them; `limits` are what the variant's budget allows of them. `tool` is its name and version, `settings`
    are those that it was given. `compiled` is the file for the part, None where it takes the flatbuffer itself.
    `sources` are a C header and the C file with the model's bytes.
    """

    part: str
    figures: dict[str, NonNegativeFloat]
    limits: dict[str, NonNegativeFloat] = Field(default={})
    tool: str
    settings: dict[str, str] = Field(default={})
    compiled: StoredFile | None = None
    sources: tuple[StoredFile, ...] = ()

    @property
    def over(self) -> dict[str, float]:
        """By figure how many times its limit it takes, of those that take more.

        A plan is within its budget untrained; trained weights are compressed a little more or less.
        """
        return {name: self.figures[name] / most for name, most in self.limits.items() if self.figures[name] > most}


class Embedded(Record):
    """A variant's flatbuffer in which every number is an integer, batch 1, channels last.

    `self_test` is an .npz with the int8 arrays `input` and `expected`, `expected_1`, …, which an interpreter must give
    exactly. `method` says how the ranges of activations were found, on `images` training images drawn with `seed`;
    `library` what ran it, and by which kernels (the reference ones answer as a device does). `tuned` is for how many
    epochs weights were trained for it, 0 where they are the variant's. `accuracy` is the task's main metric, `scores`
    all of them, `agreement` the share of test images that get the float variant's answer, and `against` the paired
    difference to it.
    """

    file: StoredFile
    self_test: StoredFile
    input: Numbers
    outputs: tuple[Numbers, ...]
    operators: tuple[str, ...]
    method: str
    images: NonNegativeInt
    seed: int
    library: str
    tuned: NonNegativeInt = 0
    accuracy: float | None = Field(default=None, le=1)
    scores: dict[str, float] = Field(default={})
    agreement: float | None = Field(default=None, ge=0, le=1)
    against: Comparison | None = None
    parts: tuple[OnPart, ...] = ()

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All files that belong to it."""
        of_parts = (file for part in self.parts for file in (part.compiled, *part.sources) if file)
        return (self.file, self.self_test, *of_parts)

    def on(self, part: str) -> OnPart | None:
        """What a part reports, None if it was not asked."""
        return next((each for each in self.parts if each.part == part), None)
