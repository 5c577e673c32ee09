"""What a trace says about a whole model, and that it leaves the model as it was."""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunit.errors import ModelError, UnknownNameError
from prunit.graph import Activation, Geometry, Layer, trace
from tests.nets import (
    NETS,
    Concatenated,
    ConcatenatedSum,
    Flattened,
    Gated,
    PaddedShortcut,
    Plain,
    Residual,
    conv_bn,
    images,
    lived_in,
)


def widths(model: nn.Module, example: Any) -> dict[str, int]:
    """Channels of each group that may shrink."""
    return {g.name: g.size for g in trace(model, example).groups if not g.pinned}


# ── groups ──


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", {"first.0": 6, "second": 8}),
        ("residual", {"stem.0": 6, "a1.0": 4, "b1.0": 5, "b2.0": 8}),
        ("padded shortcut", {"stem.0": 4}),
        ("concatenated", {"a.0": 4, "b.0": 5, "c": 6}),
        ("concatenated sum", {"a.0": 4, "b.0": 3, "d.0": 4}),
        ("inverted", {"stem.0": 4, "expand.0": 12}),
        ("multiplier", {"stem.0": 4}),
        ("grouped", {"a.0": 2, "b.0": 3}),
        ("flattened", {"features.0.0": 6, "features.2": 5, "classifier.0": 7}),
        ("gated", {"stem.0": 8, "squeeze": 3}),
        ("recurrent", {"stem.0": 6, "left": 4}),
        ("perceptron", {"up": 9, "mix": 7}),
        ("unet", {"outer.0": 4, "inner.0": 6, "up": 5}),
        ("parameters", {"stem.0": 6}),
        ("scaled", {"stem.0": 6, "weight": 5, "point": 7}),
        ("volume", {"deep": 4, "line": 5}),
    ],
)
def test_groups_of_the_toy_networks(name: str, expected: dict[str, int]) -> None:
    factory, example = NETS[name]
    assert widths(factory().double(), example) == expected


def test_every_toy_network_is_covered() -> None:
    marks = test_groups_of_the_toy_networks.pytestmark  # pyright: ignore[reportFunctionMemberAccess]
    assert {case[0] for case in marks[0].args[1]} == set(NETS)


def test_a_residual_stream_has_several_producers() -> None:
    graph = trace(Residual(), images().float())
    stem, second = graph.group("stem.0"), graph.group("b2.0")
    assert stem.producers == ("stem.0", "a2.0")
    assert stem.coupled
    assert second.producers == ("b2.0", "project.0")
    assert not graph.group("a1.0").coupled


def test_axes_say_who_makes_reads_and_accompanies_channels() -> None:
    graph = trace(Residual(), images().float())
    assert {a.tensor for a in graph.axes_of("a1.0", "out")} == {"a1.0.weight"}
    assert {(a.tensor, a.dim) for a in graph.axes_of("a1.0", "in")} == {("a2.0.weight", 1)}
    batch_norm = {f"a1.1.{n}" for n in ("weight", "bias", "running_mean", "running_var")}
    assert {a.tensor for a in graph.axes_of("a1.0", "along")} == batch_norm


def test_a_flatten_gives_every_channel_as_many_inputs_as_it_has_pixels() -> None:
    graph = trace(Flattened(), images().float())
    (reader,) = graph.axes_of("features.2", "in")
    start = graph.offsets[graph.index["features.2"]]
    assert (reader.tensor, reader.dim) == ("classifier.0.weight", 1)
    assert reader.where.tolist() == [start + c for c in range(5) for _ in range(16)]


def test_fixed_positions_of_an_axis_are_minus_one() -> None:
    graph = trace(Concatenated(), images().float())
    (reader,) = (a for a in graph.axes_of("a.0", "in") if a.tensor == "b.0.weight")
    assert reader.where.tolist() == [-1, -1, -1, 0, 1, 2, 3]  # the image's three channels come first


def test_the_halves_of_a_sum_with_a_concatenation_are_two_groups() -> None:
    graph = trace(ConcatenatedSum(), images().float())
    assert graph.group("a.0").producers == ("a.0", "c.0")
    assert graph.group("b.0").producers == ("b.0", "c.0")
    assert [a.where.tolist() for a in graph.axes if a.tensor == "c.0.weight" and a.dim == 0] == [[0, 1, 2, 3, 4, 5, 6]]


