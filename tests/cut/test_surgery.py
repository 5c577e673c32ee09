"""Two readings of a plan that must agree, what the cut model looks like, and what is re-initialised."""

import copy
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from prunit.cut.plans import Plan, choose, keep_all
from prunit.cut.surgery import check_runs, compact, mask, mask_, rebuild, rectify
from prunit.errors import PlanError, SurgeryError
from prunit.graph import ChannelGraph, trace
from tests.nets import (
    NETS,
    Flattened,
    Head,
    Inverted,
    Plain,
    Residual,
    conv_bn,
    furthest,
    images,
    lived_in,
    random_plan,
    run,
)


def traced(model: nn.Module) -> tuple[nn.Module, ChannelGraph]:
    lived_in(model)
    return model, trace(model, images())


# ── compact ≡ mask ──


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_compact_and_mask_compute_the_same(name: str, seed: int) -> None:
    factory, example = NETS[name]
    model = lived_in(factory())
    graph = trace(model, example)
    plan = random_plan(graph, seed=seed)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    for training in (False, True, False):  # the last with the statistics that training mode has moved
        assert furthest(twin.train(training), small.train(training), example) < 1e-13
    assert furthest(twin, model.eval(), example) > 1e-3  # the cut was felt


@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Softplus])
@pytest.mark.parametrize("factory", [Plain, Residual], ids=["plain", "residual"])
def test_they_train_alike(act: Callable[[], nn.Module], factory: Callable[[], nn.Module]) -> None:
    model = factory()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.ReLU):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, act())
    model, graph = traced(model.train())
    plan = random_plan(graph, seed=1)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    x_BCHW, y_B = images(batch=8), torch.arange(8) % 5
    optimisers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2) for m in (small, twin)]
    for _ in range(5):
        losses = []
        for net, optimiser in zip((small, twin), optimisers, strict=True):
            optimiser.zero_grad()
            loss = F.cross_entropy(net(x_BCHW), y_B)
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        mask_(twin, graph, plan)
        assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert furthest(twin.eval(), small.eval(), x_BCHW) < 1e-12
    assert furthest(twin, model.eval(), x_BCHW) > 1e-3


def test_zeroing_producers_instead_would_not_agree() -> None:
    model, graph = traced(Plain(nn.Softplus()))
    plan = random_plan(graph)
    small, wrong = compact(model, graph, plan), copy.deepcopy(model)
    gone = [c for c in range(6) if c not in plan.keep["first.0"]]
    with torch.no_grad():
        wrong.get_parameter("first.0.weight")[gone] = 0
        wrong.get_parameter("first.1.weight")[gone] = 0
    assert furthest(wrong.eval(), small.eval(), images()) > 1e-2


# ── compact ──


def test_compact_keeps_the_very_channels_of_the_plan() -> None:
    model, graph = traced(Residual())
    plan = Plan({"stem.0": (0, 3, 5), "a1.0": (2,)}, keep_all(graph).dense)
    small = compact(model, graph, plan)
    old, new = model.state_dict(), small.state_dict()
    assert torch.equal(new["stem.0.weight"], old["stem.0.weight"][[0, 3, 5]])
    assert torch.equal(new["a1.0.weight"], old["a1.0.weight"][[2]][:, [0, 3, 5]])
    assert torch.equal(new["a1.1.running_var"], old["a1.1.running_var"][[2]])
    assert torch.equal(new["head.fc.weight"], old["head.fc.weight"])
    assert {n: t.dtype for n, t in new.items()} == {n: t.dtype for n, t in old.items()}


def test_layers_say_what_they_hold() -> None:
    model, graph = traced(Inverted())
    small = compact(model, graph, Plan({"expand.0": (1, 4, 5)}, keep_all(graph).dense))
    depthwise, norm = small.get_submodule("depth.0"), small.get_submodule("depth.1")
    assert repr(depthwise).startswith("Conv2d(3, 3, kernel_size=(3, 3)")
    assert "groups=3" in repr(depthwise)
    assert norm.num_features == 3
    assert repr(small.get_submodule("project.0")).startswith("Conv2d(3, 4")
    grouped, graph = traced(NETS["grouped"][0]())
    small = compact(grouped, graph, Plan({"a.0": (1,), "b.0": (0, 2)}, keep_all(graph).dense))
    assert re.match(r"Conv2d\(4, 8, .*groups=4", repr(small.get_submodule("b.0")))
    multiplied, graph = traced(NETS["multiplier"][0]())
    small = compact(multiplied, graph, Plan({"stem.0": (0, 2, 3)}, keep_all(graph).dense))
    assert re.match(r"Conv2d\(3, 9, .*groups=3", repr(small.get_submodule("depth")))
    up, graph = traced(NETS["unet"][0]())
    small = compact(up, graph, Plan({"up": (0,), "inner.0": (1, 2)}, keep_all(graph).dense))
    assert repr(small.get_submodule("up")).startswith("ConvTranspose2d(2, 1")
    flat, graph = traced(Flattened())
    small = compact(flat, graph, Plan({"features.2": (1, 2), "classifier.0": (0,)}, keep_all(graph).dense))
    assert repr(small.get_submodule("classifier.0")).startswith("Linear(in_features=32, out_features=1")
    gained, graph = traced(NETS["parameters"][0]())
    small = compact(gained, graph, Plan({"stem.0": (1, 2)}, keep_all(graph).dense))
    assert repr(small.get_submodule("stem.2")) == "PReLU(num_parameters=2)"
    assert repr(small.get_submodule("body.2")) == "PReLU(num_parameters=1)"


