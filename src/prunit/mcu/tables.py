"""Cycles of single layers on an Ethos-U, measured through Vela once and kept: thousands of networks priced in a second.

Vela's cycles of a network are the sum of its layers'. What a layer costs depends on its shape and on little else:

- on where its neighbours keep their data. Between two layers of the accelerator images lie in bricks of 16 channels,
  at the ends of a network they lie as the caller wants them. A layer is therefore measured between two others, but for
  the `first` of a network
- on what its weights' fetch can hide behind, which is the layer before: here a 3x3 convolution of 16 inputs
- on the values of the weights, which are compressed: a few percent, see `Drawing`

A network of parallel branches, one a layer, is compiled for many shapes at a time. `bench/mcu_tables.py` compares sums
with networks compiled whole.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prunit.edge import cpus
from prunit.errors import ModelError
from prunit.files import write_atomically
from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.layers import Drawing, LayerShape
from prunit.mcu.parts import Part
from prunit.mcu.vela import compiled, version

_MOST: Final = 64
"""Layers in a call of Vela: half a second."""

_SIZES: Final = 6
"""Images of different sizes in a call: each is an input of the network, and beyond some thirty inputs Vela 5.2 takes
minutes where it took a fraction of a second."""

_BEFORE: Final = 16
"""Channels from which a 3x3 convolution makes what the layer reads: as long as it takes, weights are fetched meanwhile.
After a convolution of 1x1 the layers of ResNet-20 would seem to take up to 4.5 % longer on an Ethos-U85."""

_MEASUREMENT: Final = 1
"""To be raised where layers are measured in another way: what was kept before is measured anew."""


class CycleTable:
    """Cycles of layers on one part, filled as they are asked for.

    What was measured is kept in `folder` (by default `default_folder()`), in a file for each part, its configuration
    and version of Vela.
    """

    def __init__(self, part: Part, folder: Path | None = None) -> None:
        self.part = part
        self.version = version()
        name = f"{part.name}-{part.system_config}-{part.memory_mode}-vela{self.version}-{_MEASUREMENT}.json"
        self.file = (folder or default_folder()) / name
        self._cycles: dict[LayerShape, int] = _read(self.file)

    def __len__(self) -> int:
        return len(self._cycles)

    def cycles_of(self, layers: Sequence[LayerShape]) -> npt.NDArray[np.int64]:
        """The cycles of each of the L layers, (L,); what is missing is measured first, in as few calls as possible."""
        try:
            return np.array([self._cycles[layer] for layer in layers], np.int64)
        except KeyError:
            self.fill(layers)
            return np.array([self._cycles[layer] for layer in layers], np.int64)

    def fill(self, layers: Sequence[LayerShape]) -> int:
        """Measures those of the layers that are missing, about 15 ms each, and keeps them; how many there were."""
        missing = [layer for layer in dict.fromkeys(layers) if layer not in self._cycles]
        calls = list(_calls(missing))
        # each is a process of Vela's own, on one thread
        with ThreadPoolExecutor(max(1, min(len(calls), len(cpus.usable())))) as pool:
            for some, found in zip(calls, pool.map(partial(_measured, self.part), calls), strict=True):
                self._cycles.update(zip(some, found, strict=True))
        if missing:
            # another process may have measured others meanwhile
            self._cycles = {**_read(self.file), **self._cycles}
            write_atomically(self.file, _written(self._cycles), shared=True)
        return len(missing)


def default_folder() -> Path:
    """Where tables are kept: `PRUNIT_CACHE`, else `prunit` in `XDG_CACHE_HOME`, else `~/.cache/prunit`; there `mcu`."""
    own = os.environ.get("PRUNIT_CACHE")
    if own:
        return Path(own) / "mcu"
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "prunit" / "mcu"


def _calls(layers: Sequence[LayerShape]) -> Iterator[list[LayerShape]]:
    """The layers in parts that Vela copes with: of few sizes each."""
    some: list[LayerShape] = []
    images: set[tuple[int, int, int]] = set()
    for layer in sorted(layers, key=_image):
        if len(some) == _MOST or len(images | {_image(layer)}) > _SIZES:
            yield some
            some, images = [], set()
        some.append(layer)
        images.add(_image(layer))
    if some:
        yield some


def _image(layer: LayerShape) -> tuple[int, int, int]:
    """Height, width and channels of the network's input that the layer's branch begins with."""
    if layer.kind == "linear":
        return 8, 8, _BEFORE
    return layer.height, layer.width, layer.inputs if layer.first else _BEFORE


def _measured(part: Part, layers: Sequence[LayerShape]) -> list[int]:
    drawing = Drawing("layers")
    images: dict[tuple[int, int, int], str] = {}
    ends: list[str] = []
    for index, layer in enumerate(layers):
        size = _image(layer)
        if size not in images:
            images[size] = drawing.input(*size)
        ends.append(_branch(drawing, images[size], layer, index))
    report = compiled(flatbuffer_of(drawing.network(*ends)), part).check()
    cycles: dict[str, int] = defaultdict(int)
    for row in report.layers:
        cycles[row.name.split("_")[0]] += (
            row.cycles
        )  # a layer that becomes several has rows NAME_intermediate, NAME_act
    absent = next((layer for index, layer in enumerate(layers) if f"layer{index}" not in cycles), None)
    if absent is not None:
        raise ModelError(f"Vela {report.version} reports no cycles for {absent} on {part.name}")
    return [cycles[f"layer{index}"] for index in range(len(layers))]


def _branch(drawing: Drawing, image: str, layer: LayerShape, index: int) -> str:
    """The layer between two others; the name of the branch's end."""
    height, width = drawing.shape_of(image)[1:3]

    def before(letter: str) -> str:
        made = LayerShape("conv", height, width, _BEFORE, layer.inputs, (3, 3))
        return drawing.layer(made, image, name=f"{letter}{index}")

    if layer.kind == "linear":
        read = [
            drawing.layer(LayerShape("mean", height, width, layer.inputs, layer.inputs), before("a"), name=f"m{index}")
        ]
    elif layer.first:
        read = [image]
    else:
        read = [before("a"), before("b")] if layer.kind == "add" else [before("a")]
    made = drawing.layer(layer, *read, name=f"layer{index}")
    flat = layer.kind in ("linear", "mean")
    after = LayerShape("linear" if flat else "conv", *layer.size, layer.outputs, 1)
    return drawing.layer(after, made, name=f"z{index}")


def _written(cycles: dict[LayerShape, int]) -> str:
    rows = [
        [s.kind, s.height, s.width, s.inputs, s.outputs, *s.kernel, *s.stride, s.padding, s.first, found]
        for s, found in sorted(cycles.items(), key=lambda item: str(item[0]))
    ]
    return json.dumps(rows, separators=(",", ":"))


def _read(file: Path) -> dict[LayerShape, int]:
    """What the file holds; nothing where there is none, or one that is broken: it is measured again."""
    try:
        rows: list[list[Any]] = json.loads(file.read_text())
        return {
            LayerShape(kind, h, w, i, o, (kh, kw), (sh, sw), padding, first): int(cycles)
            for kind, h, w, i, o, kh, kw, sh, sw, padding, first, cycles in rows
        }
    except (OSError, ValueError, TypeError):
        return {}
