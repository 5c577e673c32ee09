"""How surgery cuts tensors and copies modules: right values, little memory, and nothing shared that should not be."""

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunit.cut import surgery
from prunit.cut.plans import Plan, keep_all
from prunit.cut.surgery import compact, cut_tensors, rebuild
from prunit.graph import ChannelGraph, trace
from tests.nets import NETS, Flattened, Head, Plain, Residual, conv_bn, images, lived_in, random_plan


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, tied ones by their first name."""
    return {n: t.detach() for n, t in (*model.named_parameters(), *model.named_buffers())}


# ── tensors ──


def expected(graph: ChannelGraph, plan: Plan, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The cut by boolean indexing, one dimension after the other."""
    keep, found = graph.flat_keep(plan.keep), dict(tensors)
    for axis in graph.axes:
        if axis.tensor in found:
            stays = torch.from_numpy(keep[axis.where])
            found[axis.tensor] = found[axis.tensor].movedim(axis.dim, 0)[stays].movedim(0, axis.dim)
    return found


@pytest.mark.parametrize("name", ["residual", "flattened", "grouped", "multiplier", "unet", "recurrent"])
@pytest.mark.parametrize("step_bytes", [1, 300, 1 << 20])
@pytest.mark.parametrize("layout", ["plain", "channels_last", "transposed", "strided"])
def test_every_layout_in_memory_is_cut_alike(
    name: str, step_bytes: int, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surgery, "_STEP_BYTES", step_bytes)
    factory, example = NETS[name]
    model = lived_in(factory())
    graph = trace(model, example)
    plan = random_plan(graph, seed=1)
    wanted = expected(graph, plan, {n: t.clone() for n, t in tensors_of(model).items()})
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if layout == "channels_last" and tensor.ndim == 4:
                tensor.set_(tensor.contiguous(memory_format=torch.channels_last))  # pyright: ignore[reportArgumentType]
            elif layout == "transposed" and tensor.ndim > 1:
                tensor.set_(tensor.transpose(0, 1).contiguous().transpose(0, 1))  # pyright: ignore[reportArgumentType]
            elif layout == "strided" and tensor.ndim:
                tensor.set_(tensor.repeat_interleave(2, -1)[..., ::2])  # pyright: ignore[reportArgumentType]
    dense, found = tensors_of(model), tensors_of(compact(model, graph, plan))
    assert found.keys() == wanted.keys()
    for key, tensor in found.items():
        assert torch.equal(tensor, wanted[key])
        if layout == "channels_last" and tensor.ndim == 4:
            assert tensor.is_contiguous(memory_format=torch.channels_last)
        elif tensor.shape != dense[key].shape:
            assert tensor.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float16, torch.float64])
def test_tensors_of_any_kind_can_be_cut(dtype: torch.dtype) -> None:
    graph = trace(lived_in(Residual()), images())
    plan = random_plan(graph)
    weights = {n: torch.randint(0, 2, info.shape).to(dtype) for n, info in graph.tensors.items() if "weight" in n}
    found = cut_tensors(graph, graph.flat_keep(plan.keep), weights)
    wanted = expected(graph, plan, weights)
    assert found.keys() == wanted.keys()
    assert all(found[n].dtype == dtype and torch.equal(found[n], wanted[n]) for n in wanted)


def test_meta_tensors_are_cut_to_the_same_shapes() -> None:
    model = lived_in(Flattened())
    graph = trace(model, images())
    keep = graph.flat_keep(random_plan(graph).keep)
    named = dict(model.named_parameters())
    real = cut_tensors(graph, keep, named)
    meta = cut_tensors(graph, keep, {n: torch.empty_like(t, device="meta") for n, t in named.items()})
    assert all(t.is_meta for t in meta.values())
    assert {n: t.shape for n, t in meta.items()} == {n: t.shape for n, t in real.items()}


