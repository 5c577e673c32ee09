"""Figures of the page from cells made up for it, and the words that stand where cells are missing."""

import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.evidence import __main__ as command
from bench.evidence import cells, claims, hour, page, plots
from bench.evidence.arms import ARMS, DEFAULT
from bench.evidence.asked import Evidence
from bench.evidence.pairs import compared, holm, spread
from bench.evidence.pictures import HEIGHT, WIDTH, pictures
from bench.evidence.protocols import PROTOCOLS, protocol
from bench.evidence.references import published
from bench.evidence.shares import by_latency
from bench.evidence.steps import in_steps
from bench.evidence.tasks import Task
from tests.evidence.setup import cell, stored

GPU = [t for t in protocol("gpu").tasks() if t.model == "vgg16"]


def some(arm: str, budget: str, recipe: str = "onecycle40") -> list[Task]:
    return [t for t in GPU if (t.arm, t.budget) == (arm, budget) and t.setting.endswith(recipe)]


def found_of(accuracies: dict[tuple[str, str], list[float]], folder: Path, recipe: str = "onecycle40") -> cells.Found:
    """The protocol's cells where those of these arms and budgets have these accuracies, seed by seed."""
    for (arm, budget), values in accuracies.items():
        for task, accuracy in zip(some(arm, budget, recipe), values, strict=False):
            stored({task: cell(task, accuracy)}, folder)
    return cells.find(GPU, folder)


def test_spread_and_paired_test_by_hand() -> None:
    assert spread([]) is None
    one = spread([3.0])
    assert one is not None
    assert math.isnan(one.sd)
    three = spread([1.0, 2.0, 3.0])
    assert three is not None
    assert (three.mean, three.sd, three.n) == (2.0, 1.0, 3)
    # Differences 1, 2, 3: mean 2, error 1/sqrt(3); t(2) at 97.5 % is 4.3027, p of t = 3.4641 is 0.0742.
    found = compared({"a": 2.0, "b": 4.0, "c": 6.0, "d": 9.0}, {"a": 1.0, "b": 2.0, "c": 3.0})
    assert found is not None
    assert (found.mean, found.n) == (2.0, 3)
    assert found.low == pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-3)
    assert found.p == pytest.approx(0.0742, abs=1e-4)
    assert compared({"a": 1.0}, {"b": 1.0}) is None


def test_verdicts() -> None:
    def verdict(*differences: float) -> str:
        found = compared(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))
        assert found is not None
        return found.verdict()

    assert verdict(1.0, 1.1, 0.9) == "better"
    assert verdict(-1.0, -1.1, -0.9) == "worse"
    assert verdict(0.1, -0.1, 0.05) == "same"
    assert verdict(2.0, -2.0, 0.5) == "undecided"
    assert verdict(1.0) == "undecided"  # one pair tells nothing
    assert verdict(0.0, 0.0) == "same"
    found = compared({1: 1.0, 2: 1.1, 3: 0.9}, {1: 0.0, 2: 0.0, 3: 0.0})
    assert found is not None
    assert found.verdict(p=0.2) == "undecided"  # after the correction


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, math.nan])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_page_without_cells_has_no_figures(tmp_path: Path) -> None:
    names = [name for name in PROTOCOLS if name != "smoke"]
    text = page.render({name: cells.find(protocol(name).tasks(), tmp_path) for name in names})
    assert "**Incomplete: cpu, cpu32, vgg16, mobilenetv2, latency, gpu, tiny.**" in text
    assert text.count("**Not measured yet**") == 20
    assert "## Results" not in text
    for name in names:
        assert f"| 0 | {len(protocol(name).tasks())} | 0 | – |" in text


