"""Hooks, methods and closures of a model that is cut or masked: the copy sees itself, and what is not its own stays."""

import functools
import importlib.util
import threading
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from prunit.cut.plans import Plan, keep_all
from prunit.cut.surgery import compact, copied, mask, rebuild
from prunit.cut.zeros import remove_zeros, without_small_filters
from prunit.errors import SurgeryError
from prunit.graph import trace
from prunit.zoo.external import imported
from tests.hooked import FACTORIES, Net, by_its_own_forward, in_a_closure, into
from tests.nets import furthest, images, lived_in, random_plan

KEPT = (1, 2, 5, 6, 7)


def zeroed(model: Net, kept: tuple[int, ...] = KEPT) -> Callable[[Tensor], Tensor]:
    """What the uncut model gives with zeros where its last layer reads what goes: none of the package's code runs."""
    weight, bias = model.body.weight.detach().clone(), model.body.bias
    reads = model.out.weight.detach().clone()
    reads[:, [c for c in range(8) if c not in kept]] = 0

    def run(x: Tensor) -> Tensor:
        y = nn.functional.conv2d(x, weight, bias).relu().mean((2, 3))
        return nn.functional.linear(y, reads, model.out.bias)

    return run


@pytest.mark.parametrize("ran", ["", "without gradients", "with gradients"])
@pytest.mark.parametrize("factory", FACTORIES)
def test_a_copy_depends_on_its_own_input_and_weights_alone(factory: Callable[[], Net], ran: str) -> None:
    model = lived_in(factory()).train()
    if ran:
        with torch.set_grad_enabled(ran == "with gradients"):
            model(images())
    graph = trace(model, images())
    (name,) = (g.name for g in graph.groups if g.size == 8 and not g.pinned)
    plan = Plan({name: KEPT}, keep_all(graph).dense)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    expected, dense = zeroed(model), zeroed(model, tuple(range(8)))
    x, y = images(), 1 - 3 * images()
    with torch.no_grad():
        for given in (x, y, x):
            for net, right in ((model, dense), (small, expected), (twin, expected), (model, dense)):
                assert torch.allclose(net(given), right(given), atol=1e-12)
        for net in (small, twin):
            for p in net.parameters():
                p.zero_()
            assert not net(x).any()
        assert torch.allclose(model(y), dense(y), atol=1e-12)
    assert small.body.out_channels == len(KEPT)
    again = compact(small, trace(small, images()), keep_all(trace(small, images())))  # a copy of a copy
    assert not again(x).any()


def test_gradients_flow_through_a_backward_hook_of_the_copy() -> None:
    model = lived_in(by_its_own_forward())
    model.seen = []
    model.body.register_full_backward_hook(lambda module, given, out: model.seen.append(out[0].shape[1]))
    model.body.register_full_backward_pre_hook(lambda module, out: model.seen.append(module is model.body))
    graph = trace(model, images())
    small = compact(model, graph, Plan({"body": KEPT}, keep_all(graph).dense))
    small(images().requires_grad_()).sum().backward()
    assert small.seen == [True, len(KEPT)]
    assert model.seen == []


def test_state_dict_hooks_see_the_copy() -> None:
    model = by_its_own_forward()
    model.body.register_state_dict_post_hook(lambda module, state, prefix, meta: model.store.update(saved=module))
    model._register_state_dict_hook(lambda module, state, prefix, meta: model.store.update(old=module))
    model.register_load_state_dict_pre_hook(lambda *given: model.store.update(pre=given[0]))
    model.register_load_state_dict_post_hook(lambda module, keys: model.store.update(post=module))
    small = rebuild(model, {n: t.detach().clone() for n, t in model.named_parameters()})
    small.load_state_dict(small.state_dict())
    assert small.store == {"saved": small.body, "old": small, "pre": small, "post": small}
    assert model.store == {}


