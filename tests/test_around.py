"""What people do around a cut: compile, export, copy, mix precisions, move, wrap for several devices."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import prunit
from prunit.cut.plans import Plan
from prunit.cut.surgery import compact, mask
from prunit.graph import ChannelGraph, trace
from tests.nets import Inverted, Plain, Residual, furthest, images, lived_in, random_plan

X, Y = images(batch=4).float(), torch.tensor([0, 1, 2, 3])


def cut(model: nn.Module, x: Tensor = X) -> tuple[nn.Module, nn.Module, ChannelGraph, Plan]:
    """The compact and the masked model in evaluation mode, the graph and the plan."""
    graph = trace(model, x)
    plan = random_plan(graph)
    return compact(model, graph, plan).eval(), mask(model, graph, plan).eval(), graph, plan


def made(factory: Callable[[], nn.Module] = Residual) -> nn.Module:
    return lived_in(factory()).float()


def close(a: nn.Module, b: nn.Module, x: Tensor = X, *, within: float = 1e-5) -> None:
    assert furthest(a, b, x) < within


def a_step(model: nn.Module, x: Tensor = X) -> float:
    """One step of SGD, and the loss before it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss = F.cross_entropy(model(x).float(), Y.to(x.device))
    loss.backward()
    optimizer.step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    return float(loss.detach())


# ── compile and export ──


# torch forgets to take a hook's keyword flag back with the hook, and then warns of hooks: see the test below.
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("factory", [Residual, Inverted], ids=["residual", "inverted"])
def test_the_compact_model_is_compiled_and_trained(backend: str, factory: Callable[[], nn.Module]) -> None:
    small, twin, *_ = cut(made(factory))
    compiled: Any = torch.compile(small, backend=backend, fullgraph=True)
    close(compiled, twin)
    assert a_step(compiled.train()) == pytest.approx(a_step(twin.train()), rel=1e-4)
    assert all(p.grad is not None for p in small.parameters())


def test_a_trace_leaves_no_global_hook_behind() -> None:
    before = len(nn.modules.module._global_forward_hooks_with_kwargs)
    trace(made(), X)
    assert len(nn.modules.module._global_forward_hooks_with_kwargs) == before


def test_the_compact_model_is_exported() -> None:
    small, twin, *_ = cut(made())
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(small, (X,), dynamic_shapes=({0: batch},))
    close(program.module(), twin)
    close(program.module(), twin, images(batch=7).float())
    shapes = {n: tuple(t.shape) for n, t in program.state_dict.items()}
    assert shapes == {n: tuple(t.shape) for n, t in small.state_dict().items()}


# ── copies and averages ──


def test_copies_of_the_compact_model_are_independent() -> None:
    small, twin, graph, plan = cut(made())
    other = copy.deepcopy(small)
    a_step(other.train())
    close(small, twin)
    assert furthest(other.eval(), small, X) > 1e-4
    # A compact model is a model like any other: it is traced, cut again and applied again.
    assert trace(small, X).sizes.sum() < graph.sizes.sum()
    close(prunit.apply_plan(copy.deepcopy(made()), plan, X).eval(), small)


def test_an_average_of_the_compact_model() -> None:
    small, *_ = cut(made())
    average = AveragedModel(small, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    average.update_parameters(small)
    before = small.stem[0].weight.detach().clone()
    a_step(small.train())
    average.update_parameters(small)
    expected = (before + small.stem[0].weight) / 2
    torch.testing.assert_close(average.module.stem[0].weight, expected.detach())


# ── precision and layout ──


def test_mixed_precision() -> None:
    small, twin, *_ = cut(made())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert small(X).dtype == torch.bfloat16
        assert furthest(small, twin, X) < 0.1
        a_step(small.train())
    assert {p.dtype for p in small.parameters()} == {torch.float32}


def test_a_trace_under_autocast_finds_the_same_groups() -> None:
    model = made()
    groups = trace(model, X).groups
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert trace(model, X).groups == groups


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_in_half_precision(dtype: torch.dtype) -> None:
    model = made().to(dtype)
    small, twin, *_ = cut(model, X.to(dtype))
    assert {t.dtype for t in small.parameters()} == {dtype}
    assert furthest(small, twin, X.to(dtype)) < (0.1 if dtype is torch.bfloat16 else 0.01)


def test_channels_last_stays() -> None:
    x = X.to(memory_format=torch.channels_last)
    model = made().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    small, twin, *_ = cut(model, x)
    close(small, twin, x)
    features = small.stem(x)
    assert features.is_contiguous(memory_format=torch.channels_last)
    losses = [F.cross_entropy(each.train()(x), Y) for each in (small, twin)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=0)


# ── several devices ──


@pytest.fixture
def one_process() -> Iterator[None]:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_distributed_data_parallel_around_the_dense_and_the_compact_model() -> None:
    model = made()
    wrapped = DistributedDataParallel(model)
    small, twin, graph, plan = cut(wrapped)
    assert graph.groups == trace(model, X).groups
    assert type(small) is Residual
    close(small, twin)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
    F.cross_entropy(wrapped(X), Y).backward()
    optimizer.step()
    later = compact(wrapped, graph, plan)
    other = prunit.cut_optimizer(optimizer, wrapped, later, graph, plan)
    assert len(other.state) == len(list(later.parameters()))
    again = DistributedDataParallel(small.train())
    assert a_step(again) == pytest.approx(a_step(twin.train()), rel=1e-4)


def test_synchronised_batch_norm_is_cut_like_any_other() -> None:
    model = made()
    small, twin, _, plan = cut(nn.SyncBatchNorm.convert_sync_batchnorm(model))
    assert isinstance(small.stem[1], nn.SyncBatchNorm)
    assert small.stem[1].num_features == len(plan.keep["stem.0"])
    close(small, twin)


def test_fabric_around_the_dense_and_the_compact_model() -> None:
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    dense = fabric.setup(made())
    small, twin, *_ = cut(dense)
    close(small, twin)
    wrapped, optimizer = fabric.setup(small.train(), torch.optim.SGD(small.parameters(), lr=0.1))
    fabric.backward(F.cross_entropy(wrapped(X), Y))
    optimizer.step()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu() -> None:
    device = torch.device("cuda")
    model, x = made().to(device, memory_format=torch.channels_last), X.to(device)
    small, twin, graph, plan = cut(model, x)
    assert {t.device.type for t in (*small.parameters(), *small.buffers())} == {"cuda"}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    close(small, twin, x, within=1e-4)
    close(prunit.apply_plan(model, Plan.from_json(plan.to_json()), x).eval(), small, x, within=1e-6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    scaler = torch.amp.GradScaler()
    with torch.autocast("cuda", dtype=torch.float16):
        loss = F.cross_entropy(model(x), Y.to(device))
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    later = compact(model, graph, plan)
    other = prunit.cut_optimizer(optimizer, model, later, graph, plan)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        F.cross_entropy(later(x), Y.to(device)).backward()
    other.step()
    close(torch.compile(small), small, x, within=1e-3)  # pyright: ignore[reportArgumentType]


def test_a_few_dense_steps_then_the_cut_then_the_rest() -> None:
    model = made(Plain)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    F.cross_entropy(model(X), Y).backward()
    optimizer.step()
    graph = prunit.trace(model, X)
    plan = random_plan(graph)
    small = prunit.compact(model, graph, plan)
    optimizer = prunit.cut_optimizer(optimizer, model, small, graph, plan)
    del model
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(small(X), Y)
        loss.backward()
        optimizer.step()
    assert loss.isfinite()
