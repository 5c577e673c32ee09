"""Training that goes on after a cut: the optimiser's state is cut along, and ends where the masked model's does."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer

from prunit.cut.optimizers import cut_optimizer
from prunit.cut.plans import Plan, keep_all
from prunit.cut.surgery import compact, mask, mask_
from prunit.errors import OptimizerError, PlanError
from prunit.graph import ChannelGraph, trace
from tests.nets import NETS, Flattened, Plain, Residual, furthest, images, lived_in, random_plan

X, Y = images(batch=8), torch.arange(8) % 5

OPTIMISERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.05),
    "momentum": lambda p: SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: Adam(p, lr=1e-2),
    "adamw": lambda p: AdamW(p, lr=1e-2, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5, centered=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    "asgd": lambda p: torch.optim.ASGD(p, lr=1e-2),
}


def step(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(X), Y).backward()
    optimizer.step()


def setting(factory: Callable[[], nn.Module] = Residual) -> tuple[nn.Module, ChannelGraph, Plan]:
    model = lived_in(factory()).train()
    graph = trace(model, X)
    return model, graph, random_plan(graph, seed=1)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("factory", [Residual, Flattened], ids=["residual", "flattened"])
def test_training_goes_on_as_that_of_the_masked_model(name: str, factory: Callable[[], nn.Module]) -> None:
    model, graph, plan = setting(factory)
    twin = mask(model, graph, plan)
    optimiser = OPTIMISERS[name](twin.parameters())
    for _ in range(4):
        step(twin, optimiser)
        mask_(twin, graph, plan)
    small = compact(twin, graph, plan)
    its_optimiser = cut_optimizer(optimiser, twin, small, graph, plan)
    fresh = compact(twin, graph, plan)
    other = OPTIMISERS[name](fresh.parameters())
    for _ in range(4):
        step(twin, optimiser)
        mask_(twin, graph, plan)
        step(small, its_optimiser)
        step(fresh, other)
    # All but SGD divide by the gradient's size: that of a bias before a batch norm is rounding, and counts 1e8 fold.
    assert furthest(twin.eval(), small.eval(), X) < (1e-12 if isinstance(optimiser, SGD) else 1e-9)
    if name not in ("sgd", "asgd"):  # the state matters: a new optimiser ends elsewhere
        assert furthest(fresh.eval(), small, X) > 1e-6


def test_a_dense_training_is_cut_in_the_middle() -> None:
    model, graph, plan = setting()
    optimiser = AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        step(model, optimiser)
    small = compact(model, graph, plan)
    its_optimiser = cut_optimizer(optimiser, model, small, graph, plan)
    mask_(model, graph, plan)  # from here on the same optimiser trains the masked model
    for _ in range(3):
        step(model, optimiser)
        mask_(model, graph, plan)
        step(small, its_optimiser)
    assert furthest(model.eval(), small.eval(), X) < 1e-11


def test_groups_settings_and_steps_are_kept_and_the_old_optimiser_too() -> None:
    model, graph, plan = setting(Plain)
    norms = [p for p in model.parameters() if p.ndim == 1]
    rest = [p for p in model.parameters() if p.ndim > 1]
    optimiser = AdamW([{"params": norms, "weight_decay": 0.0}, {"params": rest, "lr": 0.5}], lr=0.1, betas=(0.8, 0.9))
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 2, gamma=0.1)
    for _ in range(3):
        step(model, optimiser)
        schedule.step()
    before = copy.deepcopy(optimiser.state_dict())
    small = compact(model, graph, plan)
    other = cut_optimizer(optimiser, model, small, graph, plan)
    assert type(other) is AdamW
    assert other.defaults == optimiser.defaults
    assert [len(g["params"]) for g in other.param_groups] == [len(norms), len(rest)]
    for old, new in zip(optimiser.param_groups, other.param_groups, strict=True):
        assert {k: v for k, v in new.items() if k != "params"} == {k: v for k, v in old.items() if k != "params"}
        assert all(any(p is q for q in small.parameters()) for p in new["params"])
    assert {int(s["step"]) for s in other.state.values()} == {3}
    kept = list(plan.keep["first.0"])
    old, new = (o.state[m.get_parameter("second.weight")] for o, m in ((optimiser, model), (other, small)))
    rows = list(plan.keep["second"])
    assert torch.equal(new["exp_avg"], old["exp_avg"][rows][:, kept])
    assert new["step"] is not old["step"]
    later = torch.optim.lr_scheduler.StepLR(other, 2, gamma=0.1)
    later.load_state_dict(schedule.state_dict())
    step(small, other)
    later.step()
    assert other.param_groups[0]["lr"] == pytest.approx(0.001)
    after = optimiser.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert all(torch.equal(a, after["state"][i][k]) for i, s in before["state"].items() for k, a in s.items())


def test_an_optimiser_that_made_no_step_yet() -> None:
    model, graph, plan = setting(Plain)
    small = compact(model, graph, plan)
    other = cut_optimizer(SGD(model.named_parameters(), lr=0.1, momentum=0.9), model, small, graph, plan)
    assert not other.state
    assert other.param_groups[0]["param_names"][0] == "first.0.weight"
    step(small, other)


def test_tied_and_frozen_parameters() -> None:
    factory, x = NETS["recurrent"]
    model = lived_in(factory())
    model.get_parameter("stem.0.weight").requires_grad_(False)
    graph = trace(model, x)
    plan = random_plan(graph)
    optimiser = SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(x).sum().backward()
    optimiser.step()
    small = compact(model, graph, plan)
    other = cut_optimizer(optimiser, model, small, graph, plan)
    assert len(other.param_groups[0]["params"]) == len(list(small.parameters()))
    assert small.get_parameter("stem.0.weight") not in other.state
    tied = other.state[small.get_parameter("right.weight")]["momentum_buffer"]
    assert tied.shape == small.get_parameter("left.weight").shape
    small(x).sum().backward()
    other.step()


def test_wrapped_models_and_optimisers() -> None:
    from lightning_fabric import Fabric

    model, graph, plan = setting(Plain)
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped, optimiser = fabric.setup(model, SGD(model.parameters(), lr=0.1, momentum=0.9))
    fabric.backward(F.cross_entropy(wrapped(X), Y))
    optimiser.step()
    small = compact(wrapped, graph, plan)
    other = cut_optimizer(optimiser, wrapped, small, graph, plan)
    assert type(other) is SGD
    assert len(other.state) == len(list(small.parameters()))


# ── what cannot be cut ──


def test_a_parameter_of_another_model_is_named() -> None:
    model, graph, plan = setting(Plain)
    with pytest.raises(OptimizerError, match=r"a parameter of shape \(6, 3, 3, 3\) that is not the model's: give the"):
        cut_optimizer(SGD(Plain().parameters(), lr=0.1), model, compact(model, graph, plan), graph, plan)


def test_a_plan_for_another_model_is_refused() -> None:
    model, graph, _ = setting(Plain)
    with pytest.raises(PlanError, match="plan lacks the model's group"):
        cut_optimizer(
            SGD(model.parameters(), lr=0.1), model, compact(model, graph, keep_all(graph)), graph, Plan({}, {})
        )


def test_state_of_another_shape_is_named_where_its_parameter_is_cut() -> None:
    model, graph, plan = setting(Plain)
    optimiser = torch.optim.Adafactor(model.parameters(), lr=0.1)
    step(model, optimiser)
    small = compact(model, graph, plan)
    with pytest.raises(OptimizerError, match=r"cannot cut the optimiser's 'row_var' of 'first.0.weight': its shape is"):
        cut_optimizer(optimiser, model, small, graph, plan)
    whole = compact(model, graph, keep_all(graph))
    other = cut_optimizer(optimiser, model, whole, graph, keep_all(graph))
    step(model, optimiser)
    step(whole, other)
    assert furthest(model, whole, X) == 0


def test_state_that_holds_all_parameters_at_once_is_refused() -> None:
    model, graph, _ = setting(Plain)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure() -> float:
        optimiser.zero_grad()
        loss = F.cross_entropy(model(X), Y)
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)
    with pytest.raises(OptimizerError, match=r"cannot cut the optimiser's 'd' of 'first.0.weight'"):
        cut_optimizer(optimiser, model, compact(model, graph, keep_all(graph)), graph, keep_all(graph))


class Demanding(SGD):
    """Its constructor wants more than its defaults tell."""

    def __init__(self, params: Any, *, secret: int, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        self.secret = secret


def test_a_class_that_cannot_be_made_again_is_named() -> None:
    model, graph, plan = setting(Plain)
    optimiser = Demanding(model.parameters(), secret=1)
    with pytest.raises(
        OptimizerError, match=r"cannot make another Demanding .* 'secret'. Make a new one for the compact"
    ):
        cut_optimizer(optimiser, model, compact(model, graph, plan), graph, plan)
