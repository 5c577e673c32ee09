"""A plan is plain data: how it is made, joined, hashed, written and read back."""

import copy
import json
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunit.cut.plans import Plan, choose, from_zeros, keep_all, unread
from prunit.cut.surgery import compact, mask
from prunit.errors import PlanError, UnknownNameError
from prunit.graph import trace
from tests.nets import Flattened, Plain, Residual, images, lived_in, random_plan

PLAN = Plan({"a": (0, 2, 3, 7), "b": (1,)}, {"a": 8, "b": 2}, {"recipe": "by hand"})


def test_a_plan_is_frozen_and_compares_by_what_it_keeps() -> None:
    assert Plan({"b": (1,), "a": (0, 2, 3, 7)}, {"b": 2, "a": 8}) == PLAN
    assert hash(Plan(PLAN.keep, PLAN.dense)) == hash(PLAN)
    assert Plan({"a": (0, 2, 3, 6), "b": (1,)}, PLAN.dense) != PLAN
    assert PLAN.widths == {"a": 4, "b": 1}
    with pytest.raises(TypeError):
        PLAN.keep["a"] = (1,)  # pyright: ignore[reportIndexIssue]


def test_a_plan_takes_lists_and_fills_in_whole_groups() -> None:
    plan = Plan({"a": [0, 2, 3, 7]}, {"a": 8, "c": 2})  # pyright: ignore[reportArgumentType]
    assert plan.keep == {"a": (0, 2, 3, 7), "c": (0, 1)}


def test_the_hash_is_that_of_the_kept_channels() -> None:
    assert PLAN.hash == Plan(PLAN.keep, PLAN.dense, {"seed": 3}).hash
    assert PLAN.hash == "b3e1aa7f44f27093"  # written in files: it must not change from version to version
    assert PLAN.hash != Plan({"a": (0, 2, 3, 7), "b": (1,)}, {"a": 9, "b": 2}).hash


def test_a_plan_can_be_copied_and_sent_to_another_process() -> None:
    for other in (copy.deepcopy(PLAN), pickle.loads(pickle.dumps(PLAN))):
        assert other == PLAN
        assert other.origin == {"recipe": "by hand"}


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"c": (0,)}, "group 'c' but does not give its dense width"),
        ({"a": ()}, "'a' must keep at least one channel"),
        ({"a": (1, 1)}, "'a' must keep at least one channel, ascending, each once"),
        ({"a": (2, 1)}, "ascending"),
        ({"a": (3, 8)}, "keeps channel 8 of group 'a', whose width is 8"),
        ({"a": (-1, 3)}, "keeps channel -1 of group 'a'"),
    ],
)
def test_impossible_plans_are_refused(keep: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan(keep, {"a": 8})


# ── JSON ──


def test_json_is_short_readable_and_exact() -> None:
    text = PLAN.to_json()
    assert '"a": {"dense": 8, "keep": [[0, 0], [2, 3], [7, 7]]}' in text
    again = Plan.from_json(text)
    assert again == PLAN
    assert again.origin == {"recipe": "by hand"}
    assert again.to_json() == text


def edited(**changes: object) -> str:
    return json.dumps(json.loads(PLAN.to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a plan: no JSON"),
        ("[" * 100_000, "not a plan: no JSON"),
        ("[1, 2]", 'not a plan: no "format"'),
        (edited(format="prunit-portfolio"), 'not a plan: no "format"'),
        (edited(version=2), "plan version 2 is newer than this prunit reads"),
        (edited(version="1"), '"version", "groups" or "origin" is missing or malformed'),
        (edited(groups=[1]), '"groups" or "origin" is missing or malformed'),
        (edited(origin=7), "malformed"),
        (edited(groups={"a": {"dense": 8, "keep": [[0, 10**12]]}}), "group 'a' of the plan must hold"),
        (edited(groups={"a": {"dense": 8, "keep": [[3, 1]]}}), "group 'a' of the plan must hold"),
        (edited(groups={"a": {"dense": 8, "keep": [[-2, 1]]}}), "group 'a' of the plan must hold"),
        (edited(groups={"a": {"dense": 8, "keep": [0, 1]}}), "group 'a' of the plan must hold"),
        (edited(groups={"a": {"dense": 8.5, "keep": [[0, 1]]}}), "group 'a' of the plan must hold"),
        (edited(groups={"a": {"keep": [[0, 1]]}}), "group 'a' of the plan must hold"),
        (edited(groups={"a": {"dense": 8, "keep": []}}), "'a' must keep at least one channel"),
        (edited(groups={"a": {"dense": 8, "keep": [[0, 1], [1, 2]]}}), "ascending, each once"),
        (PLAN.to_json().replace("[7, 7]", "[6, 6]"), "hash does not match its groups"),
    ],
)
def test_text_that_is_no_plan_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        Plan.from_json(text)
    assert "\n" not in str(caught.value)


def test_a_plan_edited_by_hand_is_read_without_its_hash() -> None:
    data = json.loads(PLAN.to_json())
    del data["hash"]
    data["groups"]["b"]["keep"] = [[0, 0]]
    assert Plan.from_json(json.dumps(data)).keep["b"] == (0,)


# ── choosing ──


def test_choose_keeps_the_highest_scores_and_the_lower_index_of_equals() -> None:
    graph = trace(Plain(), images().float())
    scores = {"first.0": torch.tensor([1.0, 5.0, 3.0, 5.0, 5.0, 0.0]), "second": torch.zeros(8)}
    plan = choose(graph, scores, {"first.0": 2, "second": 3})
    assert plan.keep["first.0"] == (1, 3)
    assert plan.keep["second"] == (0, 1, 2)
    assert plan.keep["head.fc"] == tuple(range(5))
    assert choose(graph, {}, {}) == keep_all(graph)


@pytest.mark.parametrize(
    ("scores", "widths", "message"),
    [
        ({}, {"first.0": 3}, r"'first.0' needs a score of shape \(6,\), found none"),
        ({"first.0": torch.ones(5)}, {"first.0": 3}, r"needs a score of shape \(6,\), found shape \(5,\)"),
        ({"first.0": torch.full((6,), torch.nan)}, {"first.0": 3}, "scores of group 'first.0' hold NaN"),
        ({"first.0": torch.ones(6)}, {"first.0": 0}, "cannot keep 0 of the 6 channels of group 'first.0'"),
        ({"first.0": torch.ones(6)}, {"first.0": 7}, "cannot keep 7 of the 6"),
        (
            {"head.fc": torch.ones(5)},
            {"head.fc": 4},
            r"cannot cut group 'head.fc' to 4: it is pinned \(the model's out",
        ),
    ],
)
def test_choose_refuses_what_cannot_be(scores: dict[str, torch.Tensor], widths: dict[str, int], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        choose(trace(Plain(), images().float()), scores, widths)


def test_choose_names_the_nearest_group() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown group 'frist.0'; did you mean 'first.0'\?"):
        choose(trace(Plain(), images().float()), {}, {"frist.0": 3})


# ── fitting a model ──


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        ({"first.0": 6, "second": 8, "head.fc": 5, "third": 2}, "has a group 'third' that the model lacks"),
        ({"first.0": 6, "second": 9, "head.fc": 5}, "group 'second' of 9 channels, the model's has 8"),
        ({"first.0": 6, "second": 8}, "lacks the model's group 'head.fc'"),
    ],
)
def test_a_plan_for_another_model_is_refused(dense: dict[str, int], message: str) -> None:
    model = Plain()
    graph = trace(model, images().float())
    for reading in (compact, mask):
        with pytest.raises(PlanError, match=message):
            reading(model, graph, Plan({}, dense))