def test_the_dense_model_stays_as_it_was() -> None:
    model, graph = traced(Residual().train())
    model.get_submodule("a1").eval()
    before = {n: (t, t._version, t.clone()) for n, t in model.state_dict(keep_vars=True).items()}
    modes = [m.training for m in model.modules()]
    plan = random_plan(graph)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    check_runs(model, small, images())
    rectify(small, model)
    with torch.no_grad():
        for net in (small, twin):
            for p in net.parameters():
                p.add_(1)
    after = model.state_dict(keep_vars=True)
    for name, (tensor, version, value) in before.items():
        assert after[name] is tensor
        assert tensor._version == version
        assert torch.equal(tensor, value)
    assert [m.training for m in model.modules()] == modes
    assert [m.training for m in small.modules()] == modes


def test_nothing_is_shared_with_the_dense_model() -> None:
    model, graph = traced(Residual())
    small = compact(model, graph, keep_all(graph))
    dense = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    assert not dense & {t.untyped_storage().data_ptr() for t in small.state_dict().values()}


def test_keep_all_is_the_identity() -> None:
    for factory, example in NETS.values():
        model = lived_in(factory()).eval()
        graph = trace(model, example)
        for same in (compact(model, graph, keep_all(graph)), mask(model, graph, keep_all(graph))):
            assert all(torch.equal(a, b) for a, b in zip(run(model, example), run(same, example), strict=True))
            assert repr(same) == repr(model)


def test_channels_last_stays_channels_last_and_plain_stays_plain() -> None:
    model, graph = traced(Residual())
    plan = Plan({"stem.0": (0, 3, 5), "a1.0": (1, 2)}, keep_all(graph).dense)

    def strides(net: nn.Module) -> list[bool]:
        # In channels_last memory the channel of a kernel moves fastest, also where the kernel is 1 x 1.
        return [w.stride(1) == 1 and w.stride(3) == w.shape[1] for n, w in net.named_parameters() if w.ndim == 4]

    assert not any(strides(compact(model, graph, plan)))
    model = model.to(memory_format=torch.channels_last)
    assert all(strides(compact(model, graph, plan)))


def test_options_of_parameters_survive() -> None:
    model, graph = traced(Plain())
    model.get_parameter("second.weight").requires_grad_(False)
    small = compact(model.to(torch.bfloat16), graph, random_plan(graph))
    assert not small.get_parameter("second.weight").requires_grad
    assert small.get_parameter("head.fc.weight").requires_grad
    assert isinstance(small.get_parameter("second.weight"), nn.Parameter)
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert all(p.is_leaf and p.grad is None for p in small.parameters())


def test_tied_weights_stay_tied() -> None:
    model, graph = traced(NETS["recurrent"][0]())
    small = compact(model, graph, random_plan(graph))
    assert small.get_parameter("left.weight") is small.get_parameter("right.weight")


def test_a_parametrised_weight_is_not_computed_while_cutting() -> None:
    # Spectral norm moves its vectors whenever its weight is read in training mode.
    model = nn.Sequential(conv_bn(3, 6), conv_bn(6, 4), parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)))
    graph = trace(model.train(), images().float())
    before = {n: b.clone() for n, b in model.named_buffers()}
    small = compact(model, graph, Plan({"0.0": (0, 1)}, keep_all(graph).dense))
    after = dict(model.named_buffers())
    vectors = [n for n in before if n.endswith(("_u", "_v"))]
    assert len(vectors) == 2
    for name in vectors:
        assert torch.equal(after[name], before[name])
        assert torch.equal(small.get_buffer(name), before[name])


def test_a_parametrised_layer_is_cut_and_sized_through_its_original() -> None:
    class Half(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return w * 0.5

    model = nn.Sequential(conv_bn(3, 6), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 2, 1))
    nn.utils.parametrize.register_parametrization(model[1], "weight", Half())
    model, graph = traced(model)
    plan = Plan({"0.0": (0, 2, 5)}, keep_all(graph).dense)
    small = compact(model, graph, plan)
    assert small[1].groups == 3  # pyright: ignore[reportIndexIssue]
    assert furthest(mask(model, graph, plan), small, images()) < 1e-13


def test_models_that_cannot_be_copied_are_refused_in_one_line() -> None:
    locked = Plain()
    locked.lines = (line for line in ("one", "two"))  # pyright: ignore[reportAttributeAccessIssue]
    graph = trace(Plain(), images().float())
    for reading in (compact, mask):
        with pytest.raises(SurgeryError, match=r"cannot copy Plain: .* must be removed first") as caught:
            reading(locked, graph, keep_all(graph))
        assert "\n" not in str(caught.value)


