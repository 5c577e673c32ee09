"""How well sums over a table of single layers say what Vela estimates for whole networks: `python -m bench.mcu_tables`.

Networks of six families, each as it usually is and with random widths: multiples of 8, and any. The table is filled
from nothing. A row is a part: the error of the sum in percent of the whole network's cycles, over all its networks.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench._common import RESULTS, record, write
from bench._mcu_nets import FAMILIES
from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.layers import Drawing
from prunit.mcu.parts import part
from prunit.mcu.tables import CycleTable
from prunit.mcu.vela import compiled, version

PARTS: Final = ("ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u85-256")


def networks(random: int, seed: int = 0) -> Iterator[tuple[str, str, Drawing]]:
    """Family, how its widths were chosen, and the network; `random` of each kind of random widths."""
    generator = np.random.default_rng(seed)

    def eights(usual: int) -> int:
        return 8 * int(generator.integers(1, max(2, usual // 8 + 1)))

    def any_width(usual: int) -> int:
        return int(generator.integers(max(2, usual // 4), usual + 1))

    choices: dict[str, tuple[Callable[[int], int], int]] = {
        "usual": (lambda usual: usual, 1),
        "multiples of 8": (eights, random),
        "any": (any_width, random),
    }
    for family, make in FAMILIES.items():
        for choice, (width, count) in choices.items():
            for _ in range(count):
                yield family, choice, make(width)


def row_of(name: str, random: int, folder: Path) -> dict[str, Any]:
    """What the table says on one part, beside the compiler."""
    drawn = list(networks(random))
    chosen = part(name)
    table = CycleTable(chosen, folder)
    start = time.perf_counter()
    measured = table.fill([layer for _, _, drawing in drawn for layer in drawing.layers.values()])
    filling = time.perf_counter() - start
    errors: dict[str, list[float]] = {}
    worst: dict[str, Any] = {"error": 0.0}
    for family, choice, drawing in drawn:
        whole = compiled(flatbuffer_of(drawing.network(list(drawing.layers)[-1])), chosen).check().cycles
        found = int(table.cycles_of(list(drawing.layers.values())).sum())
        error = 100 * (found / whole - 1)
        for key in (family, choice, "all"):
            errors.setdefault(key, []).append(error)
        if abs(error) > abs(worst["error"]):
            worst = {"network": family, "widths": choice, "cycles": whole, "sum": found, "error": round(error, 2)}
    layers = list(drawn[0][2].layers.values())
    start = time.perf_counter()
    for _ in range(1000):
        table.cycles_of(layers).sum()
    return {
        "part": name,
        "configuration": chosen.described,
        "networks": len(drawn),
        "layers_measured": measured,
        "filling_s": round(filling, 2),
        "median_error": round(statistics.median(map(abs, errors["all"])), 2),
        "worst": worst,
        "by": {
            key: {
                "n": len(found),
                "median": round(statistics.median(map(abs, found)), 2),
                "worst": round(max(map(abs, found)), 2),
                "bias": round(statistics.mean(found), 2),
            }
            for key, found in errors.items()
        },
        "resnet20_per_second": round(1000 / (time.perf_counter() - start)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mcu_tables", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "mcu_tables.json", metavar="FILE", help="to write")
    parser.add_argument("--parts", default=",".join(PARTS), help="names, separated by commas")
    parser.add_argument("--random", type=int, default=4, help="networks of a family with each kind of random widths")
    options = parser.parse_args()
    rows = []
    for name in options.parts.split(","):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row_of(name, options.random, Path(folder)))
        print({key: value for key, value in rows[-1].items() if key != "by"})
        for key, found in rows[-1]["by"].items():
            print(f"   {key}: {found}")
    config = {"families": list(FAMILIES), "random": options.random, "vela": version()}
    write(
        record("mcu_tables", rows, config=config, n=rows[0]["networks"], percentile="median (p50)", threads=1),
        options.json,
    )


if __name__ == "__main__":
    main()
