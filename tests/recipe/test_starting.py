"""Variants that begin with trained weights: those of the dense variant, or of a file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from prunit.cut.store import load
from prunit.edge.portfolio import Portfolio
from prunit.errors import ConfigError, TrainingError
from prunit.recipe import build
from prunit.recipe.config import StartConfig
from prunit.recipe.folder import STATE, read_history, read_plan
from prunit.recipe.gradual import in_one, rounds_of
from prunit.recipe.progress import Step
from prunit.recipe.starting import Start
from prunit.train import TrainConfig, evaluate, fitted, train
from tests.recipe import building
from tests.train.toys import Small, small, stripes

DATA = stripes(60, tests=80)


def config(passes: int = 2, **start: Any) -> dict[str, Any]:
    train = {**building.CONFIG["train"], "epochs": passes}
    return {**building.CONFIG, "budgets": ["params=1/2"], "train": train, "start": start}


@pytest.fixture(scope="module")
def taught() -> Small:
    """A network that has learnt the stripes."""
    model = small(12)
    for _ in train(model, DATA, TrainConfig(epochs=30, batch_size=10, device="cpu")):
        pass
    assert evaluate(model, DATA, device="cpu") > 0.9
    return model


@pytest.fixture
def weights(taught: Small, tmp_path: Path) -> Path:
    file = tmp_path / "taught.safetensors"
    save_file(dict(taught.state_dict()), file)
    return file


def fresh() -> Small:
    return small(12, seed=5)


def test_given_weights_are_kept_and_passed_on(taught: Small, weights: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    portfolio = build(
        fresh, DATA, tmp_path / "out", config=config(1, weights=str(weights), lr=1e-9), on_step=steps.append
    )
    dense, variant = portfolio.variants
    assert (dense.epochs, variant.epochs) == (0, 1)
    assert dense.metrics.accuracy == evaluate(taught, DATA, device="cpu")
    assert ("dense", "train") not in {(step.variant, step.stage) for step in steps}
    # A learning rate of nothing leaves of the variant what it began with: the taught filters that the plan keeps.
    plan = read_plan(tmp_path / "out" / "params-1-2.plan.json")
    cut = load(tmp_path / "out" / "params-1-2.safetensors", fresh)
    kept = list(plan.keep["conv1"])
    assert 0 < len(kept) < 12
    torch.testing.assert_close(cut.get_parameter("conv1.weight"), taught.conv1.weight[kept], atol=1e-5, rtol=0)
    assert variant.settings["start"] == "trained"
    assert variant.settings["rectifier"] == "none"


def test_the_dense_variant_passes_on_what_it_has_learnt(tmp_path: Path) -> None:
    portfolio = build(fresh, DATA, tmp_path / "out", config=config(30, point="trained", score="magnitude", lr=1e-9))
    dense, variant = portfolio.variants
    assert (dense.epochs, variant.epochs) == (30, 30)
    taught = load(tmp_path / "out" / "dense.safetensors", fresh)
    plan = read_plan(tmp_path / "out" / "params-1-2.plan.json")
    norms_C = taught.get_parameter("conv1.weight").detach().abs().sum((1, 2, 3))
    kept = plan.keep["conv1"]
    assert set(kept) == set(norms_C.topk(len(kept)).indices.tolist()), "the filters of the largest L1 norms"
    assert variant.settings["channels"] == "magnitude"


def test_rounds_leave_the_widths_that_were_decided(weights: Path, tmp_path: Path) -> None:
    once, thrice = tmp_path / "once", tmp_path / "thrice"
    for folder, rounds in ((once, 1), (thrice, 3)):
        build(fresh, DATA, folder, config=config(8, weights=str(weights), rounds=rounds))
    plans = [read_plan(folder / "params-1-2.plan.json") for folder in (once, thrice)]
    assert plans[0].widths == plans[1].widths
    epochs = read_history(thrice / STATE / "params-1-2" / "history.json")
    assert [epoch.index for epoch in epochs] == list(range(1, 9))
    assert all(epoch.epochs == 8 for epoch in epochs)


def test_fine_tuning_has_its_own_length(tmp_path: Path) -> None:
    portfolio = build(fresh, DATA, tmp_path / "out", config=config(12, point="trained", epochs=3, score="magnitude"))
    assert [variant.epochs for variant in portfolio.variants] == [12, 3]


def test_fine_tuning_and_a_time_contradict_each_other(tmp_path: Path) -> None:
    both = {**config(2, point="trained", epochs=3), "effort": {"time": "1m"}}
    with pytest.raises(ConfigError, match=r"start.epochs=3 .* effort.time=1m"):
        build(fresh, DATA, tmp_path / "out", config=both)


@pytest.mark.parametrize(
    ("kept", "dense", "epochs", "lr", "expected"),
    [
        (False, 12, 12, None, 0.2),
        (False, 12, 15, None, 0.2),
        (False, 12, 3, None, 0.05),
        (True, 12, 3, None, 0.02),  # the dense model's own training is not known: 30 epochs stand for it
        (True, 60, 30, None, 0.1),
        (True, 12, 3, 0.3, 0.3),
    ],
)
def test_a_short_training_begins_at_a_lower_rate(
    kept: bool, dense: int, epochs: int, lr: float | None, expected: float
) -> None:
    start = Start(trained=True, kept=kept)
    settings = fitted(TrainConfig(epochs=dense, lr=0.2, batch_size=10), 600)
    assert start.rate(StartConfig(lr=lr), settings, epochs) == pytest.approx(expected)


class Enough(Exception):
    """Raised to stop a build from within."""


def test_a_build_in_rounds_goes_on_where_it_was_stopped(weights: Path, tmp_path: Path) -> None:
    settings = config(8, weights=str(weights), rounds=3)
    build(fresh, DATA, tmp_path / "whole", config=settings)
    seen = 0

    def stop(step: Step) -> None:
        nonlocal seen
        seen += step.stage == "prune" and step.note == "channels by the trained weights"
        if seen == 3:
            raise Enough

    with pytest.raises(Enough):
        build(fresh, DATA, tmp_path / "out", config=settings, on_step=stop)
    build(fresh, DATA, tmp_path / "out", config=settings, resume=True)
    ours, theirs = building.results(tmp_path / "out"), building.results(tmp_path / "whole")
    assert ours == theirs


def test_rounds_narrow_by_the_same_factor_and_share_the_epochs(tmp_path: Path) -> None:
    build(fresh, DATA, tmp_path / "out", config=config(1))
    plan = read_plan(tmp_path / "out" / "params-1-2.plan.json")
    settings = fitted(TrainConfig(epochs=12, warmup_epochs=6), 60)
    rounds = rounds_of(plan, settings, 3)
    assert [each.settings.epochs for each in rounds] == [3, 3, 6]
    assert [each.settings.warmup_epochs for each in rounds] == [1.5, 1.5, 3]
    assert rounds[-1].widths == plan.widths
    for name, width in plan.widths.items():
        widths = [plan.dense[name], *(each.widths[name] for each in rounds)]
        assert widths == sorted(widths, reverse=True)
        assert rounds[0].widths[name] == max(width, round(plan.dense[name] ** (2 / 3) * width ** (1 / 3)))
    with pytest.raises(ConfigError, match=r"start.rounds=13 are more than the 12 epochs"):
        rounds_of(plan, settings, 13)
    assert in_one([]) == []


def test_a_dense_model_at_chance_has_nothing_to_pass_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no better than guessing: \d+\.\d% of 80 test images .*--dense train"):
        build(fresh, DATA, tmp_path / "kept", config=config(1, point="trained", dense="keep"))
    assert not (tmp_path / "kept").exists(), "found before the folder is touched"
    settings = config(1, point="trained")
    settings["train"] = {**settings["train"], "lr": 1e-9}
    with pytest.raises(TrainingError, match=r"no better than guessing.*--start init"):
        build(fresh, DATA, tmp_path / "out", config=settings)


def test_distillation_and_statistics_are_switches(weights: Path, tmp_path: Path) -> None:
    settings = config(2, weights=str(weights), recalibrate=True)
    settings["train"] = {**settings["train"], "distill": 0.5}
    portfolio = build(fresh, DATA, tmp_path / "out", config=settings)
    plain = build(fresh, DATA, tmp_path / "plain", config=config(2, weights=str(weights)))
    assert portfolio.verify(tmp_path / "out") == []
    files = [Portfolio.read(tmp_path / name).variants[1].weights for name in ("out", "plain")]
    assert files[0] != files[1]
    assert plain.variants[0].metrics.accuracy == portfolio.variants[0].metrics.accuracy


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"rounds": 3}, "start.rounds is for variants that begin with trained weights: add --start trained"),
        ({"point": "init", "score": "magnitude"}, "start.score is for variants"),
        ({"key": "ema"}, "start.weights names none"),
    ],
)
def test_settings_without_effect_are_refused(start: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        build(fresh, DATA, tmp_path / "out", config=config(1, **start))


def test_a_time_too_short_for_one_epoch_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"effort.time=1s is too short: one epoch of the dense model takes .* allow"):
        build(fresh, DATA, tmp_path / "out", config={**config(1), "effort": {"time": "1s"}})
    assert not (tmp_path / "out").exists()
