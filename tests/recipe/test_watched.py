"""Test images say how good a model is in the end; whatever is chosen before is chosen by the watched ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prunit.batches import Dataset, Split
from prunit.errors import ConfigError, DataError, FileError, TrainingError
from prunit.recipe import build
from prunit.recipe.folder import STATE, read_history
from prunit.recipe.progress import Step
from prunit.recipe.sweeps import Sweep, front, held, sweep
from prunit.train import TrainConfig, evaluate, evaluation_seconds, train
from prunit.train.config import final_accuracy
from tests.recipe import building
from tests.report.portfolios import portfolio, variant
from tests.train.toys import Small, small, stripes

RECIPES = ("uniform", "reconvene", "complexity:fa")


def wrong(split: Split) -> Split:
    """The same images, each called the next class: who is right on one is wrong on the other."""
    return Split(split.x_BCHW, (split.y_B + 1) % 4)


def data(*, test_is_wrong: bool = False, watched_is_wrong: bool = False) -> Dataset:
    whole = stripes(60, tests=80)
    test, watched = whole.test.taken(slice(0, 40)), whole.test.taken(slice(40, 80))
    return replace(
        whole,
        test=wrong(test) if test_is_wrong else test,
        watched=wrong(watched) if watched_is_wrong else watched,
    )


def config(passes: int, **start: Any) -> dict[str, Any]:
    return {**building.CONFIG, "train": {**building.CONFIG["train"], "epochs": passes}, "start": start}


def fresh() -> Small:
    return small(12, seed=5)


@pytest.fixture(scope="module")
def taught() -> Small:
    model = small(12)
    *_, last = train(model, data(test_is_wrong=True), TrainConfig(epochs=30, batch_size=10, device="cpu"))
    assert last.watched
    assert final_accuracy([last]) > 0.9
    return model


def test_epochs_tell_of_the_watched_images(taught: Small) -> None:
    found = data(test_is_wrong=True)
    assert evaluate(taught, found, device="cpu") < 0.1
    assert evaluate(taught, found.watching, device="cpu") > 0.9
    *_, plain = train(fresh(), stripes(60), TrainConfig(epochs=1, batch_size=10, device="cpu"))
    assert not plain.watched


def test_the_manifest_has_the_test_images_figure_and_the_epochs_the_other_one(tmp_path: Path) -> None:
    found = data(test_is_wrong=True)
    steps: list[Step] = []
    built = build(fresh, found, tmp_path / "out", config=config(12), on_step=steps.append)
    for one in built.variants:
        history = read_history(tmp_path / "out" / STATE / one.name / "history.json")
        assert all(epoch.watched for epoch in history)
        assert one.metrics.answers is not None
        assert one.metrics.answers.images == 40
        assert one.metrics.accuracy is not None
        assert final_accuracy(history) > 0.6 > 0.4 > one.metrics.accuracy
    assert "</i>validation</span>" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(ConfigError, match="images"):
        build(fresh, replace(found, watched=None), tmp_path / "out", config=config(12), resume=True)


def test_whether_a_dense_model_has_learnt_the_watched_images_say(taught: Small, tmp_path: Path) -> None:
    asked = config(1, point="trained", dense="keep")
    build(lambda: taught, data(test_is_wrong=True), tmp_path / "kept", config=asked)
    with pytest.raises(TrainingError, match=r"no better than guessing: \d\.\d% of 40 validation images are right"):
        build(lambda: taught, data(watched_is_wrong=True), tmp_path / "not", config=asked)
    trained = config(12, point="trained", epochs=1)
    build(fresh, data(test_is_wrong=True), tmp_path / "trained", config=trained)
    with pytest.raises(TrainingError, match=r"of 40 validation images are right.*--start init"):
        build(fresh, data(watched_is_wrong=True), tmp_path / "neither", config=trained)


def swept(out: Path, found: Dataset) -> Sweep:
    torch.manual_seed(0)
    asked = {**config(4), "budgets": ["params=1/2", "macs=1/3"]}
    return sweep(building.model(), found, out, recipes=RECIPES, config=asked, eta=2)


def test_a_sweep_ends_the_same_whatever_the_test_images_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import prunit.recipe.sweeps as module

    chosen_by: list[dict[str, float]] = []
    # Not the front itself: it has latencies too, which no two runs have alike.
    monkeypatch.setattr(module, "front", lambda built, accuracies: chosen_by.append(accuracies) or built)
    one, other = swept(tmp_path / "one", data()), swept(tmp_path / "other", data(test_is_wrong=True))
    assert one.trials == other.trials
    assert any(trial.accuracies for trial in one.trials)
    assert chosen_by[0] == chosen_by[1]
    for found, by in zip((one, other), chosen_by, strict=True):
        histories = [tmp_path / f"one/portfolio/{STATE}/{v.name}/history.json" for v in found.portfolio.variants]
        assert list(by.values()) == [final_accuracy(read_history(file)) for file in histories]
    ours, theirs = ([v.metrics.accuracy for v in found.portfolio.variants] for found in (one, other))
    assert ours != theirs


def test_trials_train_on_all_training_images_and_are_judged_by_the_watched() -> None:
    found = data()
    judged = held(found, None, 0)
    assert (judged.train, judged.test, judged.watched) == (found.train, found.watched, None)
    asked = held(found, 0.25, 0)
    assert (len(asked.train), len(asked.test), asked.watched) == (45, 15, None)
    bare = held(replace(found, watched=None), None, 0)
    assert (len(bare.train), len(bare.test)) == (48, 12)


def test_the_front_is_that_of_the_accuracies_that_may_choose() -> None:
    built = portfolio(
        variant("dense", accuracy=0.9, keep=1),
        variant("large", accuracy=0.5, cost=500),
        variant("small", accuracy=0.6, cost=200),
    )
    assert [v.name for v in front(built).variants] == ["dense", "small"]
    chosen = front(built, {"dense": 0.9, "large": 0.7, "small": 0.4})
    assert [(v.name, v.metrics.accuracy) for v in chosen.variants] == [("dense", 0.9), ("large", 0.5), ("small", 0.6)]


def test_a_checkpoint_belongs_to_the_images_that_it_was_watched_by(tmp_path: Path) -> None:
    file, settings = tmp_path / "c.safetensors", TrainConfig(epochs=2, batch_size=10, device="cpu")
    next(iter(train(fresh(), data(), settings, checkpoint=file)))
    with pytest.raises(FileError, match="data 'watched images' is 40 there and missing here"):
        next(iter(train(fresh(), replace(data(), watched=None), settings, checkpoint=file)))


def test_time_for_looking_is_that_of_the_watched_images(monkeypatch: pytest.MonkeyPatch) -> None:
    import prunit.train.steps as module

    monkeypatch.setattr(module, "times_in_turns", lambda runs, _: dict.fromkeys(runs, 1.0))
    monkeypatch.setattr(module, "BATCH", 10)
    few = replace(data(), watched=data().test.taken(slice(0, 20)))
    settings = TrainConfig(epochs=2, batch_size=10, device="cpu")
    assert evaluation_seconds({"dense": fresh()}, few, settings) == {"dense": 2.0}
    assert evaluation_seconds({"dense": fresh()}, replace(few, watched=None), settings) == {"dense": 4.0}


def test_watched_images_that_are_no_good_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    whole = data()
    assert whole.watched is not None
    strange = replace(whole, watched=Split(whole.watched.x_BCHW, whole.watched.y_B + 7))
    with pytest.raises(DataError, match="has watched"):
        build(fresh, strange, tmp_path / "out", config=config(1))
    with pytest.raises(DataError, match="has no watched images"):
        next(iter(train(fresh(), replace(whole, watched=whole.watched.taken(slice(0))), TrainConfig(epochs=1))))
