"""Wrappers around a model are looked through, by every function that takes one."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import prunit
from prunit.cut.plans import from_zeros
from prunit.cut.store import load, save
from prunit.cut.surgery import check_runs, compact, mask, mask_, rectify
from prunit.graph import trace
from prunit.graph.wrappers import unwrapped
from tests.nets import Plain, Residual, furthest, images, lived_in, random_plan


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # pyright: ignore[reportReturnType]


def by_fabric(model: nn.Module) -> nn.Module:
    from lightning_fabric import Fabric

    return Fabric(accelerator="cpu", devices=1).setup(model)


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "none": lambda model: model,
    "compile": compiled,
    "data parallel": nn.DataParallel,
    "average": AveragedModel,
    "fabric": by_fabric,
    "two of them": lambda model: by_fabric(compiled(model)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrapped_models_give_the_results_of_the_inner_one(
    wrap: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    model = lived_in(Plain())
    wrapped = wrap(model)
    assert type(unwrapped(wrapped)) is Plain
    graph = trace(wrapped, images())
    assert graph.groups == trace(model, images()).groups
    plan = random_plan(graph)
    small = compact(wrapped, graph, plan)
    assert type(small) is Plain
    assert furthest(small.eval(), compact(model, graph, plan).eval(), images()) == 0
    assert furthest(mask(wrapped, graph, plan).eval(), small, images()) < 1e-13
    check_runs(wrapped, wrap(small), images())
    save(wrap(small), plan, tmp_path / "a")
    assert furthest(load(tmp_path / "a", lambda: wrap(Plain())), small, images()) == 0
    assert furthest(prunit.apply_plan(wrapped, plan, images()).eval(), small, images()) == 0
    assert rectify(wrap(small), wrapped) == ("first.0", "first.1", "second", "head.fc")
    mask_(wrapped, graph, plan)
    assert from_zeros(wrapped, graph) == plan


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_plan_is_made_for_a_wrapped_model(wrap: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    model = Plain()
    options: dict[str, Any] = {"budget": "params=1/2", "recipe": "global", "score": "magnitude"}
    expected = prunit.plan(model, images().float(), **options)
    assert prunit.plan(wrap(model), images().float(), **options) == expected


def test_a_submodule_that_is_wrapped_keeps_its_path() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.DataParallel(Plain())

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    graph = trace(Outer(), images().float())
    assert [g.name for g in graph.groups] == ["inner.module.first.0", "inner.module.second", "inner.module.head.fc"]


def test_a_model_that_compiled_itself_is_traced_and_cut() -> None:
    model = lived_in(Plain())
    model.compile(backend="eager")
    graph = trace(model, images())
    plan = random_plan(graph)
    assert furthest(compact(model, graph, plan).eval(), mask(model, graph, plan).eval(), images()) < 1e-13


def test_a_moving_average_is_cut_with_the_plan_of_its_model() -> None:
    torch.manual_seed(0)
    model = Residual().double()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    graph = trace(model, images())
    plan = random_plan(graph)
    small = compact(model, graph, plan)
    small_average = AveragedModel(small, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    twin = mask(model, graph, plan)
    for net, its_average in ((twin, average), (small, small_average)):
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            F.cross_entropy(net(images(batch=8)), torch.arange(8) % 5).backward()
            optimiser.step()
            if net is twin:
                mask_(twin, graph, plan)
            its_average.update_parameters(net)
    late = compact(average, graph, plan)  # cut after training, as `small_average` was before
    assert furthest(late.eval(), small_average.module.eval(), images()) < 1e-12
    assert furthest(late, small.eval(), images()) > 1e-6  # it lags behind the model


class Module(nn.Module):
    """Shaped like a LightningModule: steps and hooks beside an ordinary forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.loss = Plain(), nn.CrossEntropyLoss()
        self.save_hyperparameters = {"lr": 0.1}

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        return self.loss(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_lightning_module_is_a_model_of_its_own() -> None:
    module = lived_in(Module())
    assert unwrapped(module) is module
    graph = trace(module, images())
    plan = random_plan(graph)
    small = compact(module, graph, plan)
    assert isinstance(small, Module)
    assert furthest(small.eval(), mask(module, graph, plan).eval(), images()) < 1e-13
    loss = small.training_step((images(), torch.tensor([0, 1])), 0)
    loss.backward()
    small.configure_optimizers().step()
    assert small.net.second.weight.shape[0] == len(plan.keep["net.second"])


def test_nothing_but_a_wrapper_is_unwrapped() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = Plain()

    holder = Holder()
    assert unwrapped(holder) is holder
    assert unwrapped(3) == 3
    assert unwrapped(copy.deepcopy(holder)).module is not holder.module
