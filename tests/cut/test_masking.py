"""A masked model whose channels are mixed, however it is called: it computes and learns what the compact one does."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from prunit.cut.plans import Plan, from_zeros
from prunit.cut.surgery import compact, cut_tensors, mask, mask_
from prunit.errors import SurgeryError
from prunit.graph import ChannelGraph, trace
from tests.graph.reading import free
from tests.nets import Plain, conv_bn, furthest, images, lived_in, random_plan


class Normed(nn.Module):
    """A layer norm in a residual block, a batch norm, and a softmax over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.body, self.out = conv_bn(3, 8), nn.LayerNorm(8), conv_bn(8, 9), nn.Conv2d(9, 4, 1)

    def block(self, x: Tensor) -> Tensor:
        return x + self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(self.block(self.stem(x))).softmax(1))


def cut(model: nn.Module, *, training: bool = False) -> tuple[nn.Module, nn.Module, ChannelGraph, Plan]:
    """The compact and the masked model of a plan that cuts every free group."""
    lived_in(model)
    graph = trace(model, images())
    plan = random_plan(graph, seed=1)
    assert {g.name for g in graph.groups if g.mixed and plan.widths[g.name] < g.size} == {"stem.0", "body.0"}
    return compact(model, graph, plan).train(training), mask(model, graph, plan).train(training), graph, plan


@pytest.mark.parametrize("training", [False, True])
def test_other_batches_and_image_sizes(training: bool) -> None:
    small, twin, *_ = cut(Normed(), training=training)
    for batch, size in ((2, 8), (5, 8), (1, 8), (2, 11), (3, 16), (2, 8)):
        assert furthest(twin, small, images(batch=batch, size=size)) < 1e-12


def test_other_modes_of_the_model_and_of_its_parts() -> None:
    small, twin, *_ = cut(Normed())
    for training in (True, False, True):
        assert furthest(twin.train(training), small.train(training), images()) < 1e-12
    for net in (small, twin):  # a frozen batch norm
        net.train().get_submodule("stem").eval()
    assert furthest(twin, small, images()) < 1e-12


def test_other_precisions() -> None:
    small, twin, *_ = cut(Normed())
    assert furthest(twin.float(), small.float(), images().float()) < 1e-5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert furthest(twin, small, images().float()) < 1e-2


