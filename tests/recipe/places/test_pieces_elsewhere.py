"""Trials of a sweep and rungs of a ladder trained beside each other; what other processes are handed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunit.batches import Dataset, Split
from prunit.errors import BudgetError, ConfigError, MissingExtraError, PrunitError, SurgeryError
from prunit.recipe import ladder, sweep
from prunit.recipe.config import BuildConfig, validated
from prunit.recipe.places.handed import packed, read_arrays, task_again, unpacked, write_arrays
from prunit.recipe.places.pieces import Piece
from prunit.recipe.places.processes import error_of
from prunit.recipe.places.worker import failure
from prunit.tasks import Classification, Detection, Regression
from prunit.zoo.data.streamed import ImageFiles
from tests.recipe.building import assert_same_results
from tests.recipe.places.somewhere import CONFIG, MODEL, data, left_over, workers

SWEEP: dict[str, Any] = {**CONFIG, "train": {**CONFIG["train"], "epochs": 4}}
LADDER: dict[str, Any] = {**CONFIG, "sparse": {"densities": ["1/4", "1/8"], "method": "snip", "pad": "off"}}


@pytest.fixture(autouse=True, scope="module")
def _no_trial_export() -> Iterator[None]:
    """It takes a second of each build and has its own test."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("flow", "sweeps", "ladders"):
            patch.setattr(f"prunit.recipe.{module}.check_exports", lambda *_: None)
        yield


def test_a_sweep_finds_the_same_with_two_at_once(tmp_path: Path) -> None:
    recipes = ("uniform", "reconvene", "complexity:fa")
    one = sweep(MODEL, data(), tmp_path / "one", recipes=recipes, config=SWEEP, eta=2)
    two = sweep(MODEL, data(), tmp_path / "two", recipes=recipes, config=SWEEP, eta=2, jobs=2)
    assert two.trials == one.trials
    assert any(trial.accuracies for trial in one.trials)
    assert_same_results(tmp_path / "two" / "portfolio", tmp_path / "one" / "portfolio")
    assert left_over(tmp_path) == []
    assert workers() == []


def test_a_ladder_by_a_score_finds_the_same_with_two_at_once(tmp_path: Path) -> None:
    ladder(MODEL, data(), tmp_path / "one", config=LADDER)
    ladder(MODEL, data(), tmp_path / "two", config=LADDER, jobs=2)
    assert_same_results(tmp_path / "two", tmp_path / "one")
    assert left_over(tmp_path) == []


def test_levels_that_start_from_each_other_are_not_trained_beside_each_other(tmp_path: Path) -> None:
    config = {**LADDER, "sparse": {**LADDER["sparse"], "method": "imp"}}
    with pytest.raises(ConfigError, match="by 'imp' each level of a ladder starts from the one before"):
        ladder(MODEL, data(), tmp_path / "out", config=config, jobs=2)
    assert not (tmp_path / "out").exists()


def same(one: Split, other: Split) -> bool:
    return torch.equal(one.x_BCHW[:], other.x_BCHW[:]) and torch.equal(one.y_B, other.y_B)


@pytest.mark.parametrize("watched", [False, True])
def test_images_come_back_as_they_were(tmp_path: Path, watched: bool) -> None:
    dataset = replace(data(), watched=data().test.taken(slice(5)) if watched else None, told="as told")
    about, arrays = packed(dataset, "classification")
    mapped = read_arrays(write_arrays(arrays, tmp_path))
    found = unpacked(about, mapped)
    assert all(same(found.parts[name], part) for name, part in dataset.parts.items())
    assert found.parts.keys() == dataset.parts.keys()
    for name in ("name", "classes", "mean_C", "std_C", "flip", "told"):
        assert getattr(found, name) == getattr(dataset, name)
    # In place, as torch does it: neither the file nor another process sees it.
    found.train.x_BCHW.zero_()
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "train.x.npy")), dataset.train.x_BCHW)


def test_images_that_are_read_from_disk_stay_there(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.new("RGB", (8, 8), (i, 50 * i, 9)).save(path)
    files: Any = ImageFiles(paths, 8, "stretch")
    split = Split(files, torch.arange(3))
    dataset = Dataset("files", split, split, ("a", "b", "c"), (0.5,) * 3, (0.3,) * 3)
    about, arrays = packed(dataset, "classification")
    found = unpacked(about, arrays)
    assert sorted(arrays) == ["test.y", "train.y"]
    assert isinstance(found.train.x_BCHW, ImageFiles)
    assert same(found.train, dataset.train)


def test_a_task_learns_the_same_from_its_targets() -> None:
    targets = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    dataset = replace(data(), train=Split(data().train.x_BCHW, targets), task=Regression().fitted(targets, 8))
    about, arrays = packed(dataset, "regression")
    assert unpacked(about, arrays).task.settings() == dataset.task.settings()


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (Detection(loss=lambda outputs, targets: torch.zeros(())).fitted(torch.zeros(1, 1, 5), 8), "detection"),
        (Classification(), "mine"),
    ],
)
def test_a_task_that_cannot_be_made_anew_is_refused(task: Any, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be made anew in another process"):
        task_again(name, replace(data(), task=task))


def test_every_setting_survives_being_handed_over() -> None:
    configs = (
        BuildConfig(),
        validated(CONFIG),
        validated({"seed": 3, "budgets": ["faster=2x"], "by_variant": {"faster-2x": {"recipe": "uniform"}}}),
        validated({"precision": {"wanted": "int8,fp32"}, "effort": {"time": "90s"}, "prune": {"round_to": 8}}),
    )
    for config in configs:
        assert validated(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "error", [BudgetError("too little", {"macs": 3.0}), SurgeryError("no", "a.b"), MissingExtraError("x", "y", "z")]
)
def test_errors_keep_their_kind_and_gain_the_variants_name(error: PrunitError) -> None:
    found = error_of(failure(error)["error"], Piece("train", "params-1-2"))
    assert type(found) is type(error)
    assert str(found) == f"params-1-2: {error}"


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (lambda: FileNotFoundError(2, "no such file", "a/b"), "FileError", "the system refused 'a/b': no such file"),
        (lambda: SystemExit(2), "WorkerError", "left by sys.exit(2)"),
        (lambda: ZeroDivisionError("division"), "RuntimeError", "Traceback"),
    ],
)
def test_errors_of_all_kinds_are_told(error: Callable[[], BaseException], kind: str, words: str) -> None:
    found = error_of(failure(raised(error()))["error"], None)
    assert type(found).__name__ == kind
    assert words in str(found)
