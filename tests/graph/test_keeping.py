"""What a model holds after `trace` is what it held before: the same objects with the same content."""

import functools
import random
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunit.cut.surgery import compact, mask
from prunit.errors import ModelError
from prunit.graph import trace
from prunit.graph.running import meta_twins, named_tensors, standing_in
from tests.nets import Head, conv_bn, furthest, images, lived_in, random_plan

Code = Callable[["Net", Tensor], object]


class Net(nn.Module):
    """Runs `code` between two convolutions, and looks at values or fails afterwards if it is told to."""

    def __init__(self, code: Code, *, looks: bool = False, fails: bool = False, **attributes: Any) -> None:
        super().__init__()
        self.a, self.b, self.head = conv_bn(3, 6), conv_bn(6, 6), Head(6)
        self.code, self.looks, self.fails = code, looks, fails
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        self.code(self, x)
        x = self.b(x)
        if self.looks and x.sum().item() < -1e9:
            x = -x
        if self.fails:
            raise RuntimeError("as it was told")
        return self.head(x)


def picture(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """Identity and content of all that `value` holds, as nested plain data."""
    seen = {} if seen is None else seen
    if value is None or isinstance(value, bool | int | float | str | type | types.ModuleType):
        return value
    if id(value) in seen:
        return id(value)
    seen[id(value)] = value

    def inner(part: Any) -> Any:
        return picture(part, seen)

    content: Any = None
    if isinstance(value, Tensor):
        content = (value.is_meta or value.tolist(), value.shape, value._version, value.requires_grad, value.data_ptr())
        content += (inner(value.grad) if value.is_leaf else None, sorted(value.__dict__))
    elif isinstance(value, np.ndarray):
        content = value.tolist()
    elif isinstance(value, torch.Generator):
        content = value.get_state().tolist()
    elif isinstance(value, random.Random):
        content = value.getstate()
    elif isinstance(value, dict):
        content = [(inner(k), inner(v)) for k, v in value.items()]
    elif isinstance(value, list | tuple | deque | set | frozenset):
        content = [inner(part) for part in value]
    elif isinstance(value, types.FunctionType):
        content = [inner(cell.cell_contents) for cell in value.__closure__ or ()], inner(value.__defaults__)
        content += (inner(value.__dict__),)
    elif isinstance(value, types.MethodType):
        return inner(value.__self__), inner(value.__func__)
    elif isinstance(value, functools.partial):
        content = inner(value.func), inner(value.args), inner(value.keywords)
    slots = [inner(getattr(value, name, None)) for name in getattr(type(value), "__slots__", ())]
    attributes = [(name, inner(held)) for name, held in getattr(value, "__dict__", {}).items()]
    return id(value), type(value), content, attributes, slots


@dataclass
class Record:
    last: Any = None
    all: list[Any] = field(default_factory=list)


class Slotted:
    __slots__ = ("all", "last")

    def __init__(self) -> None:
        self.all: list[Any] = []


class Cache(OrderedDict[str, Any]):
    """A user's own kind of dict, whose methods do more."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.writes = getattr(self, "writes", 0) + 1


def hooked(net: Net, x: Tensor) -> None:
    if not getattr(net, "installed", False):
        net.installed = True
        net.b.register_forward_hook(lambda module, given, out: out * 1.5)
        net.b.register_forward_pre_hook(lambda module, given: (given[0] + 1,))
        net.b.register_forward_hook(lambda module, given, named, out: out, with_kwargs=True, always_call=True)
        net.b.register_state_dict_post_hook(lambda *given: None)
        net.b.register_full_backward_hook(lambda *given: None)


def rebuilt(net: Net, x: Tensor) -> None:
    net.extra = nn.Conv2d(6, 6, 1)
    net.b.add_module("late", nn.ReLU())
    net.head.register_buffer("late", torch.ones(1), persistent=False)
    net.head.register_parameter("scale", nn.Parameter(torch.ones(1)))
    net.b.train()
    net.a.requires_grad_(False)
    del net.plain


CASES: dict[str, tuple[Code, Callable[[], dict[str, Any]]]] = {
    "a list": (lambda net, x: net.held.append(x), lambda: {"held": []}),
    "a dict whose entry is replaced": (lambda net, x: net.held.update(x=x), lambda: {"held": {"x": torch.ones(2)}}),
    "a list whose entry is replaced": (lambda net, x: net.held.__setitem__(0, x), lambda: {"held": [1, 2]}),
    "a list in another order": (lambda net, x: net.held.reverse(), lambda: {"held": [1, 2]}),
    "a full deque": (lambda net, x: net.held.append(x), lambda: {"held": deque([1, 2], maxlen=2)}),
    "an empty deque": (lambda net, x: net.held.append(x), lambda: {"held": deque(maxlen=2)}),
    "an ordered dict": (lambda net, x: net.held.move_to_end("a"), lambda: {"held": OrderedDict(a=1, b=2)}),
    "a default dict": (lambda net, x: net.held["x"].append(x), lambda: {"held": defaultdict(list)}),
    "a list in a default dict": (lambda net, x: net.held["x"].append(x), lambda: {"held": defaultdict(list, x=[1])}),
    "a set": (lambda net, x: (net.held.discard(1), net.held.add(2)), lambda: {"held": {1}}),
    "a dict in a dict": (lambda net, x: net.held["a"]["b"].update(x=x), lambda: {"held": {"a": {"b": {}}}}),
    "a list in a tuple": (lambda net, x: net.held[1].append(x), lambda: {"held": (0, [1])}),
    "a class of its own": (lambda net, x: net.held.update(x=x), lambda: {"held": Cache(x=1)}),
    "a dataclass": (lambda net, x: (setattr(net.held, "last", x), net.held.all.append(x)), lambda: {"held": Record()}),
    "slots": (lambda net, x: (setattr(net.held, "last", x), net.held.all.append(x)), lambda: {"held": Slotted()}),
    "an object": (lambda net, x: vars(net.held).update(x=x), lambda: {"held": types.SimpleNamespace(a=[1])}),
    "an attribute": (lambda net, x: (setattr(net, "held", x), setattr(net, "new", x)), lambda: {"held": 1}),
    "a tensor": (lambda net, x: net.held[0].add_(1), lambda: {"held": torch.zeros(2, 2)}),
    "a tensor's memory": (lambda net, x: setattr(net.held, "data", torch.ones(3)), lambda: {"held": torch.zeros(2)}),
    "a tensor behind its back": (lambda net, x: net.held.data.fill_(1), lambda: {"held": torch.zeros(2)}),
    "a tensor in a list": (lambda net, x: net.held[0].fill_(torch.nan), lambda: {"held": [torch.zeros(2)]}),
    "a tensor's gradient": (
        lambda net, x: setattr(net.held, "grad", torch.ones(2)),
        lambda: {"held": torch.zeros(2, requires_grad=True)},
    ),
    "an array": (lambda net, x: net.held.fill(1), lambda: {"held": np.zeros(3)}),
    "a generator": (lambda net, x: torch.rand(1, generator=net.held), lambda: {"held": torch.Generator()}),
    "Python's generator": (lambda net, x: net.held.random(), lambda: {"held": random.Random(0)}),
    "an unregistered module": (
        lambda net, x: net.held[0](torch.ones(2, 3)),
        lambda: {"held": [nn.BatchNorm1d(3, track_running_stats=True).train()]},
    ),
    "hooks": (hooked, dict),
    "modules": (rebuilt, lambda: {"plain": 1}),
}


@pytest.mark.parametrize("looks", [False, True], ids=["on meta tensors", "on its own tensors"])
@pytest.mark.parametrize("fails", [False, True], ids=["", "fails"])
@pytest.mark.parametrize("name", CASES)
def test_whatever_a_forward_pass_writes_to_is_as_it_was(name: str, fails: bool, looks: bool) -> None:
    code, attributes = CASES[name]
    model = lived_in(Net(code, looks=looks, fails=fails, **attributes()))
    before, values = picture(model), {n: t.clone() for n, t in named_tensors(model).items()}
    if fails:
        with pytest.raises(ModelError, match="as it was told"):
            trace(model, images())
    else:
        trace(model, images())
    assert picture(model) == before
    assert all(torch.equal(t, values[n]) for n, t in named_tensors(model).items())


@pytest.mark.parametrize("name", ["hooks", "a default dict", "a dict in a dict", "a full deque", "a tensor"])
def test_the_cut_model_starts_anew_too(name: str) -> None:
    code, attributes = CASES[name]
    model = lived_in(Net(code, **attributes()))
    graph = trace(model, images())
    plan = random_plan(graph)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    for training in (False, True, False):
        assert furthest(twin.train(training), small.train(training), images()) < 1e-12


def test_a_model_whose_hooks_come_with_its_first_call_computes_the_same_afterwards() -> None:
    model = lived_in(Net(hooked)).eval()
    other = lived_in(Net(hooked)).eval()
    trace(model, images())
    assert not model.b._forward_hooks
    assert furthest(model, other, images()) == 0
    assert len(model.b._forward_hooks) == 2


def test_containers_that_grow_are_noted_with_their_place() -> None:
    def code(net: Net, x: Tensor) -> None:
        net.held["a"][0].append(x)
        net.deep.all.append(x)

    model = Net(code, held={"a": ([],)}, deep=Record()).double()
    graph = trace(model, images())
    assert set(graph.caches) == {("", "held", "a", 0), ("", "deep", "all")}
    with torch.no_grad():
        model(images())
    small = compact(model, graph, random_plan(graph))
    assert small.held == {"a": ([],)}
    assert small.deep.all == []
    assert len(model.held["a"][0]) == len(model.deep.all) == 1


def test_what_a_hook_sees_outside_of_the_model_is_as_it_was() -> None:
    features: dict[str, Any] = {}
    shapes: list[torch.Size] = [torch.Size([1])]
    count = 0

    def hook(module: nn.Module, given: Any, out: Tensor, last: list[Any] = [None]) -> None:  # noqa: B006
        nonlocal count
        count += 1
        features["x"] = out
        last[0] = out
        shapes.append(out.shape)
        vars(hook)["calls"] = count

    class Collector:
        def __init__(self) -> None:
            self.found: list[Any] = []

        def take(self, module: nn.Module, given: Any, out: Tensor) -> None:
            self.found.append(out)

        def __call__(self, module: nn.Module, given: Any) -> None:
            self.given = given

    collector, store = Collector(), {"all": []}
    model = Net(lambda net, x: None).double()
    model.a.register_forward_hook(hook)
    model.b.register_forward_hook(collector.take)
    model.b.register_forward_pre_hook(collector)
    model.b.register_forward_hook(functools.partial(lambda held, m, given, out: held["all"].append(out), store))
    trace(model, images())
    assert features == {}
    assert shapes == [torch.Size([1])]
    assert count == 0
    assert hook.__defaults__ == ([None],)
    assert vars(hook) == {}
    assert vars(collector) == {"found": []}
    assert store == {"all": []}


FEATURES: dict[str, Tensor] = {}
CALLS: list[int] = []
COUNT = 0


def _globally(module: nn.Module, given: Any, out: Tensor) -> None:
    global COUNT
    COUNT += 1
    FEATURES["x"] = out


def test_so_are_globals_that_a_hook_sees() -> None:
    model = Net(lambda net, x: None).double()
    model.a.register_forward_hook(_globally)
    trace(model, images())
    assert COUNT == 0
    assert FEATURES == {}


GRIDS: dict[Any, Tensor] = {}


@functools.lru_cache
def _grid(size: int) -> Tensor:
    return torch.ones(size, device=torch.get_default_device())


class Caching(Net):
    shared: ClassVar[dict[str, Tensor]] = {}
    calls: ClassVar[list[int]] = []

    def forward(self, x: Tensor) -> Tensor:
        if "x" not in GRIDS:
            GRIDS["x"] = x.new_ones(1)
            self.shared["x"] = x.new_ones(1)
        self.calls.append(1)
        CALLS.append(1)
        return super().forward(x * GRIDS["x"] * self.shared["x"])


def test_no_meta_tensor_stays_in_globals_or_in_the_class_and_all_else_there_is_the_users_business() -> None:
    model = lived_in(Caching(lambda net, x: None)).eval()
    trace(model, images())
    assert GRIDS == {}
    assert Caching.shared == {}
    assert len(CALLS) == len(Caching.calls) > 0
    assert not any(out.is_meta for out in [model(images())])
    GRIDS.clear()
    Caching.shared.clear()


def test_no_meta_tensor_stays_in_an_attribute_of_the_class_itself() -> None:
    class Classed(Net):
        last: ClassVar[Any] = None
        count: ClassVar[int] = 0

    def code(net: Net, x: Tensor) -> None:
        kind: Any = type(net)
        kind.last, kind.table = x, {"x": x}
        kind.count += 1

    trace(lived_in(Classed(code)), images())
    assert Classed.last is None
    assert not hasattr(Classed, "table")
    assert Classed.count > 0


def test_a_cache_of_functools_is_emptied_of_what_the_run_computed() -> None:
    class Cached(Net):
        @functools.lru_cache  # noqa: B019
        def grid(self, device: str) -> Tensor:
            return torch.ones(1, device="meta" if self.a[0].weight.is_meta else "cpu", dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.grid("any"))

    model = lived_in(Cached(lambda net, x: None)).eval()
    trace(model, images())
    assert not model(images()).is_meta


def test_random_state_comes_back_also_after_an_error() -> None:
    def code(net: Net, x: Tensor) -> None:
        torch.rand(1)
        np.random.rand()  # noqa: NPY002
        random.random()

    for fails in (False, True):
        model = Net(code, fails=fails).double()
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
        try:
            trace(model, images())
        except ModelError:
            assert fails
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
        assert random.getstate() == states[2]


def test_weights_that_a_forward_pass_bounds_are_as_they_were_where_it_looks_at_values() -> None:
    def bound(net: Net, x: Tensor) -> None:
        a: Any = net.a
        b: Any = net.b
        weight = net.head.fc.weight
        weight.data = torch.renorm(weight.data, p=2, dim=0, maxnorm=0.01)
        with torch.no_grad():
            a[0].weight.mul_(2)
            b[0].weight.data.mul_(2)
        a[0].weight.grad = torch.ones_like(a[0].weight)
        b[0].weight.requires_grad_(False)

    for looks in (False, True):
        model = lived_in(Net(bound, looks=looks))
        before = picture(model)
        trace(model, images())
        assert picture(model) == before


def test_a_graph_of_objects_with_circles_and_weak_references_is_walked_once() -> None:
    record = Record()
    record.last, record.all = record, [record]
    model = Net(lambda net, x: net.ref().all.append(x), ref=weakref.ref(record), proxy=weakref.proxy(record)).double()
    model.back = [model]
    trace(model, images())
    assert record.last is record
    assert record.all == [record]


def test_a_gradient_that_was_there_stays_itself() -> None:
    model = lived_in(Net(lambda net, x: setattr(net, "feature", x)))
    model(images()).sum().backward()
    before = [picture(p.grad) for p in model.parameters()]
    feature = model.feature
    trace(model, images())
    assert [picture(p.grad) for p in model.parameters()] == before
    assert model.feature is feature
    assert feature.grad_fn is not None


def test_with_other_weights_the_model_is_left_as_it_was_as_well() -> None:
    model = Net(lambda net, x: net.held.append(x), held=[]).double()
    with standing_in(model, meta_twins(named_tensors(model))) as filled:
        model(images().to("meta"))
        assert len(model.held) == 1
    assert filled == [("", "held")]
    assert model.held == []