def test_what_a_function_sees_outside_of_the_model_stays_the_users() -> None:
    found: list[Tensor] = []
    model = lived_in(by_its_own_forward())

    def hook(module: nn.Module, given: Any, out: Tensor) -> None:
        found.append(out)

    model.body.register_forward_hook(hook)
    graph = trace(model, images())
    small = compact(model, graph, Plan({"body": KEPT}, keep_all(graph).dense))
    (copied,) = small.body._forward_hooks.values()
    assert copied is hook
    small(images())
    model(images())
    assert [x.shape[1] for x in found] == [len(KEPT), 8]


def test_functions_keep_their_names_and_what_is_shared_stays_shared() -> None:
    net = Net()
    count = 0

    def up(by: int = 1) -> tuple[int, Net]:
        """Counts."""
        nonlocal count
        count += by
        return count, net

    up.note = "a note"  # pyright: ignore[reportFunctionMemberAccess]
    net.up, net.again, net.seen = up, [up, up], lambda: (count, net)
    small = rebuild(net, {n: t.detach() for n, t in net.state_dict().items()})
    assert small.up is small.again[0] is small.again[1] is not up
    assert small.up.__name__, small.up.__doc__ == ("up", "Counts.")
    assert small.up.note == "a note"
    assert small.up.__qualname__ == up.__qualname__
    assert small.up.__annotations__ == up.__annotations__
    assert small.up(2) == (2, small)
    assert net.up() == (3, net)
    assert small.seen() == (3, small)


OUTER: dict[str, Any] = {}


def _through_a_global(module: nn.Module, given: Any, out: Tensor) -> None:
    OUTER["net"].store["x"] = out


def test_a_hook_that_sees_the_model_by_a_global_variable_is_refused_with_names() -> None:
    net = OUTER["net"] = lived_in(in_a_closure())
    net.body.register_forward_hook(_through_a_global)
    graph = trace(net, images())
    try:
        for reading in (compact, mask):
            with pytest.raises(SurgeryError) as caught:
                reading(net, graph, keep_all(graph))
            for word in ("forward hook '_through_a_global' of 'body' (Conv2d)", "the global variable 'OUTER'"):
                assert word in str(caught.value)
            assert str(caught.value).endswith("let it use what it is given, or a variable of its own")
            assert "\n" not in str(caught.value)
    finally:
        OUTER.clear()
    compact(net, graph, keep_all(graph))  # which is all it takes


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (lambda net: setattr(net.body, "source", iter([1])), None),
        (lambda net: setattr(net.body, "source", (n for n in [1])), "attribute 'source' of 'body' (Conv2d)"),
        (lambda net: net.store.update(file=(n for n in [1])), "attribute 'store' of the Net itself"),
        (lambda net: net.out.register_forward_hook(functools.partial(into, Lock(net))), "hook 'partial' of 'out'"),
    ],
)
def test_what_cannot_be_copied_is_named(place: Callable[[Net], Any], words: str | None) -> None:
    net = lived_in(in_a_closure())
    place(net)
    tensors = {n: t.detach().clone() for n, t in net.state_dict().items()}
    if words is None:
        rebuild(net, tensors)
        return
    with pytest.raises(SurgeryError) as caught:
        rebuild(net, tensors)
    assert words in str(caught.value)
    assert "generator" in str(caught.value)


