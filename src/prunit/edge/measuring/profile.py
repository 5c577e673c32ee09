"""What layers take on a device: the file that `prunit probe-device` writes there, and that budgets are met with here.

It holds the time of each layer *shape* at many widths, measured with the engine that will run the model, so it serves
every model that is made of such layers. Times are not smooth in the number of channels (engines work on blocks of 8 or
16), hence widths of several kinds; `layer_times` has what lies between them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, cast

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from prunit.edge.portfolio import Device
from prunit.edge.records import Record
from prunit.errors import FileError
from prunit.files import write_atomically

VERSION: Final = 1
R = TypeVar("R", bound=Record)
Pair = tuple[PositiveInt, PositiveInt]
"""Height and width."""


class Window(Record):
    """How a 2D convolution goes over its input, which has `size` positions.

    `groups` is 'depthwise' where each output reads one input, else their number.
    """

    size: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[NonNegativeInt, NonNegativeInt] = (0, 0)
    dilation: Pair = (1, 1)
    groups: PositiveInt | Literal["depthwise"] = 1

    def __str__(self) -> str:
        kind = "a depthwise" if self.groups == "depthwise" else "a"
        parts = f" in {self.groups} groups" if isinstance(self.groups, int) and self.groups > 1 else ""
        height, width = self.size
        stride = f", stride {self.stride[0]}" if self.stride != (1, 1) else ""
        return f"{kind} {self.kernel[0]}×{self.kernel[1]} convolution of {height}×{width} positions{stride}{parts}"


class LayerShape(Record):
    """A 2D convolution, or a linear map of `rows` vectors, with the most channels that it may read and make.

    Channels are fixed where pruning never changes them: the image's, the classes.
    """

    inputs: PositiveInt
    outputs: PositiveInt
    inputs_fixed: bool = False
    outputs_fixed: bool = False
    window: Window | None = None
    rows: PositiveInt = 1

    @property
    def groups(self) -> int:
        """Into how many parts the inputs fall, each read by as many outputs."""
        if self.window is None:
            return 1
        return self.inputs if self.window.groups == "depthwise" else self.window.groups

    @property
    def depthwise(self) -> bool:
        """Each output reads one input."""
        return self.window is not None and self.window.groups == "depthwise"

    @property
    def key(self) -> "LayerShape":
        """The same without its numbers of channels: layers of one key share their times."""
        return self.model_copy(update={"inputs": 1, "outputs": 1, "inputs_fixed": False, "outputs_fixed": False})

    def __str__(self) -> str:
        rows = f" of {self.rows} vectors" if self.rows > 1 else ""
        return f"{self.window or f'a linear map{rows}'}, {self.inputs} to {self.outputs} channels"


class LayerList(Record):
    """The layers of a model, for a device to measure: what `prunit layers` writes."""

    version: Literal[1] = VERSION
    model: str
    layers: tuple[LayerShape, ...]

    @staticmethod
    def read(path: Path) -> "LayerList":
        """The list in a file; `FileError` if it is none."""
        return _read(path, LayerList, "a list of layers", "prunit layers MODEL")

    @staticmethod
    def read_all(paths: Sequence[Path]) -> "LayerList":
        """The lists in several files as one; `FileError` as for `read`."""
        shapes = [shape for path in paths for shape in LayerList.read(path).layers]
        return LayerList(model=", ".join(map(str, paths)), layers=tuple(shapes))

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all: a line for each layer."""
        _write(path, {"version": self.version, "model": self.model}, self.layers)


class LayerPoints(Record):
    """Measured times of a layer shape: `ms` at so many inputs and outputs, the median of several runs."""

    shape: LayerShape
    points: tuple[tuple[PositiveInt, PositiveInt, NonNegativeFloat], ...] = Field(min_length=1)


class Rest(Record):
    """What a model takes besides the times of its layers.

    `per_layer_ms` comes with each layer. `fetching` says what weights cost that do not stay in a cache: pairs of the
    bytes of all weights that are in turn, ascending, and the ms for a million of these bytes. A layer that is measured
    by itself finds its weights there; in a large model it does not.
    """

    per_layer_ms: NonNegativeFloat
    fetching: tuple[tuple[PositiveInt, NonNegativeFloat], ...]


class Energy(Record):
    """Joules of one inference: picojoules per multiply-add and per byte moved, and what says so."""

    pj_per_mac: NonNegativeFloat
    pj_per_byte: NonNegativeFloat
    source: str


class DeviceProfile(Record):
    """What layers take on a device, with which engine, how many threads, and when that was measured.

    Times are of batches of one. `date` is ISO 8601, in UTC.
    """

    version: Literal[1] = VERSION
    prunit: str
    date: str
    device: Device
    threads: PositiveInt
    rest: Rest
    energy: Energy
    layers: Annotated[tuple[LayerPoints, ...], Field(min_length=1)]

    @staticmethod
    def read(path: Path, *, engine: str | None = None) -> "DeviceProfile":
        """The profile in a file; `FileError` if it is none, is of another version, or was measured with another engine.

        `engine` is the one that will run the model, if that is known.
        """
        found = _read(path, DeviceProfile, "a device profile", "prunit probe-device")
        if engine is not None and found.device.engine != engine:
            raise FileError(
                f"'{path}' was measured with {found.device.engine} {found.device.engine_version}; the models will run"
                f" in {engine}, which takes other times: run prunit probe-device with it"
            )
        return found

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all: a line for each layer shape."""
        _write(path, self.model_dump(mode="json", exclude={"layers"}), self.layers)

    def points_of(self, shapes: Iterable[LayerShape]) -> list[LayerPoints | None]:
        """For each layer the times that cover it: of its key, and up to its numbers of channels; None where none do."""
        by_key: dict[LayerShape, list[LayerPoints]] = {}
        for points in self.layers:
            by_key.setdefault(points.shape.key, []).append(points)
        return [next((p for p in by_key.get(s.key, []) if _covers(p.shape, s)), None) for s in shapes]


def _write(path: Path, head: Mapping[str, Any], layers: Iterable[Record]) -> None:
    lines = ",\n  ".join(json.dumps(layer.model_dump(mode="json", exclude_defaults=True)) for layer in layers)
    start = json.dumps(head, indent=1).removesuffix("\n}")
    write_atomically(path, f'{start},\n "layers": [\n  {lines}\n ]\n}}\n')


def _covers(measured: LayerShape, asked: LayerShape) -> bool:
    """Fixed channels were measured at one number of them only."""
    sides = (
        (measured.inputs, measured.inputs_fixed, asked.inputs, asked.inputs_fixed),
        (measured.outputs, measured.outputs_fixed, asked.outputs, asked.outputs_fixed),
    )
    return all(have == want and want_fixed if fixed else have >= want for have, fixed, want, want_fixed in sides)


def _read(path: Path, record: type[R], what: str, made_by: str) -> R:
    """The record in a JSON file of this version; `FileError` in one line for anything that is wrong."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(f"there is no {what.removeprefix('a ')} '{path}'; {made_by} writes one") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FileError(f"'{path}' is not {what}: {error}") from error
    version = cast("dict[str, Any]", data).get("version") if isinstance(data, dict) else None
    if version != VERSION:
        raise FileError(
            f"'{path}' is not {what} of version {VERSION}, which this prunit reads: its version is {version!r};"
            f" make it anew with {made_by}"
        )
    try:
        return record.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise FileError(f"'{path}' is not {what}: {where}: {first['msg']}; make it anew with {made_by}") from error
