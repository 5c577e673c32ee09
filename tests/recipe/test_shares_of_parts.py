"""A share of a figure is of what the dense variant takes on that very part."""

from types import SimpleNamespace
from typing import Any

import pytest

from prunit.mcu.parts import part
from prunit.recipe.embedding import _Embedding

DENSE = {"tflm": {"flash_bytes": 1000.0, "arena_bytes": 64.0}, "ethos-u55-128": {"flash_bytes": 600.0, "cycles": 80.0}}


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("tflm", {"flash_bytes": 500.0}),
        ("ethos-u55-128", {"cycles": 20.0}),
    ],
)
def test_limits_of_a_part_are_shares_of_its_own_figures(name: str, limits: dict[str, float]) -> None:
    variant: Any = SimpleNamespace(budget={"flash": "1/2@tflm", "cycles": "1/4@ethos-u55-128"})
    work: Any = None
    assert _Embedding(work, variant, (), work, DENSE)._limits(part(name)) == limits


def test_a_share_of_what_is_not_known_is_left_out() -> None:
    variant: Any = SimpleNamespace(budget={"flash": "1/2@tflm", "cycles": "40@ethos-u55-128"})
    work: Any = None
    assert _Embedding(work, variant, (), work, {})._limits(part("tflm")) == {}
    assert _Embedding(work, variant, (), work, {})._limits(part("ethos-u55-128")) == {"cycles": 40.0}
