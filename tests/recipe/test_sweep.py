"""A sweep: recipes compete within each budget on held-out images, the best is built, and a stopped one goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prunit.edge.answers import pairs
from prunit.edge.portfolio import Portfolio
from prunit.errors import BudgetError, ConfigError, ModelError, UnknownNameError
from prunit.recipe import sweep as public_sweep
from prunit.recipe.config import BuildConfig
from prunit.recipe.progress import Step
from prunit.recipe.request import check_request
from prunit.recipe.sweeps import TRIALS, Sweep, front, held, rungs, settings_of, sweep
from tests.recipe import building
from tests.report.portfolios import portfolio, variant

CONFIG: dict[str, Any] = {
    **building.CONFIG,
    "budgets": ["params=1/2", "macs=1/3"],
    "train": {**building.CONFIG["train"], "epochs": 4},
}
RECIPES = ("uniform", "reconvene", "complexity:fa", "global", "complexity:pa")


def run(out: Path, **options: Any) -> Sweep:
    torch.manual_seed(0)
    asked = {"recipes": RECIPES, "config": CONFIG, "eta": 2, **options}
    return sweep(building.model(), building.data(), out, **asked)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sweep]:
    folder = tmp_path_factory.mktemp("sweep") / "out"
    return folder, run(folder)


@pytest.mark.parametrize(
    ("epochs", "recipes", "eta", "expected"),
    [
        (30, 1, 3, []),
        (30, 2, 3, [10]),
        (30, 3, 3, [10]),
        (30, 4, 3, [3, 10]),
        (27, 9, 3, [3, 9]),
        (8, 8, 2, [1, 2, 4]),
        (2, 5, 2, [1, 1, 1]),
    ],
)
def test_rungs_end_with_one_and_each_lasts_longer(epochs: int, recipes: int, eta: int, expected: list[int]) -> None:
    assert rungs(epochs, recipes, eta) == expected


def test_recipes_are_named_with_their_switch() -> None:
    assert settings_of("uniform") == {"recipe": "uniform"}
    assert settings_of("reconvene:emptied") == {"recipe": "reconvene", "evaluator": "emptied"}
    assert settings_of("complexity:fa") == {"recipe": "complexity", "mode": "fa"}
    with pytest.raises(UnknownNameError, match="unknown recipe 'unifrom'; did you mean 'uniform'"):
        settings_of("unifrom")
    with pytest.raises(ConfigError, match="recipe 'uniform:fa': uniform has no switch"):
        settings_of("uniform:fa")
    with pytest.raises(ConfigError, match="evaluator='fa'"):
        settings_of("reconvene:fa")


def test_training_images_judge_and_the_test_images_are_not_seen() -> None:
    whole = building.data()
    part = held(whole, 0.2, seed=0)
    assert (len(part.train), len(part.test)) == (40, 10)
    both = torch.cat([part.train.x_BCHW, part.test.x_BCHW])
    assert sorted(map(bytes, both.numpy())) == sorted(map(bytes, whole.train.x_BCHW.numpy()))
    counts = torch.bincount(part.test.y_B, minlength=4)
    assert counts.max() - counts.min() <= 1


def test_each_budget_has_one_winner_which_is_the_best_of_its_rungs(swept: tuple[Path, Sweep]) -> None:
    _, found = swept
    for name in ("params-1-2", "macs-1-3"):
        mine = [trial for trial in found.trials if trial.variant == name]
        assert [trial.recipe for trial in mine] == list(RECIPES)
        (winner,) = [trial for trial in mine if not trial.out]
        tried = [trial for trial in mine if trial.accuracies]
        assert len(tried) > 1
        for rung in range(max(len(trial.accuracies) for trial in tried)):
            there = [trial for trial in tried if len(trial.accuracies) > rung]
            went_on = [trial for trial in there if len(trial.accuracies) > rung + 1] or [winner]
            stayed = [trial.accuracies[rung][1] for trial in there if trial not in went_on]
            assert all(trial.accuracies[rung][1] >= accuracy for trial in went_on for accuracy in stayed)
        assert all("the same channels as" in trial.out or trial.accuracies for trial in mine)


def test_the_progress_names_the_recipe_that_is_tried(tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    notes: list[str] = []

    def on_step(step: Step) -> None:
        if step.stage == "prune":
            notes.append(step.note)
        elif notes:
            raise EnoughError

    with pytest.raises(EnoughError):
        run(tmp_path / "out", recipes=("uniform", "reconvene"), on_step=on_step)
    assert set(notes) == {"uniform", "reconvene"}


def test_what_wins_is_built_by_its_recipe_and_shown(swept: tuple[Path, Sweep]) -> None:
    folder, found = swept
    manifest = Portfolio.read(folder / "portfolio")
    assert manifest == found.portfolio
    assert manifest.verify(folder / "portfolio") == []
    winners = {trial.variant: trial for trial in found.trials if not trial.out}
    for built in manifest.variants:
        if built.budget:
            assert built.recipe == winners[built.name].recipe.partition(":")[0]
            assert built.metrics.params == winners[built.name].cost["params"]
            assert pairs(built.metrics.answers, manifest.variant("dense").metrics.answers) is not None
    page = (folder / "portfolio" / "report.html").read_text()
    for text in ("What was tried", "complexity:fa", "trained in full", "held-out"):
        assert text in page


def test_a_sweep_goes_on_where_it_stopped(
    swept: tuple[Path, Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, found = swept
    out = tmp_path / "out"
    out.mkdir()
    data = json.loads((whole / TRIALS).read_text())
    lost = list(data["found"])[-1]
    accuracy = data["found"].pop(lost)
    (out / TRIALS).write_text(json.dumps(data))
    trained: list[int] = []
    import prunit.recipe.trials as module

    real = module.train
    monkeypatch.setattr(module, "train", lambda *a, **k: trained.append(1) or real(*a, **k))
    with pytest.raises(ConfigError, match="already holds a sweep: continue it with --resume"):
        run(out)
    with pytest.raises(ConfigError, match="holds a sweep of other settings"):
        run(out, resume=True, eta=3)
    again = run(out, resume=True)
    assert len(trained) == 1
    assert json.loads((out / TRIALS).read_text())["found"][lost] == accuracy
    assert again.trials == found.trials


def test_a_budget_that_no_recipe_meets_is_told_of_and_others_go_on(tmp_path: Path) -> None:
    config = {**CONFIG, "budgets": ["params=1/2", "params=1/2000"]}
    found = run(tmp_path / "a", config=config, recipes=("uniform",))
    assert {trial.variant: bool(trial.out) for trial in found.trials} == {"params-1-2": False, "params-1-2000": True}
    assert all(not trial.accuracies for trial in found.trials), "one recipe has no rival"
    with pytest.raises(
        BudgetError, match="no recipe meets any budget: params-1-2000 with uniform: budget cannot be met"
    ):
        run(tmp_path / "b", config={**config, "budgets": ["params=1/2000"]}, recipes=("uniform",))
    assert not (tmp_path / "b" / "portfolio").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipes": ()}, "at least one recipe"),
        ({"eta": 1}, "eta=1: at least 2"),
        ({"held_out": 1.0}, "held_out=1.0: a share"),
        ({"config": {**CONFIG, "budgets": []}}, "at least one budget"),
    ],
)
def test_mistakes_leave_no_folder(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_exported_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = building.model()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) / torch.nextafter(x.new_ones(1), x.new_zeros(1))  # ONNX has no such operator

    torch.manual_seed(0)
    with pytest.raises(ModelError, match="cannot export Odd to ONNX"):
        sweep(Odd(), building.data(), tmp_path / "out", recipes=("uniform",), config=CONFIG)
    assert not (tmp_path / "out").exists()


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        run(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        run(tmp_path / "mine.txt")


def test_the_front_is_what_no_other_variant_beats() -> None:
    several = portfolio(
        variant("dense", accuracy=0.9, cost=1000, keep=1),
        variant("good", accuracy=0.8, cost=500),
        variant("beaten", accuracy=0.7, cost=600),
        variant("small", accuracy=0.5, cost=100),
    )
    assert [v.name for v in front(several).variants] == ["dense", "good", "small"]


def test_single_variants_have_settings_of_their_own() -> None:
    config = BuildConfig(budgets=("params=1/2", "macs=1/3"), by_variant={"macs-1-3": {"recipe": "uniform"}})
    assert config.prune_of("macs-1-3").recipe == "uniform"
    assert config.prune_of("params-1-2") == config.prune
    assert list(check_request(config)) == ["dense", "params-1-2", "macs-1-3"]
    for wrong, error, message in (
        ({"macs-1-4": {}}, UnknownNameError, "unknown variant 'macs-1-4'; did you mean 'macs-1-3'"),
        ({"dense": {}}, UnknownNameError, "unknown variant 'dense'"),
        ({"macs-1-3": {"recipe": "unifrom"}}, UnknownNameError, "did you mean 'uniform'"),
        ({"macs-1-3": {"colour": 1}}, UnknownNameError, r"prune\.colour"),
        ({"macs-1-3": {"pin": ("stem",)}}, ConfigError, r"by_variant\.macs-1-3\.pin: the model is read once"),
    ):
        with pytest.raises(error, match=message):
            check_request(config.model_copy(update={"by_variant": wrong}))


def test_a_sweep_is_public() -> None:
    assert public_sweep is sweep
