"""A plan applied to a model that is made anew: after a JSON file, over several rounds, for weights kept elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunit
from prunit.cut.plan_files import read_plan
from prunit.cut.plans import Plan, choose, from_zeros, keep_all, unread
from prunit.cut.store import apply_plan, load, save
from prunit.cut.surgery import compact, mask
from prunit.errors import ModelError, PlanError, ScoreError
from prunit.graph import trace
from tests.nets import NETS, Head, Plain, Residual, conv_bn, furthest, images, lived_in, random_plan

GOLDEN = Path(__file__).parents[1] / "golden"
"""plan-1-first.json was written by prunit 0.1.0 when plans noted no inputs yet, plan-1-inputs.json since."""


def again(plan: Plan) -> Plan:
    return Plan.from_json(plan.to_json())


# ── the compact model anew ──


@pytest.mark.parametrize("name", NETS)
def test_weights_kept_elsewhere_go_into_the_model_that_a_plan_makes(name: str, tmp_path: Path) -> None:
    factory, example = NETS[name]
    model = lived_in(factory())
    graph = trace(model, example)
    plan = choose(graph, {g.name: torch.rand(g.size) for g in graph.groups}, random_plan(graph).widths)
    small = compact(model, graph, plan).eval()
    torch.save(small.state_dict(), tmp_path / "small.pt")
    made = apply_plan(factory().double(), again(plan))
    made.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))
    if name == "parameters":  # its filter is no part of a state dict
        made.get_buffer("blur").copy_(small.get_buffer("blur"))
    assert furthest(made.eval(), small, example) == 0
    assert repr(made) == repr(small)


def test_weights_of_another_plan_are_refused_by_torch_with_layer_and_shapes() -> None:
    model = lived_in(Plain())
    graph = trace(model, images())
    wide, narrow = (choose(graph, {"second": torch.rand(8)}, {"second": n}) for n in (6, 3))
    small = apply_plan(model, wide)
    with pytest.raises(RuntimeError, match=r"size mismatch for second.weight: .*\[3, 6, 3, 3\].*\[6, 6, 3, 3\]"):
        small.load_state_dict(compact(model, graph, narrow).state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_model_may_be_made_in_another_precision(dtype: torch.dtype) -> None:
    graph = trace(Plain(), images().float())
    plan = unread(graph, {"second.weight": torch.rand(8, 6, 3, 3) > 0.99})
    small = apply_plan(Plain().to(dtype), again(plan))
    assert {p.dtype for p in small.parameters()} == {dtype}


def test_no_memory_is_needed_for_the_dense_model() -> None:
    model = lived_in(Residual()).eval()
    graph = trace(model, images())
    plan = choose(graph, {g.name: torch.rand(g.size) for g in graph.groups}, random_plan(graph).widths)
    small = compact(model, graph, plan)
    with torch.device("meta"):
        dense = Residual()
    empty = apply_plan(dense, plan)
    assert all(p.is_meta for p in empty.parameters())
    empty.load_state_dict(small.state_dict(), assign=True)
    assert furthest(empty.eval(), small, images()) == 0


def test_modes_weights_and_channels_are_those_of_the_model_given() -> None:
    model = lived_in(Plain()).train()
    model.first.eval()
    graph = trace(model, images())
    plan = choose(graph, {"second": torch.rand(8)}, {"second": 3})
    small = apply_plan(model, plan)
    assert [m.training for m in small.modules()] == [m.training for m in model.modules()]
    assert torch.equal(small.get_parameter("second.weight"), model.second.weight[list(plan.keep["second"])])
    assert model.second.weight.shape == (8, 6, 3, 3)


def test_what_was_pinned_by_the_user_is_whole_in_the_plan_and_needs_no_pin_again() -> None:
    model = lived_in(Residual())
    graph = trace(model, images(), pin=("stem*", "b1.*"))
    plan = choose(graph, {"a1.0": torch.rand(4)}, {"a1.0": 2})
    small = apply_plan(model, again(plan))
    assert furthest(small.eval(), compact(model, graph, plan).eval(), images()) == 0
    assert small.stem[0].out_channels == 6


class Looking(Plain):
    """Cannot run on meta tensors: it looks at a value."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > -1e9 else -x)


def test_a_model_that_looks_at_values_gets_zeros_to_look_at() -> None:
    model = lived_in(Looking())
    plan = choose(trace(model, images()), {"second": torch.rand(8)}, {"second": 3})
    assert apply_plan(model, again(plan)).second.out_channels == 3