def test_with_and_without_gradients() -> None:
    small, twin, *_ = cut(Normed())
    for mode in (torch.enable_grad, torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            out, expected = twin(images()), small(images())
        assert (out - expected).abs().max() < 1e-12
        assert out.requires_grad == expected.requires_grad


def test_inference_mode_first() -> None:
    small, twin, graph, plan = cut(Normed())
    with torch.inference_mode():
        assert (twin(images()) - small(images())).abs().max() < 1e-12
    assert same_gradients(small, twin, graph, plan)


def test_tracing_in_inference_mode() -> None:
    model = lived_in(Normed())
    with torch.inference_mode():
        inside = trace(model, images())
    assert inside.groups == trace(model, images()).groups


@pytest.mark.parametrize("far", [lambda x: False, lambda x: bool(x.sum() > 1e9)], ids=["on meta tensors", "on its own"])
def test_a_model_and_an_example_made_in_inference_mode(far: Callable[[Tensor], bool]) -> None:
    expected = trace(lived_in(Branching(far)), images())
    with torch.inference_mode():
        model, x = lived_in(Branching(far)), images()
    graph = trace(model, x)
    assert graph.groups == expected.groups
    plan = random_plan(graph, seed=1)
    with torch.inference_mode():
        small, twin = compact(model, graph, plan), mask(model, graph, plan)
        assert furthest(twin, small, x) < 1e-12


def test_gradients_of_gradients() -> None:
    small, twin, *_ = cut(Normed())
    found = []
    for net in (small, twin):
        x = images().requires_grad_()
        (first,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        found.append((first.detach(), second))
    assert all((a - b).abs().max() < 1e-12 * (1 + a.abs().max()) for a, b in zip(*found, strict=True))


def step(net: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    net(images()).square().mean().backward()
    optimiser.step()


def test_it_trains_like_the_compact_one() -> None:
    small, twin, graph, plan = cut(Normed(), training=True)
    keep = graph.flat_keep(plan.keep)
    optimisers = [torch.optim.AdamW(net.parameters(), lr=1e-2) for net in (small, twin)]
    for _ in range(3):
        for net, optimiser in zip((small, twin), optimisers, strict=True):
            step(net, optimiser)
        mask_(twin, graph, plan)
        assert furthest(twin, small, images()) < 1e-9
    masked = cut_tensors(graph, keep, dict(twin.named_parameters()))
    assert all((masked[n] - p).abs().max() < 1e-9 for n, p in small.named_parameters())


def test_a_step_without_masking_again_is_noticed() -> None:
    small, twin, graph, plan = cut(Normed(), training=True)
    for net in (small, twin):
        step(net, torch.optim.SGD(net.parameters(), lr=1.0))
    assert furthest(twin, small, images()) > 1e-6
    mask_(twin, graph, plan)
    assert furthest(twin, small, images()) < 1e-12


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("called", [False, True])
def test_a_copy_is_masked_alike_and_its_own(copied: Callable[[nn.Module], nn.Module], called: bool) -> None:
    small, twin, *_ = cut(Normed())
    if called:
        twin(images())
    other = copied(twin)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1)
    assert furthest(other, small, images()) < 1e-12
    assert furthest(other, small, images(batch=3)) < 1e-12


def test_it_is_a_part_of_another_model_as_well() -> None:
    small, twin, *_ = cut(Normed())
    more = nn.Sequential(nn.Identity(), nn.Softmax(1)).double()
    assert furthest(nn.Sequential(*more, twin, *more), nn.Sequential(*more, small, *more), images()) < 1e-12
    both = [nn.ModuleDict({"a": net}) for net in (small, twin)]
    assert [list(net.state_dict()) for net in both] == [list(both[0].state_dict())] * 2


def test_functional_calls_with_other_weights() -> None:
    small, twin, graph, plan = cut(Normed())
    doubled = {n: 2 * p.detach() for n, p in twin.named_parameters()}
    halved = cut_tensors(graph, graph.flat_keep(plan.keep), doubled)
    out = torch.func.functional_call(twin, doubled, (images(),))
    assert (out - torch.func.functional_call(small, halved, (images(),))).abs().max() < 1e-12


def test_a_failed_call_leaves_no_trace() -> None:
    small, twin, *_ = cut(Normed())
    for wrong in (images(channels=4), images().float()):
        with pytest.raises(RuntimeError):
            twin(wrong)
    handle = twin.get_submodule("body").register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        twin(images())
    handle.remove()
    assert furthest(twin, small, images()) < 1e-12
    assert torch.ones(2, 8).softmax(1).sum() == 2  # no mode is left behind


def test_statistics_of_a_batch_norm_move_once_for_each_call() -> None:
    small, twin, *_ = cut(Normed(), training=True)
    for net in (small, twin):
        net(images())
    assert (
        int(twin.get_buffer("stem.1.num_batches_tracked")) == int(small.get_buffer("stem.1.num_batches_tracked")) == 1
    )
    assert furthest(twin.eval(), small.eval(), images()) < 1e-12


def test_a_mixed_group_is_not_read_off_zeros() -> None:
    """A channel that no weight reads still counts in the norm."""
    _, twin, graph, plan = cut(Normed())
    found = from_zeros(twin, graph)
    assert {g.name: found.widths[g.name] for g in graph.groups} == {g.name: g.size for g in graph.groups}
    assert plan.widths["stem.0"] < 8


def test_no_hooks_where_nothing_is_mixed() -> None:
    model = lived_in(Plain())
    graph = trace(model, images())
    assert not mask(model, graph, random_plan(graph))._forward_pre_hooks
    normed = lived_in(Normed())
    graph = trace(normed, images())
    assert not mask(normed, graph, Plan({}, {g.name: g.size for g in graph.groups}))._forward_pre_hooks


# ── forward passes that take another way ──


class Branching(Normed):
    """Twice as far where `far(x)` says so, which the first call does not."""

    def __init__(self, far: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.far = far

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(self.stem(x))
        y = y.relu() if self.far(x) else y
        return self.out(self.body(y).softmax(1))


def test_a_way_that_depends_on_values_has_no_mask() -> None:
    """Not on those of tensors, which `trace` looks for: on anything else."""
    far: list[bool] = []
    small, twin, *_ = cut(Branching(lambda x: bool(far)))
    assert furthest(twin, small, images()) < 1e-12
    far.append(True)
    with pytest.raises(SurgeryError, match=r"calls relu where it called .* before: its forward depends on val"):
        twin(images())
    far.clear()
    assert furthest(twin, small, images()) < 1e-12


def test_where_the_values_of_tensors_decide_mixed_channels_stay() -> None:
    model = lived_in(Branching(lambda x: bool(x.sum() > 1e9)))
    graph = trace(model, images())
    assert free(graph) == {}
    assert graph.group("stem.0").pinned == "statistics over channels (native_layer_norm) in 'norm'"
    assert graph.notes[-1].startswith("the forward pass looks at values")


class Optional(Normed):
    """With one more step where that is asked for."""

    def forward(self, x: Tensor, more: Any = False, **others: Any) -> Tensor:
        y = self.block(self.stem(x))
        return self.out(self.body(y.relu() if more else y).softmax(1))


def test_an_option_that_is_no_tensor() -> None:
    small, twin, *_ = cut(Optional())
    for more in (False, True, False):
        assert (twin(images(), more=more) - small(images(), more=more)).abs().max() < 1e-12


def test_options_of_other_kinds() -> None:
    """Nested, by other names, and functions (which nothing can pickle) are told apart; a copy finds them anew."""
    small, twin, *_ = cut(Optional())
    kinds: list[dict[str, Any]] = [{"more": [1]}, {"more": []}, {"more": lambda: 0}, {"other": 1}, {"more": 1}]
    for model in (twin, pickle.loads(pickle.dumps(twin))):
        for options in (*kinds, *kinds):
            assert (model(images(), **options) - small(images(), **options)).abs().max() < 1e-12
    pickle.dumps(twin)


def test_what_cannot_be_told_apart_is_refused() -> None:
    small, twin, *_ = cut(Optional())
    assert (twin(images(), more=bytearray(1)) - small(images(), more=bytearray(1))).abs().max() < 1e-12
    with pytest.raises(SurgeryError, match="calls conv2d where it called relu before"):
        twin(images(), more=bytearray())


def test_not_all_that_was_ever_asked_for_is_kept() -> None:
    small, twin, *_ = cut(Optional())
    for more in range(40):
        assert (twin(images(), more=more) - small(images(), more=more)).abs().max() < 1e-12
    (hook,) = twin._forward_pre_hooks.values()
    assert len(hook.__self__._calls) == 32


def test_a_hook_that_looks_at_a_shape() -> None:
    small, twin, *_ = cut(Normed())
    twin(images())
    seen: list[torch.Size] = []
    twin.get_submodule("body").register_forward_hook(lambda module, args, out: seen.append(out.shape))
    assert furthest(twin, small, images()) < 1e-12
    assert seen == [(2, 9, 8, 8)]


def test_hooks_that_come_and_go_and_ask_for_more() -> None:
    small, twin, *_ = cut(Normed())

    def ask(module: nn.Module, args: Any, out: Tensor) -> None:
        asked.append((out.size(), out.dim(), len(out), out.dtype, out.device, out.requires_grad, out.is_contiguous()))
        asked.append((out.numel(), out.stride(), out.grad_fn, out.is_floating_point(), out.storage_offset()))

    asked: list[Any] = []
    for _ in range(2):
        handles = [twin.get_submodule(name).register_forward_hook(ask) for name in ("stem", "norm", "body.0")]
        assert furthest(twin, small, images()) < 1e-12
        assert asked
        asked.clear()
        for handle in handles:
            handle.remove()
        assert furthest(twin, small, images()) < 1e-12
        assert not asked
        twin(images(batch=4))


def test_a_step_that_fails_and_is_tried_otherwise() -> None:
    class Trying(Normed):
        def block(self, x: Tensor) -> Tensor:
            try:
                x = x.squeeze(4)
            except IndexError:
                x = x.squeeze(3)
            return super().block(x)

    small, twin, *_ = cut(Trying())
    assert furthest(twin, small, images()) < 1e-12


class Checkpointed(Normed):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        y = checkpoint(self.block, self.stem(x), use_reentrant=self.reentrant)
        return self.out(self.body(y).softmax(1))


def same_gradients(small: nn.Module, twin: nn.Module, graph: ChannelGraph, plan: Plan, call: Any = None) -> bool:
    for net in (small, twin):
        (call(net, images()) if call else net(images())).square().sum().backward()
    found = {n: p.grad for n, p in twin.named_parameters() if p.grad is not None}
    cut_grads = cut_tensors(graph, graph.flat_keep(plan.keep), found)
    grads = {n: p.grad for n, p in small.named_parameters() if p.grad is not None}
    return found.keys() == grads.keys() and all(torch.allclose(cut_grads[n], grad) for n, grad in grads.items())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
def test_parts_that_are_computed_again(reentrant: bool) -> None:
    """They would be outside of the model's hooks, in its backward pass: no gradients rather than wrong ones."""
    small, twin, *_ = cut(Checkpointed(reentrant), training=True)
    assert furthest(twin, small, images()) < 1e-12
    with pytest.raises(SurgeryError, match=r"calls layer_norm in a checkpointed part .* turn checkpointing off"):
        twin(images())
    assert furthest(twin, small, images()) < 1e-12


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
def test_parts_that_are_computed_again_and_mix_nothing(reentrant: bool) -> None:
    class Elsewhere(Checkpointed):
        def forward(self, x: Tensor) -> Tensor:
            y = checkpoint(self.body, self.block(self.stem(x)), use_reentrant=self.reentrant)
            return self.out(y.softmax(1))

    assert same_gradients(*cut(Elsewhere(reentrant), training=True))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_masked_model_that_is_computed_again_as_a_whole(reentrant: bool) -> None:
    def again(net: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(net, x.requires_grad_(), use_reentrant=reentrant)

    assert same_gradients(*cut(Normed(), training=True), again)


class Centred(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad - grad.mean(1, keepdim=True)


def test_a_backward_pass_that_is_written_out() -> None:
    class Written(Normed):
        def block(self, x: Tensor) -> Tensor:
            return Centred.apply(x)

    small, twin, *_ = cut(Written())
    assert furthest(twin, small, images()) < 1e-12
    with pytest.raises(SurgeryError, match=r"calls mean in a .* torch.autograd.Function, whose backward pass would"):
        twin(images())
