"""Pascal VOC's XML."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prunit.edge.pixels import Placing
from prunit.edge.reading import Boxes, read
from prunit.errors import DataError
from tests.edge.reading.labelled import save_photo, voc_xml, write, write_voc

DOG, CAT = ("dog", (4, 2, 20, 10)), ("cat", (0, 0, 40, 20))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "pets", {"a": [DOG, CAT], "b": [DOG], "c": [CAT], "d": []})


def boxes_of(part: object) -> list[list[list[float]]]:
    targets = getattr(part, "targets")  # noqa: B009
    assert isinstance(targets, Boxes)
    return [one.tolist() for one in targets.boxes]


def with_lists(folder: Path, **lists: str) -> Path:
    for name, stems in lists.items():
        write(folder / "ImageSets" / "Main" / f"{name}.txt", "".join(f"{stem}\n" for stem in stems))
    return folder


def test_boxes_of_the_parts_that_lists_name(voc: Path) -> None:
    write(voc / "Annotations" / "d.xml", voc_xml([CAT]))
    found = read(with_lists(voc, train="ab", val="c", test="d", trainval="abc"), "detection")
    assert found.classes == ("cat", "dog")
    assert [path.name for path in found.train.paths] == ["a.jpg", "b.jpg"]
    assert boxes_of(found.train) == [[[4, 2, 20, 10, 1, 0], [0, 0, 40, 20, 0, 0]], [[4, 2, 20, 10, 1, 0]]]
    assert (found.judged_by, [path.name for path in found.judged.paths]) == ("test", ["d.jpg"])
    assert found.watched is not None
    assert [path.name for path in found.watched.paths] == ["c.jpg"]
    assert found.told == (
        "4 photos with 5 boxes of 2 classes (cat, dog; VOC): train 2, val 1 (watched in training), test 1 (judged by)"
    )


def test_a_test_without_a_box_is_left_aside_beside_val(voc: Path) -> None:
    found = read(with_lists(voc, train="ab", val="c", test="d"), "detection")
    assert (found.judged_by, found.watched, [*found.parts]) == ("val", None, ["train", "val"])
    assert found.told.endswith("train 2, val 1 (judged by); test has not a single box and is left aside")


def test_trainval_is_trained_on_where_there_is_no_train(voc: Path) -> None:
    found = read(with_lists(voc, trainval="abc", test="d"), "detection")
    assert (len(found.train), found.judged_by, found.automatic) == (3, "test", False)


def test_without_lists_a_fifth_is_held_out(voc: Path) -> None:
    found = read(voc, "detection")
    assert (len(found.train), len(found.judged), found.automatic) == (3, 1, True)
    assert "val 1 (20% held out, drawn with a fixed seed)" in found.told


def test_photos_and_xml_side_by_side_in_parts_with_names_of_roboflow(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        save_photo(tmp_path / part / "a.jpg")
        write(tmp_path / part / "a.xml", voc_xml([DOG, CAT]))
    found = read(tmp_path, "detection")
    assert {name: len(files) for name, files in found.parts.items()} == {"train": 1, "val": 1}


def test_an_image_is_found_by_its_stem_else_by_the_name_in_the_file(voc: Path) -> None:
    (voc / "JPEGImages" / "b.jpg").rename(voc / "JPEGImages" / "other.jpg")
    write(voc / "Annotations" / "b.xml", voc_xml([DOG], name="other.jpg"))
    write(voc / "Annotations" / "a.xml", voc_xml([DOG, CAT], name="of long ago.png"))
    found = read(with_lists(voc, train="abcd"), "detection")
    assert {path.name for part in found.parts.values() for path in part.paths} == {
        "a.jpg",
        "c.jpg",
        "d.jpg",
        "other.jpg",
    }


def test_boxes_without_area_are_left_out_and_those_beyond_the_border_cut(voc: Path) -> None:
    objects = [("dog", (5, 5, 5, 9)), ("dog", (9, 9, 4, 12)), ("cat", (45, 2, 60, 9)), ("cat", (-3, 4, 50, 18.02))]
    write(voc / "Annotations" / "d.xml", voc_xml(objects))
    found = read(with_lists(voc, train="dab", val="c"), "detection")
    assert boxes_of(found.train)[0] == [[0, 4, 40, 18.02, 0, 0]]
    assert "3 boxes without area left out: d.xml, d.xml, d.xml; 1 box cut at the border: d.xml" in found.told


@pytest.mark.parametrize("size", [(0, 0), (40, 20)])
def test_difficult_objects_do_not_count_and_a_size_may_be_missing(voc: Path, size: tuple[int, int]) -> None:
    write(voc / "Annotations" / "b.xml", voc_xml([("dog", (4, 2, 60, 10))], size, more="<difficult>1</difficult>"))
    found = read(with_lists(voc, train="b", val="a"), "detection", classes=("dog", "cat"))
    target = found.train.targets.of(0, Placing.of((20, 40), (20, 40), "letterbox"))
    assert target.tolist() == [[4, 2, 40, 10, 0, 1]]


def test_boxes_in_pixels_of_the_input(voc: Path) -> None:
    boxes = read(with_lists(voc, train="ad", val="b"), "detection").train.targets
    box = Placing.of((20, 40), (80, 80), "letterbox")
    first, second = boxes.of(0, box), boxes.of(1, box)
    assert first.dtype == np.float32
    assert first.tolist() == [[8, 24, 40, 40, 1, 0], [0, 20, 80, 60, 0, 0]]
    together = boxes.together([first, second])
    assert together.shape == (2, 2, 6)
    assert together[1, :, 4].tolist() == [-1, -1]
    cut = boxes.of(0, Placing.of((20, 40), (20, 20), "crop"))
    assert cut.tolist() == [[0, 2, 10, 10, 1, 0], [0, 0, 20, 20, 0, 0]]


def test_a_box_that_a_crop_leaves_nothing_of_is_dropped(voc: Path) -> None:
    write(voc / "Annotations" / "b.xml", voc_xml([("dog", (0, 2, 8, 10))]))
    boxes = read(with_lists(voc, train="b", val="a"), "detection").train.targets
    assert boxes.of(0, Placing.of((20, 40), (20, 20), "crop")).shape == (0, 6)


def test_a_list_of_classes_gives_their_order(voc: Path) -> None:
    write(voc / "classes.txt", "dog\ncat\nbird\n")
    assert read(voc, "detection").classes == ("dog", "cat", "bird")


def test_images_without_xml_are_named(voc: Path) -> None:
    save_photo(voc / "JPEGImages" / "zebra.jpg")
    assert "1 image without XML left out: zebra.jpg" in read(voc, "detection").told


ATTACK = """<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: write(f / "Annotations" / "a.xml", ATTACK), r"a\.xml' declares a DOCTYPE or entities"),
        (lambda f: write(f / "Annotations" / "a.xml", "<annotation>"), r"a\.xml' is no XML: no element found"),
        (lambda f: write(f / "Annotations" / "a.xml", "<html/>"), r"a\.xml' is no annotation of VOC: it holds <html>"),
        (
            lambda f: write(f / "Annotations" / "z.xml", voc_xml([DOG])),
            r"z\.xml' belongs to no image: there is no 'z\.\*'",
        ),
        (
            lambda f: write(f / "Annotations" / "a.xml", voc_xml([("dog", ("x", 0, 1, 1))])),  # type: ignore[list-item]
            r"a\.xml': <bndbox/xmin> should be a number and is 'x'",
        ),
        (
            lambda f: write(f / "Annotations" / "a.xml", voc_xml([("dog", (float("nan"), 0, 1, 1))])),
            r"a\.xml' has a box with a coordinate that is no finite number",
        ),
        (lambda f: write(f / "Annotations" / "a.xml", voc_xml([("", (0, 0, 1, 1))])), r"an object without a name"),
        (lambda f: write(f / "classes.txt", "dog\n"), r"a box of 'cat', which is none of the classes dog"),
        (lambda f: write(f / "classes.txt", "dog\ndog\n"), r"classes\.txt' names the class 'dog' twice"),
        (lambda f: write(f / "classes.txt", "\n"), r"classes\.txt' names no class: write one a line"),
        (lambda f: with_lists(f, train="axy", val="b"), r"train\.txt' names x, y, without XML .* \(2 of 3\)"),
        (lambda f: with_lists(f, val="b", test="c"), r"has val and test but no part to train on: name one train"),
        (lambda f: with_lists(f, train="abc", val=""), r"part val has no labelled images"),
        (lambda f: save_photo(f / "JPEGImages" / "a.png"), r"a\.jpg' and '.*a\.png' differ in their ending alone"),
        (lambda f: (f / "Annotations" / "a.xml").write_bytes(b"\xff\xfe<"), r"a\.xml' is no UTF-8 text \(byte 0\)"),
    ],
)
def test_what_cannot_be_meant(voc: Path, change: Callable[[Path], object], message: str) -> None:
    change(voc)
    with pytest.raises(DataError, match=message) as raised:
        read(voc, "detection")
    assert "\n" not in str(raised.value)


def test_nothing_marked_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no XML file holds an object, so there is nothing to learn"):
        read(write_voc(tmp_path, {"a": [], "b": []}), "detection")


def test_boxes_of_a_photo_of_another_size(voc: Path) -> None:
    boxes = read(with_lists(voc, train="a", val="b"), "detection").train.targets
    with pytest.raises(DataError, match=r"its boxes are for 40x20, the photo, turned as its file says, has 20x40;"):
        boxes.of(0, Placing.of((40, 20), (32, 32), "letterbox"))