def test_a_table_from_cells(tmp_path: Path) -> None:
    accuracies = {
        ("dense", ""): [0.93, 0.94, 0.95],
        ("uniform", "params=1/16"): [0.90, 0.91, 0.92],
        (DEFAULT, "params=1/16"): [0.91, 0.921, 0.929],
        ("snap", "params=1/16"): [0.80],
    }
    found = found_of(accuracies, tmp_path)
    failed = some("3sp", "params=1/16")[0]
    stored(
        {
            failed: {k: v for k, v in cell(failed, 0).items() if k in ("digest", "task", "versions", "device")}
            | {"error": "BudgetError: too | tight"}
        },
        tmp_path,
    )
    found = cells.find(GPU, tmp_path)
    text = page.render({"gpu": found})
    assert "The dense model of vgg16-cifar10-onecycle40: 94.00 ± 1.00 (3) %, 250 parameters" in text
    assert "### vgg16-cifar10-onecycle40, params=1/16" in text
    assert "| uniform | 91.00 ± 1.00 (3) | – | – | 4.0× | 4.0× | 4.0× | 2.00× | 2.00× | 2.0 | 0.5 |" in text
    assert f"| **{DEFAULT}** | 92.00 ± 0.95 (3) | +1.00 | +0.75 to +1.25 |" in text
    assert "| snap | 80.00 (1) of 3 | -10.00 | – |" in text
    ranking = text[text.index("All arms by their mean difference") :]
    assert (
        f"| **{DEFAULT}** | +1.00, +0.75 to +1.25 (3 pairs) | not measured |\n| snap | -10.00, – (1 pairs) |" in ranking
    )
    assert "| 3sp | BudgetError: too / tight | – |" in text
    assert "| precrop | not measured (0 of 3) | – |" in text
    told = "+1.00 (+0.75 to +1.25), 3, p = 0.0033: better"
    assert f"| at equal params | {told} | not measured | not measured | not measured |" in text
    assert f"| **{DEFAULT}** | +1.00 (+0.75 to +1.25), 3 | not measured |" in text
    assert "**Incomplete: gpu.**" in text


def test_the_default_is_tested_on_seeds_that_did_not_choose_it(tmp_path: Path) -> None:
    found = found_of(
        {
            ("uniform", "params=1/16"): [0.90, 0.91, 0.92],
            (DEFAULT, "params=1/16"): [0.95, 0.911, 0.9205],
            ("precrop", "params=1/16"): [0.89, 0.91, 0.92],
        },
        tmp_path,
    )
    text = claims.section({"gpu": Evidence(found, choosing=(0,))})
    assert "Protocol `gpu`, on seeds 1, 2, on which nothing was chosen." in text
    tested = text[text.index(f"| **{DEFAULT}** | − uniform") :]
    assert tested.splitlines()[2].startswith("| at equal params | +0.08 (")
    assert "All readings of Reconvene in `gpu` on seeds 0: " in text
    assert f"| **{DEFAULT}** | +5.00 (–), 1 |" in text


def test_the_headline_is_told_as_it_is(tmp_path: Path) -> None:
    found = found_of(
        {(DEFAULT, "params=1/16.21"): [0.90, 0.91, 0.92], ("counterpart", "params=1/16.21"): [0.905, 0.915, 0.925]},
        tmp_path,
    )
    text = claims.section({"gpu": Evidence(found)})
    row = "91.00 ± 1.00 (3) | 91.50 ± 1.00 (3) | yes | not measured | 4.00× | 2.0× | 2.0× |"
    assert f"| {DEFAULT}, vgg16-cifar10-onecycle40, params=1/16.21 | {row}" in text
    found = found_of({("counterpart", "params=1/16.21"): [0.96, 0.961, 0.962]}, tmp_path)
    assert "| 96.10 ± 0.10 (3) | no | not measured | 4.00×" in claims.section({"gpu": Evidence(found)})
    found = found_of({("mask-synflow", "params=1/16.21"): [0.93, 0.94, 0.95]}, tmp_path)
    assert "| no | 94.00 ± 1.00 (3) | 4.00×" in claims.section({"gpu": Evidence(found)})
    lacking = found_of({(DEFAULT, "params=1/20"): [0.9], ("counterpart", "params=1/20"): [0.9]}, tmp_path)
    assert "| not known, seeds missing |" in claims.section({"gpu": Evidence(lacking)})


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    assert published("vgg16", "cifar10", "mask-synflow", 31.6) == 92.12
    assert published("vgg16", "cifar10", "uniform", 31.6) is None
    assert published("vgg16", "cifar10", "mask-snip", 3.0) is None
    found = found_of({("mask-synflow", "density=1/31.6"): [0.91, 0.92, 0.93]}, tmp_path, "step160")
    text = claims.section({"gpu": Evidence(found)})
    assert "mask-synflow | 31.6× | 92.12 | 92.00 ± 1.00 (3) | 92.00 ± 1.00 (3) | -0.12 | yes |" in text


