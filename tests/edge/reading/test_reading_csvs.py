"""Tables of files and values."""

from pathlib import Path

import numpy as np
import pytest

from prunit.edge.reading import Values, read
from prunit.errors import DataError
from tests.edge.reading.labelled import save_photo, write

NAMES = [f"{i}.jpg" for i in range(10)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in NAMES:
        save_photo(tmp_path / name)
    return tmp_path


def table(header: str, values: list[str], names: list[str] = NAMES, mark: str = ",") -> str:
    return "\n".join([header, *(f"{name}{mark}{value}" for name, value in zip(names, values, strict=False))]) + "\n"


def by_name(found: object) -> dict[str, list[float]]:
    parts = getattr(found, "parts").values()  # noqa: B009
    assert all(isinstance(part.targets, Values) for part in parts)
    return {p.name: part.targets.values[i].tolist() for part in parts for i, p in enumerate(part.paths)}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_values_that_are_estimated(place: Path, mark: str) -> None:
    text = table(mark.join(("file", "age", "height")), [f"{i}{mark}{i / 2}" for i in range(10)], mark=mark)
    found = read(write(place / "values.csv", "\ufeff" + text), "regression")
    assert found.classes == ("age", "height")
    assert by_name(found) == {f"{i}.jpg": [i, i / 2] for i in range(10)}
    assert found.train.targets.together([np.zeros(2, np.float32)]).shape == (1, 2)
    assert found.told == (
        "10 images of 2 values (age, height; CSV): train 8, val 2 (20% held out, drawn with a fixed seed)"
    )


def test_held_out_values_are_of_all_sizes(place: Path) -> None:
    names = [f"{i}.jpg" for i in range(100)]
    for name in names[10:]:
        save_photo(place / name)
    write(place / "values.csv", table("file,age", [str(i) for i in range(100)], names))
    held = read(place, "regression").judged.targets
    assert isinstance(held, Values)
    assert np.histogram(held.values, bins=10, range=(0, 100))[0].tolist() == [2] * 10


def test_a_table_for_each_part_and_one_whose_values_are_secret(place: Path) -> None:
    write(place / "Train.csv", table("file,age", ["1"] * 6))
    write(place / "valid.csv", table("file,age", ["1"] * 3))
    write(place / "test.csv", "file\n1.jpg\n")
    write(place / "other.csv", "anything\n")
    found = read(place, "regression")
    assert {name: len(files) for name, files in found.parts.items()} == {"train": 6, "val": 3}
    assert "test.csv has no age and is not used" in found.told


@pytest.mark.parametrize("home", ["images", "train", "train_images"])
def test_images_beside_the_table_without_their_ending(tmp_path: Path, home: str) -> None:
    for name in NAMES:
        save_photo(tmp_path / home / name)
    write(tmp_path / "train.csv", table("id,age", ["1"] * 10, [name.removesuffix(".jpg") for name in NAMES]))
    assert by_name(read(tmp_path, "regression")) == {name: [1.0] for name in NAMES}


def test_labels_as_columns_and_as_names(place: Path) -> None:
    columns = write(place / "columns.csv", table("file,sea,sun", ["1,0", "0,1", "1.0,1", "0,0"]))
    joined = write(place / "joined.csv", table("file,labels", ["sea", "sun", "sun| sea", ""]))
    semicolons = write(place / "more.csv", table("file,Tags", ["sea;", "sun", "sea;sun", ""]))
    expected = {"0.jpg": [1, 0], "1.jpg": [0, 1], "2.jpg": [1, 1], "3.jpg": [0, 0]}
    for file in (columns, joined, semicolons):
        found = read(file, "multilabel")
        assert found.classes == ("sea", "sun")
        assert by_name(found) == expected
    assert by_name(read(joined, "multilabel", classes=("sky", "sun", "sea")))["0.jpg"] == [0, 0, 1]
    assert by_name(read(columns, "multilabel", classes=("sun", "sea")))["0.jpg"] == [0, 1]


def test_rare_labels_are_on_both_sides_of_a_split(place: Path) -> None:
    write(place / "x.csv", table("file,labels", ["common|rare"] * 4 + ["common"] * 6))
    found = read(place, "multilabel")
    assert [part.targets.values.sum(axis=0).tolist() for part in found.parts.values()] == [[8, 3], [2, 1]]  # type: ignore[attr-defined]


def test_classes_by_name(place: Path) -> None:
    found = read(write(place / "x.csv", table("file,breed", ["pug", "boxer"] * 5)), "classification")
    assert found.classes == ("boxer", "pug")
    assert by_name(found) == {f"{i}.jpg": 1 - i % 2 for i in range(10)}
    assert read(place, "classification").train.paths == found.train.paths


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("regression", "", r"x\.csv' holds no image: a header and then file,value"),
        ("regression", "file\n0.jpg\n", r"x\.csv' has one column, 'file': needed are file,value"),
        ("regression", "file,age\n0.jpg,old\n", r"x\.csv' line 2: 'age' should be a number, with a point .* is 'old'"),
        ("regression", "file;age\n0.jpg;1,5\n", r"line 2: 'age' should be a number, with a point .* is '1,5'"),
        ("regression", "file,age\n0.jpg,nan\n", r"line 2: 'age' should be a number"),
        ("regression", "file,age\n\n0.jpg,1,2\n", r"x\.csv' line 3 has 3 cells, the header 2: file, age"),
        ("regression", "file,age,age\n0.jpg,1,2\n", r"line 1: each column needs a name of its own"),
        ("regression", "0.jpg,1\n1.jpg,2\n", r"line 1 is an image \(0\.jpg\), not a header"),
        ("regression", "file,age\nz.jpg,1\n", r"x\.csv' names the image 'z\.jpg', which is in none of "),
        ("multilabel", "file,sea,sun\n0.jpg,1,2\n", r"line 2: 'sun' should be 0 or 1 and is '2'"),
        ("multilabel", "file,labels\n0.jpg,\n", r"x\.csv' holds no label at all"),
        (
            "classification",
            "file,a,b\n0.jpg,1,2\n",
            r"has the columns a, b besides .* write --task multilabel or regres",
        ),
        ("classification", "file,a\n0.jpg,1\n", r"names 1 class \(1\): there must be two or more"),
    ],
)
def test_what_cannot_be_meant(place: Path, task: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read(write(place / "x.csv", text), task)
    assert "\n" not in str(raised.value)


def test_an_image_that_stands_there_twice_counts_once(place: Path) -> None:
    rows = "0.jpg,1\n1.jpg,2\n./0.jpg,1.0\n2.jpg,3\n1.jpg,2\n3.jpg,4\n"
    found = read(write(place / "x.csv", f"file,age\n{rows}"), "regression")
    assert by_name(found).keys() == {"0.jpg", "1.jpg", "2.jpg", "3.jpg"}
    assert sum(len(part) for part in found.parts.values()) == 4
    assert "x.csv: 2 rows left out, the same again: line 4, line 6" in found.told


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("regression", "file,age\n0.jpg,1\n1.jpg,2\n0.jpg,3\n", r"'0\.jpg' in line 2 \(1\) and in line 4 \(3\)"),
        ("multilabel", "file,labels\n0.jpg,sea\n0.jpg,sun\n", r"line 2 \(sea\) and in line 3 \(sun\).*joined by \|"),
        ("classification", "file,a\n0.jpg,x\n1.jpg,y\nimages/../0.jpg,y\n", r"line 2 \(x\) and in line 4 \(y\)"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(place: Path, task: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read(write(place / "x.csv", text), task)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("task", "classes", "message"),
    [
        ("multilabel", ("sea", "sky"), r"x\.csv' line 3: 'sun' is none of the classes sea, sky"),
        ("regression", ("age",), r"x\.csv' has no column age; it has labels"),
    ],
)
def test_a_table_that_a_model_does_not_know(place: Path, task: str, classes: tuple[str, ...], message: str) -> None:
    write(place / "x.csv", table("file,labels", ["sea", "sun"]))
    with pytest.raises(DataError, match=message):
        read(place, task, classes=classes)


def test_several_tables(place: Path) -> None:
    write(place / "x.csv", table("file,age", ["1"] * 6))
    write(place / "y.csv", table("file,age", ["1"] * 6))
    with pytest.raises(DataError, match=r"holds x\.csv, y\.csv: which of them is for what\? Call them train\.csv"):
        read(place, "regression")
    (place / "x.csv").rename(place / "train.csv")
    write(place / "val.csv", table("file,size", ["1"] * 6))
    with pytest.raises(DataError, match=r"val\.csv' has no column age; it has size"):
        read(place, "regression")
