"""Plain layers are run the short way, all others by PyTorch; both ways find the same."""

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, weight_norm
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from prunit.graph import modules, reading
from prunit.graph.choices import Step
from prunit.graph.findings import Findings
from prunit.graph.records import ChannelGraph
from prunit.graph.tracer import Tracer


class Seen:
    """What a trace has found, and the modules that were run the short way."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.short: set[str] = set()
        self.graph: ChannelGraph


def read(model: nn.Module, example: Any, *, short: bool = True) -> Seen:
    """Trace a model, with the short way or without it."""
    seen = Seen()
    run, reserve, resolve = Tracer.run, Tracer.reserve, reading.resolve

    def noted_run(self: Tracer, *args: Any) -> Any:
        seen.short.add(self.module_path)
        return run(self, *args)

    def noted_resolve(findings: Findings, *args: Any) -> Any:
        seen.steps = findings.steps
        return resolve(findings, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracer, "run", noted_run)
        patch.setattr(Tracer, "reserve", reserve)
        patch.setattr(reading, "resolve", noted_resolve)
        if not short:
            patch.setattr(modules, "untouched", lambda: False)
        seen.graph = reading.trace(model, example)
    return seen


def plain(value: Any) -> Any:
    """Nested records and arrays as what `==` compares."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {key: plain(held) for key, held in value.items()}
    return [plain(held) for held in value] if isinstance(value, list | tuple) else value


def both(model: nn.Module, example: Any) -> set[str]:
    """The modules that are run the short way, after a check that nothing differs where none are."""
    long, short = read(model, example, short=False), read(model, example)
    assert not long.short
    assert [plain(step) for step in short.steps] == [plain(step) for step in long.steps]
    assert plain(short.graph) == plain(long.graph)
    assert all("_call_impl" not in module.__dict__ for module in model.modules())
    return short.short


IMAGE = torch.zeros(2, 8, 10, 12)
ROW, ROWS, SIGNAL = torch.zeros(2, 8), torch.zeros(2, 5, 8), torch.zeros(2, 8, 9)
LAYERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "conv": (lambda: nn.Conv2d(8, 4, 3, 2, padding=1, bias=False), IMAGE),
    "depthwise": (lambda: nn.Conv2d(8, 16, (3, 1), groups=8), IMAGE),
    "grouped": (lambda: nn.Conv2d(8, 6, 3, dilation=2, groups=2), IMAGE),
    "conv1d": (lambda: nn.Conv1d(8, 4, 3), SIGNAL),
    "conv3d": (lambda: nn.Conv3d(8, 4, 3), torch.zeros(1, 8, 4, 4, 4)),
    "batch norm": (lambda: nn.BatchNorm2d(8), IMAGE),
    "batch norm without gain": (lambda: nn.BatchNorm2d(8, affine=False), IMAGE),
    "batch norm of rows": (lambda: nn.BatchNorm1d(8), ROW),
    "batch norm of signals": (lambda: nn.BatchNorm1d(8), SIGNAL),
    "batch norm 3d": (lambda: nn.BatchNorm3d(8), torch.zeros(1, 8, 4, 4, 4)),
    "linear": (lambda: nn.Linear(8, 4), ROW),
    "linear without bias": (lambda: nn.Linear(8, 4, bias=False), ROW),
    "linear of sequences": (lambda: nn.Linear(8, 4), ROWS),
    "linear of sequences without bias": (lambda: nn.Linear(8, 4, bias=False), ROWS),
    "linear of images": (lambda: nn.Linear(12, 4), IMAGE),
    "layer norm": (lambda: nn.LayerNorm(8), ROWS),
    "layer norm of two": (lambda: nn.LayerNorm((10, 12)), IMAGE),
    "layer norm without bias": (lambda: nn.LayerNorm(8, bias=False), ROWS),
    "pooling": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE),
    "pooling of two": (lambda: nn.AdaptiveAvgPool2d((1, 1)), IMAGE),
    "relu": (nn.ReLU, IMAGE),
    "relu_": (lambda: nn.ReLU(inplace=True), IMAGE),
    "relu6": (nn.ReLU6, IMAGE),
    "relu6_": (lambda: nn.ReLU6(inplace=True), IMAGE),
    "silu": (nn.SiLU, IMAGE),
    "silu_": (lambda: nn.SiLU(inplace=True), IMAGE),
    "hardswish": (nn.Hardswish, IMAGE),
    "hardswish_": (lambda: nn.Hardswish(inplace=True), IMAGE),
    "hardsigmoid": (nn.Hardsigmoid, IMAGE),
    "hardsigmoid_": (lambda: nn.Hardsigmoid(inplace=True), IMAGE),
    "mish": (nn.Mish, IMAGE),
    "sigmoid": (nn.Sigmoid, IMAGE),
    "tanh": (nn.Tanh, IMAGE),
    "gelu": (nn.GELU, IMAGE),
}


