"""What cannot be traced is refused in one line, and what looks odd but can be is not; the model stays as it was."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from prunit.cut.surgery import compact, mask
from prunit.errors import ModelError
from prunit.graph import trace
from tests.nets import Plain, conv_bn, furthest, images, lived_in, random_plan


def with_weight(change: Callable[[Tensor], Tensor]) -> nn.Module:
    """A network whose second weight is another kind of tensor."""
    model = Plain()
    model.second.weight = nn.Parameter(change(model.second.weight.detach()), requires_grad=False)
    return model


def quantised() -> nn.Module:
    from torch.ao.nn.quantized.dynamic import Linear

    model = Plain()
    model.head.fc = Linear(8, 5)
    return model


class Sharded(nn.Identity):
    """Stands for a layer that FSDP holds."""

    __module__ = "torch.distributed.fsdp.somewhere"


class Packed(Tensor):
    """Stands for torchao's tensors."""

    __module__ = "torchao.dtypes"


def sharded() -> nn.Module:
    return Plain(Sharded())


def nested_script() -> nn.Module:
    model = Plain()
    model.act = torch.jit.script(nn.ReLU())
    return model


def lazy() -> nn.Module:
    model = Plain()
    model.head.fc = nn.LazyLinear(5)
    return model


X = images().float()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "example", "message"),
    [
        (lambda: Plain, X, r"cannot trace type: it is the class Plain: give an instance of it"),
        (
            lambda: Plain().state_dict(),
            X,
            r"cannot trace OrderedDict: it is no nn.Module; give the Python model itself",
        ),
        (lambda: Plain().forward, X, r"cannot trace method: it is no nn.Module"),
        (nested_script, X, r"cannot trace Plain: 'act' is TorchScript; give the Python model"),
        (lazy, X, r"'head.fc.weight' has no shape yet; call the model on a batch first"),
        (quantised, X, r"'head.fc' is quantised \(Linear\): prune the float model, then quantise the compact one"),
        (sharded, X, r"'act' is sharded over several devices \(Sharded\): prune the model before that"),
        (
            lambda: with_weight(lambda w: w.as_subclass(Packed)),
            X,
            r"'second.weight' is quantised: prune the float model, then quantise the compact one",
        ),
        (
            lambda: with_weight(Tensor.to_sparse),
            X,
            r"'second.weight' is stored sparse \(sparse_coo\): store it with its zeros \(to_dense\)",
        ),
        (
            lambda: with_weight(lambda w: w.flatten(1).to_sparse_csr()),
            X,
            r"'second.weight' is stored sparse \(sparse_csr\)",
        ),
        (
            lambda: with_weight(lambda w: w.to(torch.complex64)),
            X,
            r"'second.weight' holds torch.complex64, complex numbers: keep their real and imaginary parts",
        ),
        (Plain, X.to(torch.complex64), r"the example holds torch.complex64, complex numbers: give their real"),
        (
            Plain,
            X[:0],
            r"the example holds a tensor of shape \(0, 3, 8, 8\), which is empty: give a batch of at least one",
        ),
        (Plain, X[..., :0], r"a tensor of shape \(2, 3, 8, 0\), which is empty"),
        (Plain, (), r"the example holds no tensor, but is a tuple"),
        (Plain, X[:, :2], r"Plain fails on its example of shape \(2, 2, 8, 8\): RuntimeError: Given"),
        (Plain, (X, X), r"Plain fails on its example of shape \(2, 3, 8, 8\), \(2, 3, 8, 8\): TypeError"),
        (Plain, X[..., :2, :2], r"Plain fails on its example of shape \(2, 3, 2, 2\): RuntimeError: Calculated padded"),
    ],
)
def test_what_cannot_be_traced_is_named_and_left_as_it_was(make: Callable[[], Any], example: Any, message: str) -> None:
    model = make()
    before, seed = state_of(model), torch.random.get_rng_state()
    with pytest.raises(ModelError, match=message) as caught:
        trace(model, example)
    assert "\n" not in str(caught.value)
    assert state_of(model) == before
    assert torch.equal(torch.random.get_rng_state(), seed)