def test_rebuild_ties_names_that_are_given_one_tensor() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    shared = torch.randn(3, 4)
    small = rebuild(model, {"0.weight": shared, "1.weight": shared})
    assert small[0].weight is small[1].weight  # pyright: ignore[reportIndexIssue]
    assert small[1].out_features == 3  # pyright: ignore[reportIndexIssue]


# ── sizes that are fixed in code ──


class HardCoded(nn.Module):
    """Its forward assumes eight channels."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.head, self.how = conv_bn(3, 8), Head(8), how

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.how(self.body(x)))


def test_a_fixed_size_is_pinned_and_named_with_file_and_line() -> None:
    _, graph = traced(HardCoded(lambda x: x.view(2, 8, 64)[..., None]))
    why = graph.group("body.0").pinned
    assert re.match(r"the model's code depends on its size at .*test_surgery.py:\d+ `.*view", why)
    assert graph.notes == (why,)


def test_a_size_that_is_given_to_a_layer_only_is_found_when_the_compact_model_runs() -> None:
    model, graph = traced(HardCoded(lambda x: x.view(2, 8, 64)[..., None]))
    free = replace(graph, groups=tuple(replace(g, pinned="") for g in graph.groups))
    small = compact(model, free, choose(free, {"body.0": torch.ones(8)}, {"body.0": 4}))
    with pytest.raises(SurgeryError, match=r"test_surgery.py:\d+ `.*x.view\(2, 8, 64\).*shape '\[2, 8, 64\]' is inv"):
        check_runs(model, small, images())


def test_an_output_of_another_shape_is_found() -> None:
    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out = conv_bn(3, 8), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(x)
            return self.out(x).mean().expand(x.shape[1])

    model, graph = traced(Features())
    assert graph.group("body.0").pinned
    graph = replace(graph, groups=tuple(replace(g, pinned="") for g in graph.groups))
    small = compact(model, graph, choose(graph, {"body.0": torch.ones(8)}, {"body.0": 4}))
    with pytest.raises(SurgeryError, match=r"output has shape \(4,\), the dense one's \(8,\)"):
        check_runs(model, small, images())


def test_a_layer_that_only_training_runs_is_cut_with_what_it_reads() -> None:
    class Auxiliary(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.aux = Head(6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            y = self.head(self.second(x))
            return y + self.aux(x) if self.training else y

    model, graph = traced(Auxiliary())
    plan = choose(graph, {"first.0": torch.ones(6)}, {"first.0": 4})
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    check_runs(model, small, images())
    assert small.aux.fc.in_features == 4
    assert furthest(twin.train(), small.train(), images()) < 1e-12


def test_a_width_that_only_the_code_for_training_holds_is_found() -> None:
    class Fixed(Plain):
        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            y = self.head(self.second(x))
            return y + x.reshape(2, 6, -1).sum((1, 2))[:, None] if self.training else y

    model, graph = traced(Fixed())
    assert graph.group("first.0").pinned
    free = replace(graph, groups=tuple(replace(g, pinned="") for g in graph.groups))
    small = compact(model, free, choose(free, {"first.0": torch.ones(6)}, {"first.0": 4}))
    with pytest.raises(SurgeryError, match=r"does not run.*x.reshape\(2, 6"):
        check_runs(model, small, images())


def test_checks_pass_on_tied_models_and_on_those_that_need_values() -> None:
    class Looking(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum() > -1e9 else -x)

    for model in (NETS["recurrent"][0](), Looking()):
        lived_in(model)
        graph = trace(model, images())
        check_runs(model, compact(model, graph, random_plan(graph)), images())


def test_only_what_the_code_fixes_is_pinned() -> None:
    class Partly(HardCoded):
        def __init__(self) -> None:
            super().__init__(lambda x: x.view(2, 8, 64)[..., None])
            self.body = nn.Sequential(conv_bn(3, 6), conv_bn(6, 8))  # pyright: ignore[reportIncompatibleVariableOverride]

    model, graph = traced(Partly())
    assert graph.group("body.0.0").pinned == ""
    assert "code depends on its size" in graph.group("body.1.0").pinned
    check_runs(model, compact(model, graph, random_plan(graph)), images())


@pytest.mark.parametrize("function", [compact, mask, mask_])
def test_arguments_in_another_order_are_told(function: Callable[..., object]) -> None:
    model, graph = traced(Plain())
    plan = keep_all(graph)
    for wrong, said in (
        ((model, graph, model), "ChannelGraph for the graph and Plain for the plan"),
        ((model, plan, graph), "Plan for the graph and ChannelGraph for the plan"),
        ((graph, model, plan), "Plain for the graph and Plan for the plan"),
    ):
        with pytest.raises(PlanError, match=rf"the arguments are \(model, graph, plan\).*got {said}"):
            function(*wrong)