class Lock(dict[str, Any]):
    """It holds the model and something that cannot be copied."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.steps = net, (n for n in [1])


# ── activations that are kept ──


class Keeps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.feature: Any = None
        self.all: list[Any] = []
        self.named: OrderedDict[str, Any] = OrderedDict()

    def forward(self, x: Tensor) -> Tensor:
        self.feature = self.body(x).relu()
        self.all = [self.feature, {"again": self.feature * 2}]
        self.named["x"] = self.feature[:1]
        return self.out(self.feature.mean((2, 3)))


def test_an_activation_with_gradients_is_copied_without_its_history() -> None:
    model = lived_in(Keeps()).train()
    model(images()).sum().backward()
    feature, gradients = model.feature, [p.grad for p in model.parameters()]
    graph = trace(model, images())
    plan = Plan({"body": KEPT}, keep_all(graph).dense)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    for net in (small, twin):
        assert net.feature.grad_fn is None
        assert torch.equal(net.feature, feature)
        assert net.feature is net.all[0]
        assert net.feature.data_ptr() != feature.data_ptr()
        assert all(p.grad is None for p in net.parameters())
    assert model.feature is feature
    assert feature.grad_fn is not None
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    with torch.no_grad():
        for given in (images(), 1 - 3 * images()):
            right = zeroed(model)(given)  # pyright: ignore[reportArgumentType]
            assert torch.allclose(small(given), right)
            assert torch.allclose(twin(given), right)
    assert small.feature.shape[1] == len(KEPT)


# ── modules that say themselves how they are copied ──


class OwnCopy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop, self.out = nn.Conv2d(3, 8, 3), nn.Dropout(), nn.Linear(8, 4)
        self.seen: list[Any] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.drop(self.body(x).relu()).mean((2, 3)))


class ByDeepcopy(OwnCopy):
    def __deepcopy__(self, memo: Any) -> "ByDeepcopy":
        new = ByDeepcopy()
        new.load_state_dict(self.state_dict())
        return new


class ByReduce(OwnCopy):
    def __reduce__(self) -> Any:
        return ByReduce, ()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "factory",
    [
        ByDeepcopy,
        ByReduce,
        lambda: fx.symbolic_trace(OwnCopy().eval()),
        lambda: nn.Sequential(fx.symbolic_trace(OwnCopy()), nn.Dropout()),
        lambda: nn.Sequential(ByReduce(), ByDeepcopy().drop),
    ],
    ids=["deepcopy", "reduce", "graph module", "graph module inside", "reduce inside"],
)
def test_modes_hooks_tensors_and_attributes_come_along(factory: Callable[[], nn.Module], training: bool) -> None:
    model = lived_in(factory()).train(training)
    inner = model if hasattr(model, "body") else model.get_submodule("0")
    inner.drop.train(not training)
    inner.seen = []
    inner.register_forward_hook(lambda module, given, out: inner.seen.append(module is inner))
    inner.body.register_forward_hook(lambda module, given, out: inner.seen.append(out.shape[1]))
    graph = trace(model, images())
    (name,) = (g.name for g in graph.groups if g.size == 8)
    plan = Plan({name: KEPT}, keep_all(graph).dense)
    modes = {n: m.training for n, m in model.named_modules()}
    for net, width in ((compact(model, graph, plan), 5), (mask(model, graph, plan), 8)):
        assert {n: m.training for n, m in net.named_modules()} == modes
        net.eval()(images())
        own = net if inner is model else net.get_submodule("0")
        assert own.seen == [width, True]
        assert torch.allclose(net(images()), zeroed(inner)(images()))  # pyright: ignore[reportArgumentType]
    assert inner.seen == []
    assert {n: m.training for n, m in model.named_modules()} == modes


def test_a_model_with_hooks_is_copied_like_any_other_without_them() -> None:
    model = lived_in(in_a_closure())
    plain = Net().double()
    plain.load_state_dict(model.state_dict())
    plain.forward = types.MethodType(lambda self, x: self.out(self.body(x).relu().mean((2, 3))), plain)
    graph = trace(model, images())
    plan = Plan({"body": KEPT}, keep_all(graph).dense)
    assert furthest(compact(model, graph, plan), compact(plain, graph, plan), images()) == 0


@pytest.mark.parametrize("training", [True, False])
def test_an_exported_model_keeps_its_mode_and_the_hooks_that_check_its_inputs(training: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(lived_in(OwnCopy()).train(training), (images(),)).module()
    assert exported._forward_pre_hooks
    graph = trace(exported, images())
    (name,) = (g.name for g in graph.groups if g.size == 8)
    plan = Plan({name: KEPT}, keep_all(graph).dense)
    small, twin = compact(exported, graph, plan), mask(exported, graph, plan)
    for net in (small, twin):
        assert {n: m.training for n, m in net.named_modules()} == {n: m.training for n, m in exported.named_modules()}
        assert len(net._forward_pre_hooks) == len(exported._forward_pre_hooks)
        with pytest.raises(AssertionError, match=r"Guard failed|size"):
            net(images(size=9))
    if not training:
        assert furthest(small, twin, images()) < 1e-12


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="not installed (prunit[zoo]): torchvision")
@pytest.mark.parametrize("training", [True, False])
def test_a_feature_extractor_has_the_graph_of_its_mode(training: bool) -> None:
    models = imported("torchvision", needed_by="this test").models
    extraction = importlib.import_module("torchvision.models.feature_extraction")
    dense = models.resnet18(weights=None)
    model = extraction.create_feature_extractor(dense, {"layer1": "a", "avgpool": "b"})
    lived_in(model).train(training)
    graph, example = trace(model, images(size=32)), images(size=32)
    plan = random_plan(graph)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    for net in (small, twin):
        assert all(m.training is training for m in net.modules())
        assert net.graph is (net.train_graph if training else net.eval_graph)
    for mode in (training, not training):
        assert furthest(small.train(mode), twin.train(mode), example) < 1e-11
        assert small.graph is (small.train_graph if mode else small.eval_graph)
    assert all(m.training is training for m in model.modules())
    assert model.graph is (model.train_graph if training else model.eval_graph)


def test_what_never_changes_is_shared_and_generators_are_copied_with_their_state() -> None:
    net: Any = Net()
    net.constants = (property(len), functools, (lambda: 1).__code__, torch.float32, slice, range(3), len)
    net.random = torch.Generator().manual_seed(3)
    small = copied(net)
    assert small.constants is net.constants
    assert small.random is not net.random
    assert torch.equal(torch.rand(3, generator=small.random), torch.rand(3, generator=net.random))


def test_a_compiled_function_of_a_layer_runs_the_copys_layer() -> None:
    net: Any = lived_in(Net())
    net.run = torch.compile(lambda x: net.body(x), backend="eager")
    net.forward = lambda x: net.out(net.run(x).relu().mean((2, 3)))
    small = copied(net)
    with torch.no_grad():
        assert torch.allclose(small(images()), net(images()))
        small.body.weight.zero_()
        assert not torch.allclose(small(images()), net(images()))


def test_the_model_without_small_filters_sees_itself() -> None:
    model = lived_in(in_a_closure())
    twin = without_small_filters(model, 0.0)
    with torch.no_grad():
        assert torch.equal(twin(images()), model(images()))
        assert twin.store["x"] is not model.store["x"]
        twin.body.weight.zero_()
        assert not torch.equal(twin(images()), model(images()))
    assert torch.equal(remove_zeros(model, images()).model(1 - images()), model(1 - images()))


def test_objects_with_slots_alone_see_the_copy() -> None:
    class Slotted:
        __slots__ = ("later", "layer")

        def __init__(self, layer: nn.Module) -> None:
            self.layer = layer

    @dataclass(slots=True)
    class Record:
        slotted: Slotted

    net = Net()
    net.record = Record(Slotted(net.body))
    net.get = lambda: net.record.slotted.layer(images())
    small = copied(net)
    assert small.record.slotted.layer is small.body is not net.body
    assert not hasattr(small.record.slotted, "later")


def test_a_lock_is_the_copys_own_and_open() -> None:
    net = in_a_closure()
    net.guards = {"once": threading.Lock(), "again": threading.RLock()}
    with net.guards["once"], net.guards["again"]:
        small = copied(net)
    for name, guard in small.guards.items():
        assert guard is not net.guards[name]
        assert type(guard) is type(net.guards[name])
        assert guard.acquire(blocking=False)