class Two(nn.Module):
    """Takes an image and, by keyword, a second one and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv_bn(3, 4), conv_bn(1, 4), Head(4)

    def forward(self, image: Tensor, depth: Tensor, *, scale: float = 1.0, rest: Any = None) -> Tensor:
        return self.head(self.a(image) + scale * self.b(depth))


@pytest.mark.parametrize(
    "example",
    [
        (images(), images(channels=1)),
        [images(), images(channels=1)],
        {"image": images(), "depth": images(channels=1), "scale": 2.0, "rest": [None, "x"]},
    ],
    ids=["tuple", "list", "dict"],
)
def test_several_inputs_are_noted_too(example: Any) -> None:
    model = lived_in(Two())
    graph = trace(model, example)
    plan = choose(graph, {"a.0": torch.rand(4)}, {"a.0": 2})
    assert apply_plan(model, again(plan)).a[0].out_channels == 2


def test_a_plan_for_another_model_or_without_inputs_is_refused() -> None:
    plan = keep_all(trace(Plain(), images().float()))
    with pytest.raises(PlanError, match=r"plan has a group 'first.0' that the model lacks"):
        apply_plan(Residual(), plan)
    with pytest.raises(ModelError, match=r"fails on its example of shape \(2, 3, 8, 8\)"):
        apply_plan(nn.Conv2d(4, 4, 1), plan)
    with pytest.raises(ModelError, match=r"cannot trace int: it is no nn.Module"):
        apply_plan(3, plan)  # pyright: ignore[reportArgumentType]
    bare = Plan(plan.keep, plan.dense)
    with pytest.raises(
        PlanError, match=r"does not say on which inputs .* give them, apply_plan\(model, plan, example\)"
    ):
        apply_plan(Plain(), bare)
    apply_plan(Plain(), bare, images().float())
    with pytest.raises(PlanError, match=r"the plan's inputs hold {'kind': 'other'}, which this prunit cannot read"):
        apply_plan(Plain(), Plan(plan.keep, plan.dense, inputs=[{"kind": "other"}]))


def test_an_example_that_cannot_be_written_down_leaves_the_plan_without_inputs() -> None:
    class Options:
        scale = 2.0

    class Strange(Plain):
        def forward(self, x: Tensor, options: Options) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().forward(options.scale * x)

    plan = keep_all(trace(Strange(), (images().float(), Options())))
    assert plan.inputs is None
    assert "inputs" not in json.loads(plan.to_json())
    with pytest.raises(PlanError, match="inputs that JSON cannot describe"):
        apply_plan(Strange(), plan)


# ── plans note inputs ──


def test_every_way_to_a_plan_notes_the_inputs() -> None:
    model = lived_in(Plain())
    graph = trace(model, images())
    noted = {"tensor": [2, 3, 8, 8], "dtype": "float64"}
    plans = [keep_all(graph), choose(graph, {}, {}), from_zeros(model, graph), unread(graph, {})]
    assert [plan.inputs for plan in plans] == [noted] * 4
    assert again(plans[0]).inputs == noted
    assert plans[0].then(keep_all(trace(model, images()[:1]))).inputs == noted


def test_inputs_make_no_other_plan_of_it() -> None:
    plan = keep_all(trace(Plain(), images().float()))
    bare = Plan(plan.keep, plan.dense)
    assert plan == bare
    assert plan.hash == bare.hash
    assert hash(plan) == hash(bare)


# ── the format over time ──


@pytest.mark.parametrize("name", ["plan-1-first", "plan-1-inputs"])
def test_plans_of_older_versions_are_read_and_applied(name: str) -> None:
    text = (GOLDEN / f"{name}.json").read_text("utf-8")
    plan = Plan.from_json(text)
    assert plan == Plan({"first.0": (0, 2, 3), "second": (1, 4, 5, 7)}, {"first.0": 6, "second": 8, "head.fc": 5})
    assert plan.origin == {"recipe": "by hand", "budget": "params=1/2", "seed": 0}
    assert plan.to_json() == text  # and written as they were
    small = apply_plan(Plain(), plan, None if plan.inputs else images().float())
    assert small.second.weight.shape == (4, 3, 3, 3)


def test_keys_of_a_newer_prunit_are_passed_over() -> None:
    data = json.loads((GOLDEN / "plan-1-inputs.json").read_text("utf-8"))
    data["groups"]["second"]["reason"] = "because"
    data |= {"tuned": {"by": "a later prunit"}, "inputs": data["inputs"] | {"layout": "strided"}}
    plan = Plan.from_json(json.dumps(data))
    assert plan == Plan.from_json((GOLDEN / "plan-1-first.json").read_text("utf-8"))
    assert apply_plan(Plain(), plan).second.weight.shape == (4, 3, 3, 3)


# ── several rounds ──


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(2))
def test_two_rounds_are_one_plan_for_the_dense_model(name: str, seed: int, tmp_path: Path) -> None:
    factory, example = NETS[name]
    model = lived_in(factory())
    graph = trace(model, example)
    first = random_plan(graph, seed=seed, least=2 if name == "grouped" else 1)
    middle = compact(model, graph, first)
    between = trace(middle, example)
    second = random_plan(between, seed=seed + 10)
    last = compact(middle, between, second).eval()
    joined = first.then(second)
    assert furthest(apply_plan(model, joined, example).eval(), last, example) == 0
    assert furthest(mask(model, graph, joined).eval(), last, example) < 1e-13
    save(last, joined, tmp_path / "a")
    assert furthest(load(tmp_path / "a", factory), last, example) == 0
    assert read_plan(tmp_path / "a") == joined


def test_a_second_round_that_no_plan_for_the_dense_model_can_say_is_refused() -> None:
    factory, example = NETS["grouped"]
    model = lived_in(factory())
    graph = trace(model, example)
    # With one channel left in each of its groups the convolution is depthwise: now whole groups may go.
    first = choose(graph, {"a.0": torch.rand(2)}, {"a.0": 1})
    middle = apply_plan(model, first)
    second = choose(trace(middle, example), {"a.0": torch.rand(4)}, {"a.0": 3})
    with pytest.raises(
        PlanError, match=r"has 4 channels of group 'a.0', the first leaves 1. .* Then apply one after the other"
    ):
        first.then(second)
    assert apply_plan(middle, second).a[0].out_channels == 3


def test_three_rounds() -> None:
    net = model = lived_in(Residual())
    plans = []
    for seed in range(3):
        graph = trace(net, images())
        plans.append(random_plan(graph, seed=seed))
        net = compact(net, graph, plans[-1])
    joined = plans[0].then(plans[1]).then(plans[2])
    assert joined == plans[0].then(plans[1].then(plans[2]))
    assert furthest(prunit.apply_plan(model, joined, images()).eval(), net.eval(), images()) == 0


# ── inputs that a model looks at ──


class Lengths(nn.Module):
    """Works on as much of a sequence as there is, like models of speech; fails where there is nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = conv_bn(3, 8), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if lengths.min().item() < 1:
            raise ValueError("an empty sequence")
        return self.out(self.body(x))[..., : int(lengths.max())]