class Sizes(TorchDispatchMode):
    """Bytes of every tensor that an operator makes."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        own = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for t in tree_leaves(found):
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in own:
                self.made.append(t.nbytes)
        return found


def test_no_step_between_is_large() -> None:
    model = nn.Sequential(nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, 4))
    graph = trace(model, torch.zeros(1, 64))
    plan = Plan({"0": tuple(range(1, 2048, 2)), "2": tuple(range(900))}, keep_all(graph).dense)
    with Sizes() as sizes:
        small = compact(model, graph, plan)
    results = sorted((t.nbytes for t in small.parameters()), reverse=True)
    assert results[0] == 900 * 1024 * 4
    made = sorted(sizes.made, reverse=True)
    assert made[0] == results[0]
    assert made[1] <= 1 << 20  # the dense weight has 8 MiB


# ── modules ──


def test_what_layers_share_is_shared_in_the_copy_but_not_with_the_model() -> None:
    model = nn.Sequential(conv_bn(3, 6), conv_bn(6, 4), Head(4))
    cache, log, options = {}, [], OrderedDict(first=1)
    for layer in model:
        layer.cache, layer.log, layer.options = cache, log, options  # pyright: ignore[reportAttributeAccessIssue]
    graph = trace(lived_in(model), images())
    small: Any = compact(model, graph, random_plan(graph))
    for name in ("cache", "log", "options"):
        one, two, old = getattr(small[0], name), getattr(small[1], name), getattr(model[0], name)
        assert one is two
        assert one is not old
        assert one == old
        assert type(one) is type(old)


def test_hooks_and_modes_of_the_copy_are_its_own() -> None:
    model = Plain()
    model.second.register_forward_hook(lambda module, args, out: out * 2)
    graph = trace(lived_in(model), images())
    small: Any = compact(model, graph, random_plan(graph))
    assert len(small.second._forward_hooks) == 1
    small.second.register_forward_hook(lambda module, args, out: out * 3)
    small.head.register_forward_hook(lambda module, args, out: out * 3)
    small.head.eval()
    assert len(model.second._forward_hooks) == 1
    assert len(model.head._forward_hooks) == 0
    assert model.head.training


class Counting(nn.Conv2d):
    """Says itself what of it is copied."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.copied = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "copied": self.copied + 1}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.width = self.weight.shape[0]


class Hidden(nn.Sequential):
    """Keeps something to itself when it is copied."""

    secret: object = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Hidden":
        memo[id(self)] = new = Hidden(*(copy.deepcopy(part, memo) for part in self))
        return new


class Parent(nn.Sequential):
    """Looks at its children when it is given its state, and knows one that is not in its list."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.first_width = self[0].weight.shape[0]  # pyright: ignore[reportAttributeAccessIssue]


def test_layers_that_say_how_they_are_copied_are_asked() -> None:
    model = nn.Sequential(Counting(3, 6, 3), Hidden(nn.Conv2d(6, 5, 1), nn.ReLU()), Parent(nn.Conv2d(5, 4, 1)))
    graph = trace(lived_in(model), images())
    model[1].secret = object()
    small: Any = compact(model, graph, Plan({"0": (1, 2), "1.0": (0, 3, 4)}, keep_all(graph).dense))
    assert type(small[0]) is Counting
    assert (small[0].copied, model[0].copied) == (1, 0)
    assert small[0].width == 2
    assert type(small[1]) is Hidden
    assert small[1].secret is None
    assert small[1][0].weight.shape == (3, 2, 1, 1)
    assert small[2].first_width == 4


def test_a_copy_holds_what_deepcopy_would_copy() -> None:
    for factory, _ in NETS.values():
        model = lived_in(factory())
        wanted, found = copy.deepcopy(model), rebuild(model, {n: t.clone() for n, t in tensors_of(model).items()})
        for a, b in zip(wanted.modules(), found.modules(), strict=True):
            assert type(a) is type(b)
            assert list(vars(a)) == list(vars(b))
            for name, value in vars(a).items():
                assert type(value) is type(vars(b)[name])
                if isinstance(value, bool | int | float | str | tuple | set | type(None)):
                    assert value == vars(b)[name]


def test_a_layer_that_knows_its_parent_is_copied_once() -> None:
    model = nn.Sequential(conv_bn(3, 6), Head(6))
    graph = trace(lived_in(model), images())
    model[0].__dict__["parent"] = model
    small: Any = compact(model, graph, random_plan(graph))
    assert small[0].parent is small
    assert len(list(small.modules())) == len(list(model.modules()))


def test_tensors_that_a_module_keeps_are_copied() -> None:
    model = nn.Sequential(conv_bn(3, 6), nn.ReLU())
    graph = trace(lived_in(model), images())
    model[1].kept, model[1].by_name = torch.ones(2), {"grid": torch.ones(2, 3)}  # pyright: ignore[reportArgumentType]
    small: Any = compact(model, graph, random_plan(graph))
    assert small[1].kept.equal(torch.ones(2))
    assert small[1].kept is not model[1].kept
    assert small[1].by_name["grid"].equal(torch.ones(2, 3))
    assert small[1].by_name["grid"] is not model[1].by_name["grid"]
