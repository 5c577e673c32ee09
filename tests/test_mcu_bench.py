"""The measurements for NPUs resume where they stopped, and their tables say what was found."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import mcu, mcu_page, tables
from prunit.errors import BudgetError

Cell = dict[str, Any]


def test_a_cell_that_is_there_is_not_done_again_and_a_refusal_is_kept(tmp_path: Path) -> None:
    done: list[str] = []

    def measure(way: str) -> Cell:
        done.append(way)
        if way == "macs":
            raise BudgetError("out of reach", {})
        return {"cycles": 1}

    def cells() -> Iterator[tuple[Cell, Callable[[], Cell]]]:
        for way in ("cycles", "macs"):
            yield {"kind": "plan", "net": "resnet8", "seed": 0, "way": way}, lambda way=way: measure(way)

    file = tmp_path / "mcu.json"
    for _ in range(2):
        mcu.run(cells(), file, {})
    assert done == ["cycles", "macs"]
    rows = json.loads(file.read_text())["rows"]
    assert rows[0]["cycles"] == 1
    assert rows[1]["error"] == "out of reach"


@pytest.mark.parametrize("name", list(mcu.NETS))
def test_networks_keep_their_channels_under_torch_pruning(name: str) -> None:
    pytest.importorskip("torch_pruning")
    case = mcu.Case(name, 0)
    found = mcu.torch_pruning(case.model, case.net, ["1/2", "1/4"])
    widths = {share: mcu.widths_of(model, case.graph) for share, model in found.items()}
    assert list(widths) == ["1/2", "1/4"]
    costs = {s: mcu.cost_of(case.graph, mcu.choose_any(case.graph, w)).macs for s, w in widths.items()}
    dense = mcu.cost_of(case.graph).macs
    assert 0.45 < costs["1/2"] / dense < 0.53
    assert 0.2 < costs["1/4"] / dense < 0.28


def test_a_curve_is_crossed_between_points_that_nothing_beats() -> None:
    curve = [(100.0, 80.0), (400.0, 84.0), (200.0, 79.0)]
    assert mcu_page.crossing(curve, 82.0) == pytest.approx(200.0)
    assert mcu_page.crossing(curve, 70.0) == 100.0
    assert mcu_page.crossing(curve, 85.0) is None
    assert mcu_page.at_macs([(100.0, 10.0), (400.0, 40.0)], 20.0) == pytest.approx(200.0)
    assert mcu_page.at_macs([(100.0, 10.0), (400.0, 40.0)], 50.0) is None


def trained(way: str, share: str, cycles: int, int8: float, *, seed: int = 0) -> Cell:
    taken = dict.fromkeys(("sram_bytes", "flash_bytes", "arena_bytes", "file_bytes"), 1000)
    final = {"cycles": cycles, **taken}
    accuracy = {"float": int8 + 0.25, "int8": int8, "drop": -0.25, "low": -0.5, "high": 0.0, "images": 4000}
    key = {"kind": "dense" if way == "dense" else "trained", "net": "resnet8", "seed": seed, "way": way, "share": share}
    untrained = {**final, "cycles": cycles // 2, "macs": cycles * 50}
    checked = {"equal": 64, "compared": 64, "left_to_cpu": 0}
    return {**key, "final": final, "untrained": untrained, **accuracy, **checked}


def test_tables_say_how_many_times_fewer_cycles_and_what_was_not_reached() -> None:
    rows = [
        trained("dense", "1", 400, 84.0),
        trained("cycles", "1/2", 100, 82.0),
        trained("macs", "1/2", 100, 80.0),
        trained("torch-pruning", "1/2", 300, 84.5),
    ]
    line = mcu_page.equal_accuracy({"rows": rows}).splitlines()[-1]
    assert line == "| ResNet-8, 32×32 | 1/2 | 82.00 | 100 | – | 2.00 | – | ≤ 3.00 | – |"
    assert "| 64 | 0.5" not in mcu_page.int8({"rows": rows})
    assert "256 of 256" in mcu_page.int8({"rows": rows})
    assert "2.000 (2.000 to 2.000)" in mcu_page.final({"rows": rows})
    assert "prunit, cycles, 1/2" in mcu_page.accuracy({"rows": rows})
    better = [*rows, trained("cycles", "3/4", 200, 90.0)]
    assert "not reached" in mcu_page.equal_accuracy({"rows": better})


def test_each_table_has_markers_of_its_own() -> None:
    result = mcu.record("mcu", [trained("dense", "1", 400, 84.0)], config={}, n=1, percentile="all", threads=1)
    for name in ("mcu.int8", "mcu.final"):
        page = f"words\n<!-- bench:{name} -->\nold\n<!-- /bench:{name} -->\n"
        found = tables.render(page, {name: result}, mcu_page.TABLES)
        assert "old" not in found
        assert "ResNet-8" in found


def test_shares_are_those_that_they_are_written_as() -> None:
    assert math.isclose(mcu.number_of("3/4"), 0.75)
