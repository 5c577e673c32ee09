"""Parts by name, and what is shipped of them."""

import json
from collections.abc import Sequence
from importlib.resources import files

import pytest

from prunit.errors import FileError, UnknownNameError
from prunit.mcu.parts import PARTS, part
from prunit.mcu.profiles import profile_of, step_from, steps_of, worth_having

NPUS = [name for name, each in PARTS.items() if each.kind == "ethos-u"]


def test_a_part_says_what_it_is() -> None:
    found = part("ethos-u55-128")
    assert found.figures == ("cycles", "sram_bytes", "flash_bytes", "latency_ms")
    assert found.described == "ethos-u55-128: Ethos_U55_High_End_Embedded, Shared_Sram, 500 MHz"
    assert found.milliseconds(250_000) == 0.5
    assert part("tflm").figures == ("arena_bytes", "flash_bytes")


def test_an_unknown_part_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown part 'ethos-u55-129'; did you mean 'ethos-u55-12"):
        part("ethos-u55-129")


@pytest.mark.parametrize("name", NPUS)
def test_the_shipped_profile_is_of_the_part_as_it_is_configured(name: str) -> None:
    for kind in ("conv3x3", "conv1x1", "depthwise"):
        found = profile_of(part(name), kind)
        assert found.configuration == part(name).described
        assert len(found.outputs) == len(found.inputs) == 128
        assert found.outputs[63] == found.inputs[63] == 1
        assert found.outputs[127] > found.outputs[15]
        stored = json.loads((files("prunit.mcu.profiles") / f"{name}.json").read_text())["steps"][kind]
        assert stored["outputs"] == found.steps.outputs


def test_what_a_part_likes() -> None:
    steps = steps_of(part("ethos-u55-128"))
    assert (steps.outputs, steps.inputs) == (8, 32)
    assert {8, 16, 32, 64} <= set(steps.widths)
    assert not {9, 17, 33, 57} & set(steps.widths)
    assert steps_of(part("tflm")).outputs == 1
    with pytest.raises(FileError, match="no profile of 'tflm'"):
        profile_of(part("tflm"))


@pytest.mark.parametrize("block", [1, 4, 16])
def test_steps_are_found_in_curves(block: int) -> None:
    curve = [float(-(-width // block)) for width in range(1, 129)]
    assert step_from(curve) == block


def test_widths_worth_having_have_no_cheaper_wider_one() -> None:
    curve: Sequence[float] = [1.0, 3.0, 2.0, 2.01, 5.0, 4.0]
    assert worth_having(curve) == (1, 4, 6)