def test_a_plan_that_cuts_a_pinned_group_is_refused() -> None:
    model = Plain()
    graph = trace(model, images().float(), pin=("second",))
    plan = Plan({"second": (0, 1)}, keep_all(graph).dense)
    with pytest.raises(PlanError, match=r"cuts group 'second' to 2 of 8: it is pinned \(asked for by pin 'second'\)"):
        compact(model, graph, plan)


def test_then_composes() -> None:
    second = Plan({"a": (1, 3), "b": (0,)}, {"a": 4, "b": 1}, {"round": 2})
    joined = PLAN.then(second)
    assert joined.keep == {"a": (2, 7), "b": (1,)}
    assert joined.dense == PLAN.dense
    assert joined.origin == {"round": 2}
    # A group of one channel is no group of the compact model any more.
    assert PLAN.then(Plan({"a": (1, 3)}, {"a": 4})) == joined


@pytest.mark.parametrize("dense", [{"a": 8, "b": 1}, {"b": 1}, {"a": 4, "b": 1, "c": 2}])
def test_then_refuses_a_plan_for_another_model(dense: dict[str, int]) -> None:
    with pytest.raises(
        PlanError, match=r"cannot join the plans: the second has \d channels of group '\w', the first leaves \d. Was"
    ):
        PLAN.then(Plan({}, dense))


# ── from zeros ──


def test_from_zeros_finds_channels_that_nobody_reads() -> None:
    model = lived_in(Residual())
    graph = trace(model, images())
    with torch.no_grad():
        model.get_parameter("a2.0.weight")[:, 1] = 0
        for reader in ("a1", "b1", "project"):  # channel 4 of the stem also goes on through the shortcut
            model.get_parameter(f"{reader}.0.weight")[:, 4] = 0
        model.get_parameter("b1.0.weight")[:, 2] = 0  # still read by the others
        model.get_parameter("b1.0.weight")[3] = 0  # its batch norm makes something of it
    plan = from_zeros(model, graph)
    assert plan.keep["a1.0"] == (0, 2, 3)
    assert plan.keep["stem.0"] == (0, 1, 2, 3, 5)
    assert plan.keep["b1.0"] == tuple(range(5))


def test_from_zeros_looks_at_every_pixel_of_a_channel() -> None:
    model = lived_in(Flattened())
    graph = trace(model, images())
    with torch.no_grad():
        model.get_parameter("classifier.0.weight")[:, 16:32] = 0
        model.get_parameter("classifier.0.weight")[:, 33:48] = 0  # the first pixel of channel 2 is still read
    assert from_zeros(model, graph).keep["features.2"] == (0, 2, 3, 4)


def test_from_zeros_leaves_one_channel() -> None:
    model = lived_in(Plain())
    with torch.no_grad():
        model.get_parameter("second.weight").zero_()
        model.get_parameter("head.fc.weight").zero_()
    plan = from_zeros(model, trace(model, images()))
    assert plan.keep == {"first.0": (0,), "second": (0,), "head.fc": (0, 1, 2, 3, 4)}


def test_channels_read_by_a_fixed_filter_stay() -> None:
    class Filtered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.register_buffer("filter", torch.tensor([[0.0, 1.0, 1.0, 0.0]]).view(1, 4, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv2d(self.stem(x), self.filter)

    model = Filtered()
    graph = trace(model, images().float())
    assert from_zeros(model, graph).keep["stem"] == (1, 2)
    assert unread(graph, {}) == keep_all(graph)


@pytest.mark.parametrize("seed", range(3))
def test_from_zeros_undoes_mask(seed: int) -> None:
    model = lived_in(Residual())
    graph = trace(model, images())
    plan = random_plan(graph, seed=seed)
    assert from_zeros(mask(model, graph, plan), graph) == plan