def test_channels_that_are_added_to_fixed_ones_are_a_pinned_group_of_their_own() -> None:
    graph = trace(PaddedShortcut(), images().float())
    stem, outer = graph.group("stem.0"), graph.group("body.0")
    assert (stem.size, stem.producers, stem.pinned) == (4, ("stem.0", "body.0"), "")
    assert (outer.size, outer.producers, outer.pinned) == (4, ("body.0",), "add with fixed channels")
    assert next(a.where.tolist() for a in graph.axes if a.tensor == "body.0.weight") == [4, 5, 0, 1, 2, 3, 6, 7]


def test_axes_hold_every_group_evenly() -> None:
    for factory, example in NETS.values():
        graph = trace(factory().double(), example)
        for axis in graph.axes:
            counts = torch.bincount(torch.from_numpy(axis.where[axis.where >= 0]), minlength=int(graph.offsets[-1]))
            per_group = counts.split(graph.sizes.tolist())
            assert all(len(set(c.tolist())) == 1 for c in per_group)


def test_one_channel_cannot_shrink() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1, groups=6), nn.Conv2d(6, 2, 1, groups=2), nn.Conv2d(2, 4, 1)
    )
    graph = trace(model, images().float())
    assert graph.group("2").pinned == "a grouped convolution with one output per group in '2'"
    assert "3" in graph.index
    with pytest.raises(UnknownNameError, match="unknown group '4'"):
        graph.group("4")


# ── what was computed ──


def test_layers_count_positions_of_one_example() -> None:
    graph = trace(Plain(), images(batch=4).float())
    assert graph.layers == (
        Layer("first.0", "first.0.weight", "conv", 64, Geometry((8, 8), (3, 3), (1, 1), (1, 1), (1, 1))),
        Layer("second", "second.weight", "conv", 36, Geometry((8, 8), (3, 3), (1, 1), (0, 0), (1, 1))),
        Layer("head.fc", "head.fc.weight", "linear", 1),
    )
    assert graph.products == ()


def test_features_scaled_by_a_parameter_of_their_shape_are_still_features() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gain, self.b = nn.Linear(6, 4), nn.Parameter(torch.ones(1, 4)), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.gain * self.a(x))

    graph = trace(Scaled(), torch.zeros(1, 6))
    assert not graph.group("a").pinned
    assert graph.layers[-1] == Layer("b", "b.weight", "linear", 1)
    assert [len(a.where) for a in graph.activations] == [1, 4, 2]


def test_activations_live_from_birth_to_last_use() -> None:
    class Straight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu(self.a(x)))

    image, hidden, out = trace(Straight(), images().float()).activations

    def short(a: Activation) -> tuple[int, int, int, int]:
        return len(a.where), a.per_position, a.born, a.dies

    # Steps: 0 convolution, 1 relu (in the same memory), 2 convolution.
    assert [short(image), short(hidden), short(out)] == [(1, 192, 0, 0), (4, 64, 0, 2), (2, 64, 2, 2)]
    assert image.where.tolist() == [-1]


# ── pins by the user ──


def test_pin_keeps_the_groups_of_matching_modules_whole() -> None:
    graph = trace(Residual(), images().float(), pin=("a2*",))
    assert graph.group("stem.0").pinned == "asked for by pin 'a2*'"
    assert not graph.group("a1.0").pinned
    later = graph.pin(["a1.0"], "why not")
    assert later.group("a1.0").pinned == "why not"
    assert later.group("head.fc").pinned == "the model's output"
    assert not graph.group("a1.0").pinned


def test_a_pin_that_matches_nothing_names_what_there_is() -> None:
    with pytest.raises(ModelError, match=r"pin 'stam' matches no module that makes channels; those are stem.0, a2.0"):
        trace(Residual(), images().float(), pin=("stam",))


# ── inputs and outputs ──


@dataclasses.dataclass
class Result:
    logits: Tensor
    seconds: float = 0.0


class Bag:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: [y, {"nothing": None}],
        lambda y: collections.OrderedDict(y=(y,)),
        lambda y: collections.UserDict(y=y),
        Result,
        Bag,
        lambda y: Bag([Result(y)]),  # pyright: ignore[reportArgumentType]
    ],
)
def test_outputs_are_found_in_whatever_holds_them(wrap: Callable[[Tensor], Any]) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out = conv_bn(3, 6), nn.Conv2d(6, 5, 1)

        def forward(self, x: Tensor) -> Any:
            return wrap(self.out(self.body(x)))

    assert widths(Wrapped(), images().float()) == {"body.0": 6}


def test_features_that_are_returned_too_are_pinned() -> None:
    class Both(Plain):
        def forward(self, x: Tensor) -> Any:
            features = self.first(x)
            return features, self.head(self.act(self.second(features)))

    assert widths(Both(), images().float()) == {"second": 8}