def test_seconds_count_the_training_before_the_pruning(tmp_path: Path) -> None:
    arm = some("l1-trained", "params=1/16")[0]
    stored({arm: cell(arm, 0.9, seconds={"prune": 0.5, "train": 20.0, "train_dense": 40.0})}, tmp_path)
    text = claims.section({"gpu": Evidence(cells.find(GPU, tmp_path))})
    assert "| vgg16-cifar10-onecycle40 | trained | 40.5 (40.5 to 40.5) | 20 | 1 |" in text


def of_protocol(name: str, accuracies: dict[str, list[float]], folder: Path, model: str) -> Evidence:
    """The cells of a protocol where those of these arms have these accuracies, seed by seed, at the first budget."""
    tasks = [task for task in protocol(name).tasks() if task.model == model]
    for arm, values in accuracies.items():
        budget = next(task.budget for task in tasks if task.arm == arm)
        mine = [task for task in tasks if (task.arm, task.budget) == (arm, budget)]
        stored({t: cell(t, value) for t, value in zip(mine, values, strict=False)}, folder)
    return Evidence(cells.find(tasks, folder))


def test_widths_in_steps_beside_single_channels(tmp_path: Path) -> None:
    accuracies = {DEFAULT: [0.90, 0.91, 0.92], "reconvene-per-cost": [0.91, 0.92, 0.93]}
    text = in_steps("cpu", of_protocol("cpu", accuracies, tmp_path, "resnet20"))
    told = "-1.00 (-1.00 to -1.00), 3: worse | batch 1: 2.0× → 2.0×; batch 32: 2.0× → 2.0× |"
    assert f"| resnet20-cifar10-onecycle8, params=1/8 | {told}" in text
    assert "macs=1/4" not in text  # without a pair there is nothing to say


def test_shares_of_latency_beside_shares_of_macs(tmp_path: Path) -> None:
    accuracies = {"complexity-la": [0.9, 0.91, 0.92], "complexity-fa": [0.88, 0.889, 0.901]}
    text = by_latency("latency", of_protocol("latency", accuracies, tmp_path, "resnet20"))
    setting = "resnet20-cifar10-onecycle8"
    better = "+2.00 (+1.75 to +2.25), 3: better"
    assert f"| complexity-la, {setting} | latency=2/3 | 0.50 | 91.00 ± 1.00 (3) | {better} | 4.0× | 4.0× |" in text
    assert f"| complexity-fa, {setting} | latency=2/3 | 0.50 | 89.00 ± 1.05 (3) | – | 4.0× | 4.0× |" in text
    assert "uniform," not in text


def test_the_front_and_the_points_of_a_picture(tmp_path: Path) -> None:
    front = plots.pareto([(1, 50, "a"), (2, 60, "b"), (2, 55, "c"), (3, 60, "d"), (4, 70, "e")])
    assert [name for *_, name in front] == ["a", "b", "e"]
    found = found_of({("uniform", "params=1/16"): [0.9, 0.92], ("dense", ""): [0.94]}, tmp_path)
    drawn = plots.points(Evidence(found), "vgg16-cifar10-onecycle40", lambda c: c["macs"])
    assert drawn["structured"] == [
        (3000, pytest.approx(91), pytest.approx(math.sqrt(2)), "uniform params=1/16 (2 seeds)")
    ]
    assert drawn["dense"][0][1] == pytest.approx(94)
    text = plots.html("gpu", found)
    assert f"3 of {len(GPU)} cells; {len(GPU) - 3} are missing and not drawn" in text
    assert text.count('"Pareto front"') == 3
    still = pictures(Evidence(found))
    axes = ("stored-parameters", "multiply-adds", "latency-at-batch-1")
    assert list(still) == [f"vgg16-cifar10-onecycle40-{axis}.svg" for axis in axes]
    for text in still.values():
        dots = [each.attrib for each in ElementTree.fromstring(text).iter() if each.tag.endswith("circle")]
        assert all(0 < float(dot["cx"]) < WIDTH and 0 < float(dot["cy"]) < HEIGHT for dot in dots)
        assert text.count("<circle") == 2 * 2
    assert all(f"![vgg16-cifar10-onecycle40](evidence/{file})" in page.render({"gpu": found}) for file in still)


