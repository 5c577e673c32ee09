"""An example written down as shapes and dtypes, and made again from that."""

import json
import math
from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor

from prunit.errors import PlanError
from prunit.graph import trace
from prunit.graph.inputs import describe, example_from
from tests.nets import Plain, images

EXAMPLES = [
    torch.zeros(1, 3, 8, 8),
    torch.zeros((), dtype=torch.bool),
    (torch.zeros(2, 3, dtype=torch.int64), [torch.zeros(4), None], {"scale": 2.0, "mode": "fast", "deep": (1, True)}),
    {"x": torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16), "bound": math.inf},
]


@pytest.mark.parametrize("example", EXAMPLES, ids=["tensor", "scalar", "tuple", "dict"])
def test_what_comes_back_has_the_same_shapes_dtypes_and_plain_values(example: Any) -> None:
    again = example_from(json.loads(json.dumps(describe(example), allow_nan=False)), "cpu")
    assert describe(again) == describe(example)
    assert str(again) == str(example)  # all tensors are zeros


def test_the_description_is_short_and_readable() -> None:
    assert describe((torch.zeros(1, 3, 4, 4), {"scale": 2.0})) == {
        "tuple": [{"tensor": [1, 3, 4, 4], "dtype": "float32"}, {"dict": {"scale": 2.0}}]
    }


def test_floating_tensors_take_another_precision_and_the_meta_device() -> None:
    example = example_from(describe((torch.zeros(2), torch.zeros(2, dtype=torch.int32))), dtype=torch.float64)
    assert [(t.dtype, t.is_meta) for t in example] == [(torch.float64, True), (torch.int32, True)]


@pytest.mark.parametrize("example", [(torch.zeros(1), object()), {1: torch.zeros(1)}, UserDict(x=torch.zeros(1))])
def test_an_example_that_json_cannot_hold_has_no_description(example: Any) -> None:
    assert describe(example) is None


@pytest.mark.parametrize(
    "description",
    [
        {"tensor": [1, -3], "dtype": "float32"},
        {"tensor": [1, 3], "dtype": "no_such_type"},
        {"tensor": [1, 3], "dtype": "nn"},
        {"tensor": [1, 3]},
        {"float": "abc"},
        {"set": [1]},
        {"tuple": [{"unknown": 1}]},
    ],
)
def test_a_description_that_cannot_be_read_asks_for_the_example(description: Any) -> None:
    with pytest.raises(PlanError, match=r"the plan's inputs hold .*, which this prunit cannot read: pass an example"):
        example_from(description)


def test_a_trace_notes_its_inputs_and_pinning_keeps_them() -> None:
    graph = trace(Plain(), images().float())
    assert graph.inputs == {"tensor": [2, 3, 8, 8], "dtype": "float32"}
    assert graph.pin(["second"], "why not").inputs == graph.inputs
    again: Tensor = example_from(graph.inputs)
    assert [g for g in trace(Plain(), again).groups] == list(graph.groups)