class Between(nn.Module):
    """A layer that is given a new tensor, which it may write to."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + 1) * 2


@pytest.mark.parametrize("name", LAYERS)
def test_a_plain_layer_runs_the_same_operators(name: str) -> None:
    make, example = LAYERS[name]
    assert both(Between(make()).eval(), example) == {"layer"}


@pytest.mark.parametrize(
    "layer", [nn.Identity(), nn.Dropout(0.5), nn.Dropout(0.5, inplace=True)], ids=["identity", "dropout", "dropout_"]
)
def test_a_layer_that_does_nothing_hands_on_what_it_was_given(layer: nn.Module) -> None:
    both(Between(layer).eval(), IMAGE)


OTHER_WAYS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "padding by name": (lambda: nn.Conv2d(8, 4, 3, padding="same"), IMAGE),
    "padding that reflects": (lambda: nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"), IMAGE),
    "no batch": (lambda: nn.Conv1d(2, 4, 3), ROW),
    "transposed": (lambda: nn.ConvTranspose2d(8, 4, 2), IMAGE),
    "statistics of the batch": (lambda: nn.BatchNorm2d(8, track_running_stats=False), IMAGE),
    "mean of all batches": (lambda: nn.BatchNorm2d(8, momentum=None), IMAGE),
    "a vector": (lambda: nn.Linear(8, 4), torch.zeros(8)),
    "approximate": (lambda: nn.GELU("tanh"), IMAGE),
    "several pixels": (lambda: nn.AdaptiveAvgPool2d(2), IMAGE),
    "one pixel of channels last": (
        lambda: nn.AdaptiveAvgPool2d(1),
        torch.zeros(2, 8, 10, 12).to(memory_format=torch.channels_last),
    ),
}


@pytest.mark.parametrize("name", OTHER_WAYS)
def test_a_layer_used_in_another_way_is_run_by_pytorch(name: str) -> None:
    make, example = OTHER_WAYS[name]
    assert both(Between(make()).eval(), example) == set()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("view", ["first of one", "first", "turned", "one of each"])
def test_rows_that_lie_elsewhere_in_memory_are_multiplied_as_pytorch_does(view: str, bias: bool) -> None:
    class Views(Between):
        def forward(self, x: Tensor) -> Tensor:
            y = {
                "first": x[:, :1],
                "turned": x.transpose(0, 1),
                "first of one": x[:1, :1],
                "one of each": x[:1, :1, ::8],
            }
            return self.layer(y[view])

    layer = nn.Linear(1 if view == "one of each" else 8, 4, bias=bias)
    both(nn.Sequential(nn.Linear(8, 8), Views(layer), nn.Linear(4, 3)).eval(), ROWS)


class Net(nn.Module):
    """A layer in question between two plain ones."""

    def __init__(self, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.layer = layer or nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.first(x)))

    def inner(self, x: Tensor) -> Tensor:
        return self.layer(x)


PICTURE = torch.zeros(1, 3, 8, 8)


class OwnForward(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.relu()) + 1


class OwnConvolution(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight * 2, bias)


def hooked(register: Callable[[nn.Module], object]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        net = Net()
        register(net.layer)
        return net

    return make


def overridden() -> nn.Module:
    net = Net()
    forward = net.layer.forward
    net.layer.forward = lambda x: forward(x) * 2
    return net


def computed_by_hook() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # many models have it still
        return Net(weight_norm(nn.Conv2d(8, 8, 3)))


ODD: dict[str, Callable[[], nn.Module]] = {
    "forward hook": hooked(lambda m: m.register_forward_hook(lambda m, args, out: out * 2)),
    "pre-hook": hooked(lambda m: m.register_forward_pre_hook(lambda m, args: (args[0] + 1,))),
    "backward hook": hooked(lambda m: m.register_full_backward_hook(lambda m, a, b: None)),
    "weight norm": lambda: Net(parametrizations.weight_norm(nn.Conv2d(8, 8, 3))),
    "weight norm by a hook": computed_by_hook,
    "forward of a subclass": lambda: Net(OwnForward(8, 8, 3)),
    "convolution of a subclass": lambda: Net(OwnConvolution(8, 8, 3)),
    "forward of its own": overridden,
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_layer_is_run_by_pytorch_and_those_beside_it_are_not(name: str) -> None:
    assert both(ODD[name]().eval(), PICTURE) == {"first", "last"}


class Functions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return out + 1 if func is F.conv2d or func is torch.conv2d else out


class Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


AROUND: dict[str, Callable[[], Any]] = {
    "inference mode": torch.inference_mode,
    "function mode": Functions,
    "dispatch mode": Operators,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("name", AROUND)
def test_within_a_mode_of_the_model_pytorch_runs_the_layers(name: str) -> None:
    class Around(Net):
        def inner(self, x: Tensor) -> Tensor:
            with AROUND[name]():
                y = self.layer(x)
            return y.clone().to(x.dtype)

    assert both(Around().eval(), PICTURE) == {"first", "last"}


def test_what_is_mapped_over_a_batch_is_run_by_pytorch() -> None:
    class Mapped(Net):
        def inner(self, x: Tensor) -> Tensor:
            return torch.vmap(self.layer)(x[None])[0]

    assert "layer" not in both(Mapped().eval(), PICTURE)


@contextmanager
def hook_for_all() -> Iterator[None]:
    handle = register_module_forward_hook(lambda module, args, out: None)
    try:
        yield
    finally:
        handle.remove()


def test_with_hooks_for_all_modules_pytorch_runs_all_of_them() -> None:
    with hook_for_all():
        assert both(Net().eval(), PICTURE) == set()


@pytest.mark.parametrize("where", ["a function", "a method"])
def test_where_somebody_has_changed_pytorch_it_runs_all_layers(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "a function":
        plain_way = F.conv2d
        monkeypatch.setattr(F, "conv2d", lambda *args: plain_way(*args) + 1)
    else:
        forward = nn.Conv2d.forward
        monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: forward(self, x) * 2)
    assert both(Net().eval(), PICTURE) == set()


def test_a_hook_that_comes_as_the_model_runs_is_called() -> None:
    class Late(Net):
        def inner(self, x: Tensor) -> Tensor:
            handle = self.layer.register_forward_hook(lambda m, args, out: out + x)
            try:
                return self.layer(input=x)
            finally:
                handle.remove()

    assert both(Late().eval(), PICTURE) == {"first", "last"}


def test_copies_of_a_layer_made_as_the_model_runs_count_to_the_module_around_them() -> None:
    class Copied(Net):
        def inner(self, x: Tensor) -> Tensor:
            return pickle.loads(pickle.dumps(nn.ReLU()))(copy.deepcopy(self.layer)(x)) + self.layer(input=x)

    assert both(Copied().eval(), PICTURE) == {"first", "last"}


def test_a_module_that_fails_and_is_forgiven_leaves_the_same_trail() -> None:
    class Forgiving(Net):
        def inner(self, x: Tensor) -> Tensor:
            try:
                return self.layer(x)
            except RuntimeError:
                return x.relu()

    both(Forgiving(nn.Conv2d(99, 8, 1)).eval(), PICTURE)


def test_an_encoder_of_transformers_takes_no_shortcut_of_its_own() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    both(nn.Sequential(nn.Linear(8, 8), layer, nn.Linear(8, 3)).eval(), ROWS)


def test_both_ways_agree_on_a_network_that_is_read_in_training_mode_too() -> None:
    class Moody(Net):
        def inner(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return y + x if self.training else y

    both(Moody(nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())).train(), PICTURE)
