"""Variants judged on labelled images: figures that a person can redo, of every task, and everything that is refused."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunit.edge.comparing.paired import wilson
from prunit.edge.judging.evaluation import Evaluation, evaluate, most_confused
from prunit.edge.judging.judge import JudgeSettings, judge
from prunit.edge.judging.labelled import labelled, task_of
from prunit.edge.judging.pictures import lowest
from prunit.edge.portfolio import Portfolio
from prunit.edge.reading import Files, Values
from prunit.errors import ConfigError, DataError, MissingExtraError, PortfolioError, UnknownNameError
from tests.edge.colours import EXACT, NAMES, NO_BLUE, SIZE, boxes, class_folders, halves, picture, portfolio_of, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    portfolio_of(tmp_path / "portfolio")
    return tmp_path / "portfolio"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos", {"train": 2, "val": 3, "test": 5})


def evaluated(folder: Path, place: Path, split: str | None = None, **settings: Any) -> Evaluation:
    return evaluate(Portfolio.read(folder), folder, place, split=split, settings=JudgeSettings(**settings))


def test_a_classifier_is_judged(folder: Path, photos: Path) -> None:
    found = evaluated(folder, photos, batch=4)
    assert (found.split, found.images, found.skipped, found.metric) == ("test", 15, 0, "accuracy")
    dense, small = found.variants
    assert (dense.value, small.value) == (1.0, 10 / 15)
    assert small.interval == wilson(10, 15)
    assert dense.confusion == ((5, 0, 0), (0, 5, 0), (0, 0, 5))
    assert small.confusion == ((5, 0, 0), (0, 5, 0), (0, 5, 0))
    assert small.by_class["green"] == {"recall": 1.0, "precision": 0.5, "f1": pytest.approx(2 / 3), "images": 5}
    # Of a class that is never named nobody knows how precise that is.
    assert small.by_class["blue"]["precision"] is None
    assert dense.against is None
    assert small.against is not None
    assert (small.against.of, small.against.only_mine, small.against.only_theirs) == ("dense", 0, 5)
    assert small.against.difference == pytest.approx(-1 / 3)
    assert small.against.low < -1 / 3 < small.against.high
    assert small.against.p == pytest.approx(2 / 2**5)
    assert small.confusion is not None
    assert most_confused(small.confusion) == [(2, 1, 5)]


def test_the_order_in_which_images_are_taken_changes_nothing(folder: Path, photos: Path) -> None:
    whole = [one.model_dump(exclude={"engine_images_per_s"}) for one in evaluated(folder, photos).variants]
    others: list[dict[str, Any]] = [{"batch": 1}, {"batch": 7, "decoders": 1}, {"batch": 100, "threads": 2}]
    for settings in others:
        part = evaluated(folder, photos, **settings).variants
        assert [one.model_dump(exclude={"engine_images_per_s"}) for one in part] == whole


@pytest.mark.parametrize(("split", "images"), [("train", 6), ("val", 9), ("test", 15), ("all", 30), (None, 15)])
def test_a_part_is_chosen(folder: Path, photos: Path, split: str | None, images: int) -> None:
    found = evaluated(folder, photos, split)
    assert found.images == images
    assert found.variants[0].value == 1.0


def test_what_is_not_divided_is_judged_by_what_a_build_holds_out(folder: Path, tmp_path: Path) -> None:
    place = class_folders(tmp_path, {"photos": 10}) / "photos"
    found = evaluated(folder, place)
    assert (found.split, found.images) == ("val", 6)
    assert any("a fifth is held out" in note for note in found.notes)
    assert evaluated(folder, place, "all").images == 30


def test_classes_are_matched_by_name_whatever_their_order(tmp_path: Path, photos: Path) -> None:
    turned = portfolio_of(tmp_path / "turned", matrices={"dense": EXACT[::-1]}, classes=NAMES[::-1])
    found = evaluate(turned, tmp_path / "turned", photos)
    assert found.variants[0].value == 1.0
    assert set(found.variants[0].by_class) == set(NAMES)


def test_variants_are_chosen_by_name(folder: Path, photos: Path) -> None:
    portfolio = Portfolio.read(folder)
    found = evaluate(portfolio, folder, photos, variants=["small", "small"])
    assert [one.variant for one in found.variants] == ["small"]
    # There is nothing to compare with.
    assert found.variants[0].against is None
    with pytest.raises(UnknownNameError, match="did you mean 'small'"):
        evaluate(portfolio, folder, photos, variants=["smal"])


def test_masks_are_judged(tmp_path: Path) -> None:
    portfolio = portfolio_of(tmp_path / "portfolio", "segmentation")
    found = evaluate(portfolio, tmp_path / "portfolio", halves(tmp_path / "cells", 10), split="all")
    dense, small = found.variants
    assert (found.interval_by, dense.value, dense.scores["pixel_accuracy"]) == ("bootstrap", 1.0, 1.0)
    # Red is right; all of the right halves are called green, of which one half is; blue is never said.
    assert small.value == pytest.approx((1 + 0.5 + 0) / 3)
    assert small.by_class["green"]["iou"] == pytest.approx(0.5)
    assert small.interval is not None
    assert small.interval[0] < small.value < small.interval[1]
    assert small.against is not None
    assert small.against.difference == pytest.approx(-0.5)
    assert (small.against.p, small.confusion) == (None, None)


def test_masks_with_classes_in_another_order(tmp_path: Path) -> None:
    place = halves(tmp_path / "cells", 4)
    (place / "classes.txt").write_text("\n".join(NAMES))
    turned = portfolio_of(tmp_path / "turned", "segmentation", {"dense": EXACT[::-1]}, classes=NAMES[::-1])
    found = evaluate(turned, tmp_path / "turned", place, split="all")
    assert found.variants[0].value == 1.0
    (place / "classes.txt").write_text("red\ngreen\nviolet")
    with pytest.raises(DataError, match=r"lacks blue and has violet besides"):
        evaluate(turned, tmp_path / "turned", place, split="all")


@pytest.mark.skipif(importlib.util.find_spec("hotcoco") is None, reason="needs hotcoco")
def test_boxes_are_judged(tmp_path: Path) -> None:
    portfolio = portfolio_of(tmp_path / "portfolio", "detection")
    found = evaluate(portfolio, tmp_path / "portfolio", boxes(tmp_path / "cells", 6))
    dense, small = found.variants
    assert (found.split, found.layout, dense.value) == ("val", "VOC", pytest.approx(1.0))
    assert small.by_class["blue"]["AP"] == pytest.approx(0.0)
    assert small.by_class["red"]["objects"] == 2
    assert small.value < dense.value


def test_values_are_judged(tmp_path: Path) -> None:
    portfolio = portfolio_of(tmp_path / "portfolio", "regression", {"dense": EXACT, "small": EXACT * 1.5})
    paths = [save(tmp_path / f"{i}.png", picture(i % 3, seed=i)) for i in range(9)]
    means = [picture(i % 3, seed=i).mean(axis=(0, 1)) / 255 for i in range(9)]
    run = judge(portfolio, tmp_path / "portfolio", Files(tuple(paths), Values(np.array(means, np.float32))))
    assert run.task.metrics(run.evidence["dense"])["r2"] == pytest.approx(1.0, abs=1e-6)
    assert run.task.metrics(run.evidence["small"])["mae"] == pytest.approx(np.mean(means) / 2, rel=1e-4)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_tables_of_values_and_of_labels_are_read_by_the_names_of_their_columns(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    place = tmp_path / "photos"
    names = [NAMES[k] for k in order]
    pixels = [picture(i % 3, seed=i) for i in range(12)]
    for i, one in enumerate(pixels):
        save(place / f"{i}.png", one)
    for task in ("regression", "multilabel"):
        rows = [",".join(["file", *names])]
        for i, one in enumerate(pixels):
            means = one.mean(axis=(0, 1)) / 255
            rows.append(
                ",".join([f"{i}.png", *(str(means[k] if task == "regression" else int(i % 3 == k)) for k in order)])
            )
        (place / "test.csv").write_text("\n".join(rows))
        portfolio = portfolio_of(tmp_path / task, task)
        (dense, small) = evaluate(portfolio, tmp_path / task, place, settings=JudgeSettings(pictures=1)).variants
        assert dense.value == pytest.approx(1.0, abs=1e-5)
        assert small.value < 0.95
        assert set(dense.by_class) == set(NAMES)
        assert small.worst[0].truth.startswith("red 0." if task == "regression" else tuple(NAMES))


def test_the_size_of_a_detector_is_that_of_its_input(tmp_path: Path) -> None:
    task = task_of(portfolio_of(tmp_path, "detection", {}))
    assert task.settings()["size"] == [SIZE, SIZE]


def test_broken_images_are_named_or_left_out(folder: Path, photos: Path) -> None:
    broken = photos / "test" / "red" / "2.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken image: '.*2\.png' \(not an image.*--skip-broken leaves"):
        evaluated(folder, photos, batch=4)
    found = evaluated(folder, photos, batch=4, skip_broken=True)
    assert (found.images, found.skipped) == (14, 1)
    assert found.variants[0].value == 1.0
    for path in (photos / "val").rglob("*.png"):
        path.write_bytes(b"no image either")
    with pytest.raises(DataError, match=r"of 9 images none can be used: broken images: .* and 6 more"):
        evaluated(folder, photos, "val", skip_broken=True)


def test_the_worst_images_are_drawn(folder: Path, photos: Path, tmp_path: Path) -> None:
    dense, small = evaluated(folder, photos, pictures=4).variants
    assert len(small.worst) == 4
    for one in small.worst:
        assert one.truth == "blue"
        assert one.said.startswith("green ")
        assert Path(one.file).parent == photos / "test" / "blue"
        assert one.truth_drawn is None
    # All were done alike, so that any may stand for them.
    assert len(dense.worst) == 4
    masked = portfolio_of(tmp_path / "masked", "segmentation")
    place = halves(tmp_path / "cells", 4)
    (_, small) = evaluate(masked, tmp_path / "masked", place, split="all", settings=JudgeSettings(pictures=10)).variants
    # Two of the four pictures have a blue half; the others were done as well as can be.
    assert sorted(Path(one.file).name for one in small.worst) == ["1.png", "3.png"]
    assert all(one.truth_drawn for one in small.worst)
    assert small.worst[0].truth == "red 50%, blue 50%"


def test_the_worst_ones_are_the_lowest_that_are_numbers() -> None:
    assert lowest(np.array([0.5, np.nan, 0.1, 0.9, 0.1]), 2) == [2, 4]
    assert lowest(np.array([0.0, -2.0, 0.0]), 5) == [1]
    assert lowest(np.array([np.nan]), 5) == []


def test_what_was_written_is_read_back(folder: Path, photos: Path, tmp_path: Path) -> None:
    found = evaluated(folder, photos, pictures=1)
    found.write(folder)
    assert Evaluation.read(folder) == found
    assert Evaluation.read(tmp_path) is None
    (folder / "evaluation.json").write_text("{}")
    with pytest.raises(PortfolioError, match=r"cannot read '.*evaluation\.json'"):
        Evaluation.read(folder)


def test_places_that_cannot_be_used(folder: Path, photos: Path, tmp_path: Path) -> None:
    cells = halves(tmp_path / "cells", 2)
    marked = boxes(tmp_path / "marked", 3)
    lonely = class_folders(tmp_path / "lonely", {"val": 2})
    more = class_folders(tmp_path / "more", {"val": 2})
    save(more / "val" / "violet" / "0.png", picture(0))
    fewer = class_folders(tmp_path / "fewer", {"val": 2}, names=("red", "green"))
    (tmp_path / "empty" / "val" / "red").mkdir(parents=True)
    (tmp_path / "empty" / "val" / "blue").mkdir()
    for place, split, complaint in (
        (tmp_path / "none", None, "name a folder of labelled images"),
        (Path("cifar10"), None, "data sets that have a name of their own are for builds"),
        (folder / "dense.onnx", None, "neither a folder of labelled images nor a file that lists them"),
        (cells, None, "holds data for segmentation, not for classification, which portfolio 'colours' is for"),
        (marked, None, "holds data for detection, not for classification"),
        (lonely, "test", r"has no labelled part test; it has val: name one with --split"),
        (more, None, "'violet|violet' is no class"),
        (fewer, None, "has no images of blue: the portfolio tells 3 classes apart"),
        (tmp_path / "empty", None, "holds no images"),
    ):
        with pytest.raises(DataError, match=complaint):
            evaluated(folder, place, split)
    with pytest.raises(UnknownNameError, match="unknown split 'tset'; did you mean 'test'"):
        evaluated(folder, photos, "tset")
    masked = portfolio_of(tmp_path / "masked", "segmentation")
    with pytest.raises(DataError, match="holds images in class folders, not data for segmentation, which"):
        evaluate(masked, tmp_path / "masked", photos)
    detecting = portfolio_of(tmp_path / "detecting", "detection", {"dense": EXACT})
    strange = boxes(tmp_path / "strange", 3, names=("red", "green", "violet"))
    with pytest.raises(DataError, match="has a box of 'violet', which is none of the classes"):
        evaluate(detecting, tmp_path / "detecting", strange)


def test_portfolios_that_cannot_be_used(folder: Path, photos: Path, tmp_path: Path) -> None:
    portfolio = Portfolio.read(folder)
    own = portfolio.model_copy(update={"task": portfolio.task.model_copy(update={"name": "mine"})})
    odd = portfolio.model_copy(update={"task": portfolio.task.model_copy(update={"settings": {"sise": 3}})})
    fed = portfolio.preprocessing.model_copy(update={"channels": "4"})
    wide = portfolio.preprocessing.model_copy(update={"size": (SIZE, 2 * SIZE)})
    for wrong, complaint in (
        (own, "is for the task 'mine', which a device cannot judge by itself"),
        (odd, "the task 'classification' does not take the portfolio's settings"),
        (portfolio.model_copy(update={"variants": ()}), "has no variant to judge"),
        (portfolio.model_copy(update={"preprocessing": fed}), "takes channels '4', which no image file holds"),
        (portfolio.model_copy(update={"preprocessing": wide}), r"takes input of shape \(3, 16, 16\), but"),
    ):
        with pytest.raises(PortfolioError, match=complaint):
            evaluate(wrong, folder, photos)
    two = portfolio_of(tmp_path / "two", matrices={"dense": NO_BLUE[:2]})
    with pytest.raises(PortfolioError, match=r"gives an output of shape \(15, 2\); scores of the portfolio's classes"):
        evaluate(two, tmp_path / "two", photos)
    with (folder / "small.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(PortfolioError, match=r"variant 'small': 'small\.onnx' has"):
        evaluate(portfolio, folder, photos)
    with pytest.raises(ConfigError, match="batch=0 for judging a portfolio: at least 1"):
        JudgeSettings(batch=0)


def test_a_figure_that_is_no_number_is_said(tmp_path: Path) -> None:
    portfolio = portfolio_of(tmp_path / "portfolio", "detection", {"dense": EXACT})
    place = boxes(tmp_path / "cells", 3)
    for file in (place / "Annotations").iterdir():
        file.write_text(file.read_text().replace("<name>", "<difficult>1</difficult><name>"))
    pytest.importorskip("hotcoco")
    with pytest.raises(DataError, match="the mAP of variant 'dense' is nan on 3 images"):
        evaluate(portfolio, tmp_path / "portfolio", place)


def test_missing_packages_are_named_before_anything_is_opened(
    folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    for package, task, install in (("PIL", "classification", "pillow"), ("hotcoco", "detection", "hotcoco")):
        portfolio = portfolio_of(tmp_path / task, task, {"dense": EXACT})
        with monkeypatch.context() as patch:
            patch.setattr(
                importlib.util, "find_spec", lambda name, hidden=package: None if name == hidden else found(name)
            )
            with pytest.raises(MissingExtraError, match=rf"'{install}': pip install 'prunit\[evaluate\]'"):
                judge(portfolio, tmp_path / "nowhere", labelled(Portfolio.read(folder), photos).files)


def test_it_needs_no_torch(folder: Path, photos: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path;"
        "from prunit.edge.judging.evaluation import evaluate; from prunit.edge.portfolio import Portfolio;"
        f"folder = Path({str(folder)!r});"
        f"print(evaluate(Portfolio.read(folder), folder, Path({str(photos)!r})).variants[0].value)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout.strip()) == (0, "1.0"), child.stderr