def state_of(model: Any) -> Any:
    """Identity and version of every tensor, every mode, and the number of hooks."""
    if not isinstance(model, nn.Module):
        return None
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")
    tensors = [*model.named_parameters(), *model.named_buffers()]
    everywhere = nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks
    return (
        [(name, id(t), type(t)) for name, t in tensors],
        [(m.training, sorted(vars(m)), [len(getattr(m, h)) for h in hooks]) for m in model.modules()],
        [len(hooks) for hooks in everywhere],
    )


class FailsLate(nn.Module):
    """Writes to its buffer, draws a number, and then fails on any but square images."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Plain()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.inner(x + torch.rand(()))
        raise RuntimeError(f"no such thing as {x.shape}")


def test_a_model_that_fails_half_way_is_left_as_it_was() -> None:
    model = lived_in(FailsLate()).train()
    handle = model.inner.register_forward_hook(lambda *_: None)
    values = {n: (t, t._version, t.clone()) for n, t in model.state_dict(keep_vars=True).items()}
    before, seed = state_of(model), torch.random.get_rng_state()
    with pytest.raises(ModelError, match=r"FailsLate fails on its example of shape \(2, 3, 8, 8\): .*no such thing"):
        trace(model, images())
    assert state_of(model) == before
    assert torch.equal(torch.random.get_rng_state(), seed)
    for name, (tensor, version, value) in values.items():
        now = model.state_dict(keep_vars=True)[name]
        assert now is tensor
        assert now._version == version
        assert torch.equal(now, value)
    handle.remove()


# ── what looks odd, but can be traced ──


def test_frozen_parameters_make_no_difference() -> None:
    free, frozen = lived_in(Plain()), lived_in(Plain()).requires_grad_(False)
    graph, other = trace(free, images()), trace(frozen, images())
    assert graph.groups == other.groups
    assert [(a.tensor, a.dim, a.role, a.where.tolist()) for a in graph.axes] == [
        (a.tensor, a.dim, a.role, a.where.tolist()) for a in other.axes
    ]
    plan = random_plan(graph)
    small = compact(frozen, other, plan)
    assert not any(p.requires_grad for p in small.parameters())
    assert furthest(small.eval(), compact(free, graph, plan).eval(), images()) == 0


def test_a_float_model_that_is_prepared_for_quantisation_is_traced() -> None:
    class Prepared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.last = conv_bn(3, 6), nn.Conv2d(6, 4, 1)
            self.sum = torch.ao.nn.quantized.FloatFunctional()

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(x)
            return self.last(self.sum.add(x, x.sigmoid()))

    model = lived_in(Prepared())
    graph = trace(model, images())
    plan = random_plan(graph)
    assert not graph.group("body.0").pinned
    assert furthest(compact(model, graph, plan).eval(), mask(model, graph, plan).eval(), images()) < 1e-13


class OnViews(nn.Module):
    """Works in place on views of its features: on all of them, on a slice of space, on every other pixel, turned."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = conv_bn(3, 6), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x.view(x.shape[0], x.shape[1], -1).mul_(2)
        x[:, :, 1:3].add_(1)
        x[:, :, ::2, ::2].zero_()
        x.transpose(2, 3).clamp_(max=3)
        return self.last(x)


def test_work_in_place_on_views_is_followed() -> None:
    model = lived_in(OnViews())
    graph = trace(model, images())
    assert not graph.group("body.0").pinned
    plan = random_plan(graph)
    small = compact(model, graph, plan)
    assert furthest(small.eval(), mask(model, graph, plan).eval(), images()) < 1e-13
    assert furthest(small, model.eval(), images()) > 1e-3


class Branching(nn.Module):
    """Looks at a value of its features to decide."""

    devices: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Sequential(conv_bn(3, 6), conv_bn(6, 6)), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        self.devices.add(x.device.type)
        return self.last(x if x.sum() > -1e9 else -x)


def test_a_branch_on_values_is_traced_on_real_tensors() -> None:
    model = lived_in(Branching())
    graph = trace(model, images())
    assert "cpu" in model.devices
    assert any("looks at values" in note for note in graph.notes)
    assert not graph.group("body.0.0").pinned
    plan = random_plan(graph)
    assert furthest(compact(model, graph, plan).eval(), mask(model, graph, plan).eval(), images()) < 1e-13
