"""The benchmarks run on a toy network and their tables render; no time is judged."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import (
    _common,
    candidate_time,
    compact_memory,
    evaluating,
    export_latency,
    export_passes,
    other_tasks,
    ram_budget,
    readme_example,
    slow_traces,
    speed,
    startup,
    synflow_rounds,
    tables,
)
from bench._nets import Net
from prunit.edge.measuring.probe import ProbeSettings
from tests.report.portfolios import latency, portfolio, variant


def toy() -> tuple[nn.Module, Tensor]:
    """Three convolutions and a classifier, and an image."""
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(16, 4)),
    )
    return net.eval(), torch.zeros(1, 3, 8, 8)


def stored(name: str, rows: list[dict[str, Any]], *, threads: Any = 2) -> dict[str, Any]:
    """A result as the benchmark writes and tables.py reads it."""
    result = _common.record(name, rows, config={}, n=1, percentile="median (p50)", threads=threads)
    return json.loads(json.dumps(result))


def page_of(result: dict[str, Any]) -> str:
    """The page that shows one result, and the same when it is rendered again."""
    name = result["benchmark"]
    empty = f"# Words\n<!-- bench:{name} -->\nold\n<!-- /bench:{name} -->\nmore words\n"
    shown = next(of for of in (tables.TABLES, tables.ON_PRECISIONS, tables.ON_README) if name in of)
    page = tables.render(empty, {name: result}, shown)
    assert tables.render(page, {name: result}, shown) == page
    assert page.startswith("# Words\n")
    assert page.endswith("more words\n")
    assert "old" not in page
    return page


def test_runs_take_turns_and_the_warm_up_does_not_count() -> None:
    log: list[str] = []
    runs = {name: lambda name=name: log.append(name) or len(log) for name in "ab"}
    found = _common.take_turns(runs, rounds=2, warm_up=1)
    assert "".join(log) == "ababab"
    assert found == {"a": [3, 5], "b": [4, 6]}


def test_figures_by_hand() -> None:
    assert _common.spread([3, 1, 2, 10]) == {"median": 2.5, "min": 1, "max": 10, "n": 4}
    assert _common.percentile([4, 1, 3, 2, 5], 0.9) == pytest.approx(4.6)
    times = _common.quotient([6, 8, 40], [3, 2, 4])
    assert times["of_medians"] == pytest.approx(8 / 3)
    assert times["paired"] == {"median": 4, "min": 2, "max": 10, "n": 3}


def test_a_result_says_where_it_comes_from(tmp_path: Path) -> None:
    result = _common.record("startup", [{"a": 1}], config={"b": 2}, n=3, percentile="p50", threads=1)
    _common.write(result, tmp_path / "new" / "startup.json")
    read = json.loads((tmp_path / "new" / "startup.json").read_text())
    assert read["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]  # a local label may lack
    assert {"python", "prunit", "commit", "torch-pruning", "onnxruntime"} <= read["versions"].keys()
    assert read["device"]["cores"] >= 1
    assert (read["n"], read["percentile"], read["config"], read["rows"]) == (3, "p50", {"b": 2}, [{"a": 1}])


def test_speed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch-Pruning's own, at import
        pytest.importorskip("torch_pruning")
    row = speed.measure(toy, rounds=1)
    # Half of 8, 8 and 16: 3·4·9 + 4·4·9 + 4·8·9 weights, 2·16 of batch norms, 8·4 + 4 of the classifier.
    assert row["params"]["prunit"] == row["params"]["torch_pruning"] == 108 + 144 + 288 + 32 + 36
    assert set(row["parts_ms"]["prunit"]) == {"trace", "plan", "compact"}
    page = page_of(stored("speed", [{"title": "toy", **row}]) | {"growth": [speed.growth(6, 1)]})
    assert page.count("| toy |") == 3
    assert "| 6 |" in page


def test_slow_traces() -> None:
    sources = {when: _common.ROOT / "src" for when in ("before", "now")}
    rows = list(slow_traces.measure(sources, ["vgg16-32"], 1))
    assert rows[0]["before"]["free"] == rows[0]["now"]["free"] > 0
    assert "| vgg16-32 | " in page_of(stored("slow_traces", rows, threads=1))
    assert "| vgg16-32 | " in page_of(
        stored("slow_traces", list(slow_traces.measure({"now": sources["now"]}, ["vgg16-32"], 1)))
    )
    assert slow_traces.there(["nobody:network"]) == []


def test_synflow_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synflow_rounds, "SHOWN", (2,))
    case = synflow_rounds.Case.of(*toy())
    times = synflow_rounds.timing(case, (1, 2), threads=1, repeats=1)
    rows = [
        {
            "rounds": rounds,
            "seconds": {"1": times[rounds]},
            "masks": [{"density": 1 / 16, **synflow_rounds.gain([case], rounds, 1 / 16)}],
        }
        for rounds in (1, 2)
    ]
    assert all(row["masks"][0]["times_fewer_params"]["median"] > 1 for row in rows)
    assert "| 2 | " in page_of(stored("synflow_rounds", rows, threads=[1]))


@pytest.mark.parametrize("density", [1.0, 0.25])
def test_emptied_is_what_the_mask_leaves_without_input_or_output(density: float) -> None:
    case = synflow_rounds.Case.of(*toy())
    weights = case.scores(8, density)
    plan, collapsed = synflow_rounds.emptied(case.graph, weights, density)
    flat = torch.cat([w.flatten() for w in weights.values()])
    threshold = flat.sort(descending=True).values[round(density * len(flat)) - 1]
    first, second = weights["0.weight"] >= threshold, weights["3.weight"] >= threshold
    alive = first.flatten(1).any(1) & second.transpose(0, 1).flatten(1).any(1)
    assert collapsed == 0
    assert plan.keep[case.graph.groups[0].name] == tuple(alive.nonzero().flatten().tolist())


def test_candidate_time() -> None:
    row = candidate_time.measure(*toy(), plans=2, seconds=0.01)
    assert row["plans"] == row["derived"] == 2
    assert row["candidate_s"]["n"] == 2
    assert row["turns"] >= 1
    assert "| toy |" in page_of(stored("candidate_time", [{"title": "toy", **row}], threads=1))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_compact_memory() -> None:
    run = compact_memory.growth(*toy())
    # The last convolution, 8·16·9 floats, is the largest layer.
    assert run["largest_layer_bytes"] == 8 * 16 * 9 * 4
    assert run["compact_bytes"] < run["dense_bytes"]
    row = compact_memory.row_of([run], [run])
    assert row["allowed_bytes"] == run["compact_bytes"] + run["largest_layer_bytes"]
    assert "| toy |" in page_of(stored("compact_memory", [{"title": "toy", **row}]))


def test_startup() -> None:
    commands = {"interpreter alone": [sys.executable, "-S", "-c", "pass"], "prunit": [sys.executable, "-S", "-c", ""]}
    rows = startup.measure(commands, rounds=1)
    assert rows[0]["beyond_interpreter_ms"] == 0
    assert "| `prunit` |" in page_of(stored("startup", rows, threads=1))
    with pytest.raises(SystemExit, match=r"failed: .*no reason"):
        startup.measure({"broken": [sys.executable, "-S", "-c", "raise SystemExit('no reason')"]}, rounds=1)


def test_wrong_command_lines_are_timed_beside_another_version() -> None:
    (row,) = startup.refused(["build resnet21"], rounds=1, against=_common.ROOT / "src")
    assert row["command"] == "prunit build resnet21"
    assert not row["torch_loaded"]
    assert row["before"]["wall_ms"]["n"] == row["cpu_ms"]["n"] == 1
    empty = "<!-- bench:startup.mistakes -->\n<!-- /bench:startup.mistakes -->\n"
    result = {**stored("startup", [], threads=1), "mistakes": [row], "n_of": {"startup.mistakes": 7}}
    page = tables.render(empty, {"startup.mistakes": result})
    assert "| `prunit build resnet21` |" in page
    assert "n = 7," in page
    with pytest.raises(SystemExit, match="failed: "):
        startup.refused(["--version"], rounds=1)


def test_export_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_latency, "WIDTHS", export_latency.WIDTHS[:2])
    settings = ProbeSettings(batches=(1, 2), threads=1, min_runs=1, max_runs=1, warm_up=0)
    rows = export_latency.measure(*toy(), [settings])
    assert [(row["width"], row["batch"]) for row in rows] == [(w, b) for w in ("1", "1/2") for b in (1, 2)]
    assert rows[0]["params"] > rows[2]["params"]
    page = page_of(stored("export_latency", [{"title": "toy", **row} for row in rows], threads=[1]))
    assert page.count("| toy | ") == 2


def test_export_passes() -> None:
    rows = export_passes.measure(toy, rounds=1)
    every, chosen, none = rows
    assert [row["rewrites"] for row in rows] == ["all", "chosen", "none"]
    assert (chosen["file_bytes"], chosen["nodes"]) == (every["file_bytes"], every["nodes"])
    assert none["nodes"] > chosen["nodes"]
    page = page_of(stored("export_passes", [{"title": "toy", **row} for row in rows], threads=1))
    assert page.count("| toy | ") == 3


def test_ram_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ram_budget, "RECIPES", {"default": {"score": "magnitude"}, "ma": ram_budget.RECIPES["complexity, ma"]}
    )
    monkeypatch.setattr(ram_budget, "SHARES", ("1/2", "1/100"))
    half, hundredth = ram_budget.plans(Net("toy", "resnet20", 8))
    assert half["kept"]["default"] >= half["kept"]["ma"] > 0.8
    assert max(half["used"].values()) <= 1
    assert set(hundredth["kept"].values()) == {None}
    before = {"default": 0.05, "ma": None}
    page = page_of(
        stored(
            "ram_budget",
            [{**row, "before": before} for row in (half, {**half, "kept": {"default": 0.951, "ma": None}})],
        )
    )
    assert "| toy | 1/2 | 5.00% → 95.10% | out of reach | " in page


def test_every_network_of_the_ram_table_has_its_figures_from_before() -> None:
    assert [net.title for net in ram_budget.NETS] == list(ram_budget.BEFORE)
    assert all(tuple(kept) == ram_budget.SHARES for kept in ram_budget.BEFORE.values())
    assert all(len(x) == len(ram_budget.RECIPES) for kept in ram_budget.BEFORE.values() for x in kept.values())


def test_readme_example() -> None:
    dense, half = (
        variant(name, accuracy=accuracy, cost=cost, keep=keep, latencies=(latency(ms), latency(10 * ms, batch=32)))
        for name, accuracy, cost, keep, ms in (("dense", 0.9, 8000, 1, 4), ("macs-1-2", 0.89, 2000, 0.5, 2))
    )
    rows = readme_example.rows_of(portfolio(dense, half))
    page = page_of(stored("readme_example", rows))
    assert "| variant | test accuracy | of dense, points | epochs | training time | params | macs | ONNX file |" in page
    assert "| dense | 90.00 |  | 2 | 1.00 of dense | 8.0 k | 8.0 M | 8 kB | 4.00 ms | 40.00 ms |" in page
    small = "2.0 k (4.0×) | 2.0 M (4.0×) | 2 kB (4.0×) | 2.00 ms (2.0×) | 20.00 ms (2.0×) |"
    assert f"| macs-1-2 | 89.00 | -1.00 | 2 | 1.00 of dense | {small}" in page
    second = [
        row | {"seed": 1, "accuracy": row["accuracy"] + more} for row, more in zip(rows, (0.01, 0.03), strict=True)
    ]
    page = page_of(stored("readme_example", [*rows, *second]))
    assert f"| macs-1-2 | 90.50 (89.00 to 92.00) | +0.00 (-1.00 to +1.00) | 2 | 1.00 of dense | {small}" in page


def test_readme_example_keeps_other_seeds_of_the_same_command(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    assert readme_example.kept_rows(file, "prunit build", without=0) == []
    file.write_text(json.dumps({"config": {"command": "prunit build"}, "rows": [{"seed": 0}, {"seed": 1}]}))
    assert readme_example.kept_rows(file, "prunit build", without=0) == [{"seed": 1}]
    assert readme_example.kept_rows(file, "prunit build --epochs 2", without=0) == []


def test_the_readme_shows_the_command_of_its_example() -> None:
    shown = f"`prunit {' '.join(readme_example.command('cifar10', 12))}`"
    assert shown in tables.README.read_text("utf-8").replace("\n", " ")


def test_other_tasks(tmp_path: Path) -> None:
    cost = {"dense": 8000, "macs-1-2": 2000}
    variants = [
        variant(n, accuracy=a, cost=cost[n], keep=1, latencies=(latency(4),))
        for n, a in (("dense", 0.5), ("macs-1-2", 0.4))
    ]
    rows = other_tasks.rows_of("detection", portfolio(*variants))
    rows[0] |= {"metric": "mAP", "interval": (0.45, 0.55)}
    rows[1] |= {"against": {"of": "dense", "difference": -0.1, "low": -0.15, "high": -0.05}}
    found = other_tasks.result_of(rows)
    page = page_of(stored("other_tasks", found["rows"]) | {"config": found["config"]})
    assert "`prunit build fcos-tiny --data bccd/ --task detection --image-size 256 --budget macs=1/2" in page
    assert "| dense | 50.0 (45.0 to 55.0) |  | 2 |" in page
    assert "| macs-1-2 | 40.0 | -10.0 (-15.0 to -5.0) | 2 |" in page
    file = tmp_path / "found.json"
    assert other_tasks.kept_rows(file, without="detection") == []
    file.write_text(json.dumps({"rows": [{"task": "detection"}, {"task": "segmentation"}]}))
    assert other_tasks.kept_rows(file, without="detection") == [{"task": "segmentation"}]


def test_the_readme_shows_the_commands_of_other_tasks() -> None:
    text = tables.README.read_text("utf-8")
    for task, example in other_tasks.EXAMPLES.items():
        assert f"prunit {' '.join(example.command(task, f'{example.data}/'))}" in text


def test_tables_need_markers() -> None:
    result = stored("startup", [])
    with pytest.raises(SystemExit, match="no markers '<!-- bench:startup -->'"):
        tables.render("# no markers", {"startup": result})


def test_the_pages_have_a_place_for_every_benchmark() -> None:
    pages = ((tables.PAGE, tables.TABLES), (tables.README, tables.ON_README), (tables.PRECISIONS, tables.ON_PRECISIONS))
    for file, shown in pages:
        page = file.read_text(encoding="utf-8")
        for name in shown:
            assert page.count(f"<!-- bench:{name} -->") == page.count(f"<!-- /bench:{name} -->") == 1


def test_evaluating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNIT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "portfolio").mkdir()
    evaluating.portfolio_in(tmp_path / "portfolio")
    assert evaluating.photos_in(tmp_path / "photos", 60) == "noise"
    rows = evaluating.speed(tmp_path / "portfolio", tmp_path / "photos", 1, 2)
    assert [row["way"] for row in rows] == ["prunit evaluate", "decoding and engine", "decoding", "engine"]
    rows += evaluating.memory(tmp_path / "portfolio", tmp_path / "photos", [32, 60])
    assert [row["images"] for row in rows if row["part"] == "memory"] == [0, 32, 60]
    page = page_of(stored("evaluating", rows, threads=1))
    assert "| prunit evaluate |" in page
    assert "| 60 |" in page
