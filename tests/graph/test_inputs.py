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
from prunit.graph.inputs import describe, example_from, notes_all_integers
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


WHOLE = [
    torch.tensor([7, 5]),
    torch.tensor([[True, False]]),
    torch.tensor(3, dtype=torch.int32),
    torch.arange(6, dtype=torch.uint8).reshape(2, 3).mT,
    torch.tensor([-(2**63), 2**63 - 1]),
]


@pytest.mark.parametrize("given", WHOLE, ids=str)
def test_few_integers_come_back_by_value(given: Tensor) -> None:
    example = {"x": torch.zeros(1, 3, 8, 8), "more": [given, (given,)]}
    again = example_from(json.loads(json.dumps(describe(example))), "cpu")
    for found in (again["more"][0], again["more"][1][0]):
        assert found.dtype is given.dtype
        assert torch.equal(found, given)
    assert notes_all_integers(describe(example))


def test_many_integers_are_noted_by_shape_and_so_are_those_without_values() -> None:
    assert describe(torch.ones(257, dtype=torch.int64)) == {"tensor": [257], "dtype": "int64"}
    assert describe(torch.ones(2, dtype=torch.int64, device="meta")) == {"tensor": [2], "dtype": "int64"}
    assert not notes_all_integers(describe((torch.zeros(2), {"ids": torch.ones(257, dtype=torch.int32)})))
    assert notes_all_integers(describe((torch.zeros(2), 3, None)))


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
        {"tensor": [2], "dtype": "int64", "values": [1]},
        {"tensor": [1], "dtype": "int64", "values": [2**63]},
        {"tensor": [1], "dtype": "uint8", "values": [-1]},
        {"tensor": [1], "dtype": "int64", "values": ["1"]},
        {"tensor": [1], "dtype": "int64", "values": [True]},
        {"tensor": [1], "dtype": "bool", "values": [2]},
        {"tensor": [1], "dtype": "float32", "values": [1]},
        {"tensor": [2**62], "dtype": "int64", "values": 1},
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
