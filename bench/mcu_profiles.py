"""How cycles grow with width on each Ethos-U: `python -m bench.mcu_profiles` writes `prunit/mcu/profiles/PART.json`.

By width from 1 to 128 the cycles that Vela gives a 3x3 convolution, one of 1x1 and a depthwise one, on images of 16x16
whose other side has 64 channels, in thousandths of those at 64. About ten seconds a part.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, Final

from bench._common import ROOT
from prunit.mcu.layers import LayerShape
from prunit.mcu.parts import PARTS, Part, part
from prunit.mcu.profiles import step_from, worth_having
from prunit.mcu.tables import CycleTable

FOLDER: Final = ROOT / "src" / "prunit" / "mcu" / "profiles"
IMAGE: Final = 16
OTHER: Final = 64
WIDTHS: Final = range(1, 129)


def shapes() -> dict[str, dict[str, list[LayerShape]]]:
    """By kind and side the layers of each width."""

    def conv(kernel: int, side: str) -> list[LayerShape]:
        pairs = [(OTHER, w) if side == "outputs" else (w, OTHER) for w in WIDTHS]
        return [LayerShape("conv", IMAGE, IMAGE, i, o, (kernel, kernel)) for i, o in pairs]

    return {
        **{f"conv{k}x{k}": {side: conv(k, side) for side in ("outputs", "inputs")} for k in (3, 1)},
        "depthwise": {"outputs": [LayerShape("depthwise", IMAGE, IMAGE, w, w, (3, 3)) for w in WIDTHS]},
    }


def profile(chosen: Part, folder: Path) -> dict[str, Any]:
    """The profile of a part, as it is shipped."""
    table = CycleTable(chosen, folder)
    asked = shapes()
    table.fill([layer for sides in asked.values() for layers in sides.values() for layer in layers])
    permille: dict[str, dict[str, list[int]]] = {}
    for kind, sides in asked.items():
        for side, layers in sides.items():
            cycles = table.cycles_of(layers)
            found = [round(1000 * int(each) / int(cycles[OTHER - 1])) for each in cycles]
            permille.setdefault(kind, {})[side] = found
    return {
        "part": chosen.name,
        "accelerator": chosen.accelerator,
        "system_config": chosen.system_config,
        "memory_mode": chosen.memory_mode,
        "clock_hz": chosen.clock_hz,
        "configuration": chosen.described,
        "vela": table.version,
        "image": [IMAGE, IMAGE],
        "other_channels": OTHER,
        "steps": {kind: {side: step_from(found) for side, found in sides.items()} for kind, sides in permille.items()},
        "permille": permille,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mcu_profiles", description=__doc__)
    names = [name for name, each in PARTS.items() if each.kind == "ethos-u"]
    parser.add_argument("--parts", default=",".join(names), help="names, separated by commas; default all")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write")
    options = parser.parse_args()
    for name in options.parts.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found = profile(part(name), Path(folder))
        curves = found["permille"]["conv3x3"]
        both = [a + b for a, b in zip(curves["outputs"], curves["inputs"], strict=True)]
        (options.folder / f"{name}.json").write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
        print(f"{name}: steps {found['steps']}, 3x3 widths {worth_having(both)}", flush=True)


if __name__ == "__main__":
    main()