def test_the_committed_page_is_what_the_committed_cells_say() -> None:
    names = [name for name in PROTOCOLS if name != "smoke"]
    found = {name: cells.find(protocol(name).tasks(), cells.CELLS) for name in names}
    assert command.PAGE.read_text("utf-8") == page.render(found), "run python -m bench.evidence table"
    drawn = {file: text for each in found.values() for file, text in pictures(Evidence(each)).items()}
    folder = command.PAGE.parent / page.PICTURES
    assert {file.name: file.read_text("utf-8") for file in folder.glob("*.svg")} == drawn


def test_cells_are_of_declared_protocols_and_arms() -> None:
    declared = {t.key for name in PROTOCOLS for t in protocol(name).tasks()}
    there = {file.relative_to(cells.CELLS).as_posix().removesuffix(".json") for file in cells.CELLS.rglob("*.json")}
    assert there <= declared
    assert all(t.arm in ARMS and replace(t, seed=9).digest != t.digest for t in GPU[:5])


def test_starts_and_amounts_of_training_by_their_time(tmp_path: Path) -> None:
    # Half a dense step: 40 epochs take half of the dense training, 80 as long, 320 four times as long.
    epochs = {DEFAULT: 40, "equal-time": 80, "equal-macs": 320, "trained-start": 40, "trained-start-equal-time": 80}
    reached = {DEFAULT: 0.70, "equal-time": 0.74, "equal-macs": 0.78, "trained-start": 0.75}
    steps = {"dense_s": 0.2, "pruned_s": 0.1}
    for arm, n in epochs.items():
        seconds = {"prune": 1.0, "train": 10.0} | ({"train_dense": 20.0} if arm.startswith("trained") else {})
        for task in some(arm, "params=1/16"):
            accuracy = reached.get(arm, 0.76) + 0.001 * task.seed
            each = [{"loss": 1.0, "train_accuracy": 0.5, "test_accuracy": accuracy, "seconds": 1.0}] * n
            stored({task: cell(task, accuracy, epochs=each, seconds=seconds, steps=steps)}, tmp_path)
    evidence = Evidence(cells.find(GPU, tmp_path), choosing=(0,))
    found = {arm: hour.total(*next(iter(evidence.of(arm).items()))) for arm in epochs}
    assert list(found.values()) == [0.5, 1.0, 4.0, 1.5, 2.0]
    # Initial weights reach 75.17 in 1.5 dense trainings and 76 in 2, on the logarithm: between 74 in 1 and 78 in 4.
    same = hour.at_equal_time(evidence, {1, 2})
    assert same is not None
    assert (same.n, same.mean) == (4, pytest.approx((75 - 74 - 4 * math.log(1.5) / math.log(4)) / 2))
    text = hour.section({"gpu": evidence})
    assert f"| **{DEFAULT}** | 70.10 ± 0.10 (3) | 40 | 0.50 | 11 |" in text
    assert "| trained-start | 75.10 ± 0.10 (3) | dense, then 40 | 1.50 | 31 |" in text
    assert "| equal-time − **reconvene-auto** | not measured | +4.00 (+4.00 to +4.00), 2: better |" in text
    assert (
        "the **amount** of training: in the dense model's training time instead of in its epochs, the default's" in text
    )
    assert "On seed 0, which the defaults are chosen by" in text


def test_cells_without_timed_steps_have_no_time(tmp_path: Path) -> None:
    task = some("equal-time", "params=1/16")[0]
    stored({task: cell(task, 0.5)}, tmp_path)
    evidence = Evidence(cells.find(GPU, tmp_path))
    assert hour.total(task, cell(task, 0.5)) is None
    assert "| equal-time | 50.00 (1) | 1 | not timed | 20 |" in hour.section({"gpu": evidence})