@pytest.mark.parametrize("form", ["positional", "named"])
def test_a_plan_knows_the_lengths_that_it_was_made_with(form: str) -> None:
    model = lived_in(Lengths())
    x, lengths = images(), torch.tensor([5, 8])
    example = (x, lengths) if form == "positional" else {"lengths": lengths, "x": x}
    made = prunit.plan(model, example, recipe="uniform", score="magnitude", budget={"params": 0.6})
    plan = Plan.from_json(made.to_json())
    small = prunit.apply_plan(model, plan)
    assert small.body[0].out_channels < 8
    assert torch.equal(small(x, lengths), compact(model, trace(model, example), plan)(x, lengths))


def test_longer_integers_are_asked_for_by_name() -> None:
    model, lengths = lived_in(Lengths()), torch.full((300,), 8)
    made = prunit.plan(model, (images(), lengths), recipe="uniform", score="magnitude", budget={"params": 0.6})
    with pytest.raises(ModelError, match=r"an empty sequence.*zeros here: give them, apply_plan\(model, plan, ex"):
        prunit.apply_plan(model, made)
    assert prunit.apply_plan(model, made, (images(), lengths)).body[0].out_channels < 8


# ── examples whose tensors lie in a list ──


class Listed(nn.Module):
    """One list of images of any size, as detectors take them."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = conv_bn(3, 8), nn.Conv2d(8, 4, 1)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [self.out(self.body(one[None])) for one in x]


@pytest.mark.parametrize("example", ["in a tuple", "named", "in a dict in a list"])
def test_a_plan_takes_an_example_as_trace_does(example: str) -> None:
    class Named(Listed):
        def forward(self, x: Any) -> Any:
            return super().forward([one["image"] for one in x] if isinstance(x[0], dict) else x)

    model, x = lived_in(Named()), list(images())
    given = {"in a tuple": (x,), "named": {"x": x}, "in a dict in a list": ([{"image": one} for one in x],)}[example]
    made = prunit.plan(model, given, recipe="uniform", score="magnitude", budget={"params": 0.6})
    small = prunit.apply_plan(model, Plan.from_json(made.to_json())).eval()
    for found, right in zip(small(x), mask(model, trace(model, given), made).eval()(x), strict=True):
        assert torch.allclose(found, right)


def test_a_list_as_example_is_said_to_be_several_inputs() -> None:
    x = list(images())
    for given, kind in ((x, "list"), (tuple(x), "tuple")):
        for make in (trace, lambda model, given: prunit.plan(model, given, budget={"params": 0.6})):
            with pytest.raises(ModelError, match=rf"The {kind} was taken as 2 inputs: .* write \(\[a, b\],\)"):
                make(Listed().double(), given)


def test_a_score_that_cannot_run_on_such_inputs_says_which_can() -> None:
    model, example = lived_in(Listed()), (list(images()),)
    with pytest.raises(ScoreError, match=r"'synflow' failed on Listed .*score='magnitude' looks at its weights only"):
        prunit.plan(model, example, budget={"params": 0.6})
    assert prunit.plan(model, example, budget={"params": 0.6}, score="magnitude").widths["body.0"] < 8