def test_a_model_that_returns_no_tensor_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> int:
            return x.shape[0]

    with pytest.raises(ModelError, match=r"cannot trace Silent: no tensor was found in what it returns \(int\)"):
        trace(Silent(), images())


def test_examples_are_a_tensor_positional_or_keyword_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, image: Tensor, depth: Tensor, *, scale: float = 1.0) -> Tensor:
            return self.out(self.a(image) + scale * self.b(depth))

    image, depth = images().float(), images(channels=1).float()
    for example in ((image, depth), [image, depth], {"image": image, "depth": depth, "scale": 2.0}):
        assert widths(Two(), example) == {"a": 4}


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (Plain(), {}, "cannot trace Plain: the example holds no tensor, but is a dict"),
        (
            Plain(),
            images(channels=4).float(),
            r"Plain fails on its example of shape \(2, 4, 8, 8\): RuntimeError: Given",
        ),
        (nn.LazyLinear(3), images().float(), "cannot trace LazyLinear: 'weight' has no shape yet; call the model"),
    ],
)
def test_what_cannot_be_traced_is_said_in_one_line(model: nn.Module, example: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        trace(model, example)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused() -> None:
    scripted = torch.jit.trace(Plain().eval(), images().float())
    with pytest.raises(ModelError, match="it is TorchScript; give the Python model"):
        trace(scripted, images().float())


# ── the model afterwards ──


class Restless(nn.Module):
    """Its forward pass looks at values, writes to a buffer, and keeps attributes, as real code does."""

    def __init__(self, looks: bool) -> None:
        super().__init__()
        self.body, self.head, self.looks = conv_bn(3, 6), Gated(), looks
        self.grid: Tensor | None = None
        self.register_buffer("cache", None)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None:
            self.grid = torch.ones(1, 1, 8, 8, device=x.device)
            self.cache = torch.ones(1, device=x.device)
            self.register_buffer("late", torch.ones(1, device=x.device))
        self.calls += 1
        x = x + 0 * torch.rand(1).item()
        if self.looks and x.sum() < 0:
            x = -x
        return self.head(x * self.grid * self.cache)


@pytest.mark.parametrize("looks", [False, True], ids=["on meta tensors", "on its own tensors"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(looks: bool, fails: bool) -> None:
    model = lived_in(Restless(looks)).float()
    model.train()
    model.head.stem.eval()
    modes = [m.training for m in model.modules()]
    tensors = {n: (t, t._version, t.clone()) for n, t in model.state_dict(keep_vars=True).items()}
    attributes = {n: dict(vars(m)) for n, m in model.named_modules()}
    example = images(channels=4 if fails else 3).float()
    seed = torch.random.get_rng_state()

    if fails:
        with pytest.raises(ModelError):
            trace(model, example)
    else:
        assert "head.stem.0" in trace(model, example).index

    after = model.state_dict(keep_vars=True)
    assert list(after) == list(tensors)
    for name, (tensor, version, value) in tensors.items():
        assert after[name] is tensor
        assert tensor._version == version
        assert torch.equal(tensor, value)
        assert not hasattr(tensor, "_prunit_labels")
    assert [m.training for m in model.modules()] == modes
    assert {n: dict(vars(m)) for n, m in model.named_modules()} == attributes
    assert model.grid is None
    assert model.cache is None
    assert not hasattr(example, "_prunit_labels")
    assert torch.equal(torch.random.get_rng_state(), seed)


def test_values_are_looked_at_only_where_meta_tensors_do_not_do() -> None:
    devices: list[str] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[str] = []
            self.inner = Plain()

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(x.device.type)
            devices.append(x.device.type)
            return self.inner(x)

    model = Counting()
    graph = trace(model, images().float())
    assert devices == ["meta"]
    assert model.seen == []
    assert graph.caches == (("", "seen"),)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision_and_frozen_parameters_are_traced(dtype: torch.dtype) -> None:
    model = Plain().to(dtype).requires_grad_(False)
    graph = trace(model, images(dtype=dtype) if dtype.is_floating_point else images())
    assert widths(Plain(), images().float()) == {g.name: g.size for g in graph.groups if not g.pinned}
    assert graph.tensors["second.weight"].element_bytes == dtype.itemsize


def test_tied_weights_are_known_by_their_first_name() -> None:
    factory, example = NETS["recurrent"]
    graph = trace(factory().double(), example)
    assert "left.weight" in graph.tensors
    assert "right.weight" not in graph.tensors
    assert [layer.weight for layer in graph.layers].count("left.weight") == 2
    assert [layer.module for layer in graph.layers if layer.weight == "left.weight"] == ["left", "right"]
