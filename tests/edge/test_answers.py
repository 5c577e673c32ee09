"""Right and wrong, image by image, packed and taken side by side."""

import base64

import numpy as np
import pytest
from pydantic import ValidationError

from prunit.edge.answers import Answers, Pairs, pairs

TESTS = "0123456789abcdef"


def answers(right: str, *, test_set: str = TESTS, commonest: int = 1) -> Answers:
    """One character for each image: '1' was right."""
    return Answers.of(np.array([c == "1" for c in right]), commonest=commonest, test_set=test_set)


@pytest.mark.parametrize("right", ["1", "0", "10110", "00000000", "101100111", "1" * 16 + "0"])
def test_answers_come_back_as_they_went_in(right: str) -> None:
    packed = Answers.model_validate_json(answers(right).model_dump_json(), strict=True)
    assert "".join("01"[int(bit)] for bit in packed.right_N) == right
    assert packed.images == len(right)
    assert packed.accuracy == right.count("1") / len(right)


def test_ten_thousand_images_take_less_than_two_kilobytes() -> None:
    assert len(answers("10" * 5000).model_dump_json()) < 2000


def test_answers_side_by_side_by_hand() -> None:
    #                    both  first  second  neither
    first, second = answers("1" + "11" + "000" + "0000"), answers("1" + "00" + "111" + "0000")
    assert pairs(first, second) == Pairs(1, 2, 3, 4)
    assert pairs(second, first) == Pairs(1, 3, 2, 4)
    assert Pairs(1, 2, 3, 4).images == 10


def test_answers_to_other_images_are_no_pairs() -> None:
    assert pairs(answers("101"), answers("101", test_set="f" * 16)) is None
    assert pairs(answers("101"), answers("1011")) is None
    assert pairs(None, answers("101")) is None
    assert pairs(answers("101"), None) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"right": "!"}, "right: it is not base64"),
        ({"right": base64.b64encode(b"ab").decode()}, "right: 2 bytes; 3 images need 1"),
        ({"right": "8A=="}, "right: bits beyond the 3 images are set"),
        ({"right": ""}, "right: 0 bytes; 3 images need 1"),
        ({"commonest": 4}, "commonest: 4 of 3 images"),
        ({"test_set": "x"}, "test_set"),
        ({"images": 0}, "images"),
    ],
)
def test_answers_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Answers.model_validate({**answers("101").model_dump(), **change})


def test_answers_are_shown_in_a_line() -> None:
    assert str(answers("1010", commonest=2)) == "Answers: 50.0% of 4 test images right; the commonest class has 50.0%"
