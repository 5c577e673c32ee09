"""Every arm yields a model that meets its budget, and does what its name says."""

import copy
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from bench.evidence.arms import ARMS, DEFAULT
from bench.evidence.arms.search import candidates, flow
from bench.evidence.arms.structured import gate_scores
from bench.evidence.case import Pruned, Trained
from bench.evidence.filling import check_budget, widths_of
from prunit.cut.surgery import Rectify, compact, rectify
from prunit.errors import BudgetError
from prunit.graph import trace
from prunit.prices.costs import cost_of
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import decide
from prunit.recipe.reconvene import EVALUATORS
from prunit.recipe.source import example_of, rectifier_for
from prunit.train import train
from tests.evidence.setup import TRAIN, case

CASES = [
    (arm, budget)
    for arm, about in ARMS.items()
    for budget in ("params=1/4", "macs=1/4", "density=1/8")
    if arm != "dense"
    and about.takes(budget)
    # Readings of one recipe differ in what they ask of a score and draw anew, not in how they meet a budget.
    and (about.family != "reconvene" or arm == DEFAULT or budget == "params=1/4")
]


def pruned_by(arm: str, budget: str, seed: int = 0) -> tuple[Pruned, Pruned]:
    """What the arm makes of the tiny network, twice."""
    one = case(arm, budget, seed)
    if ARMS[arm].after_training:
        model = one.make()
        list(train(model, one.dataset, TRAIN.model_copy(update={"epochs": 1})))
        object.__setattr__(one, "trained", Trained(model, 1.0))
    return ARMS[arm].prune(one), ARMS[arm].prune(one)


@pytest.mark.parametrize(("arm", "budget"), CASES)
def test_every_arm_meets_its_budget_and_can_be_trained(arm: str, budget: str) -> None:
    pruned, twin = pruned_by(arm, budget)
    one = case(arm, budget)
    cost, dense = check_budget(one, pruned), cost_of(one.graph)
    key = budget.partition("=")[0]
    if ARMS[arm].within_budget and key != "density":
        assert cost.as_dict()[key] <= dense.as_dict()[key] / 4
        # Not far less either: arms are compared at equal cost.
        assert cost.as_dict()[key] >= dense.as_dict()[key] / 6
    assert (pruned.hash, pruned.masks.keys()) == (twin.hash, twin.masks.keys())
    if not pruned.masks:  # the widths that the cell holds are those of the model, also where another tool cut it
        assert cost_of(one.graph, widths_of(pruned.model, one)) == cost
    before = copy.deepcopy(pruned.model.state_dict())
    list(train(pruned.model, one.dataset, TRAIN.model_copy(update={"epochs": 1})))
    assert any(not torch.equal(before[n], t) for n, t in pruned.model.state_dict().items())
    for name, mask in pruned.masks.items():
        assert not pruned.model.get_parameter(name).detach()[~mask].any()


def test_the_table_has_every_reading() -> None:
    evaluators = [evaluator for evaluator in EVALUATORS if evaluator != "none"]
    papers = [rectifier for rectifier in get_args(Rectify) if rectifier != "own"]  # which is ours
    readings = {f"reconvene-{e}-{r}" for e in (*evaluators, "without") for r in papers}
    assert {arm for arm, about in ARMS.items() if about.family == "reconvene"} <= readings | {
        "reconvene-round8",
        "reconvene-per-cost",
        "reconvene-auto",
    }
    assert {f"reconvene-{e}-{r}" for e in evaluators for r in papers} <= ARMS.keys()
    assert all("|" not in about.line for about in ARMS.values())  # it would end a cell of a table


def test_a_mask_counts_its_weights() -> None:
    pruned, _ = pruned_by("mask-synflow", "density=1/8")
    kept = sum(int(mask.sum()) for mask in pruned.masks.values())
    assert kept == sum(mask.numel() for mask in pruned.masks.values()) // 8
    one = case("mask-synflow", "density=1/8")
    dense = cost_of(one.graph)
    zeros = sum(int((~mask).sum()) for mask in pruned.masks.values())
    assert check_budget(one, pruned).params == dense.params - zeros


def test_the_default_arm_is_what_prunit_does_unasked() -> None:
    for budget in ("params=1/4", "macs=1/4"):
        one, (pruned, _) = case(DEFAULT, budget), pruned_by(DEFAULT, budget)
        dense, unasked = one.make(), PruneConfig(seed=one.task.seed)
        plan = decide(dense, one.graph, one.batches, one.budget, unasked).plan
        small = compact(dense, one.graph, plan)
        rectify(small, dense, rectifier_for(unasked, "resnet20"), seed=one.task.seed)
        assert pruned.plan is not None
        assert plan.hash == pruned.plan.hash
        same = zip(small.state_dict().values(), pruned.model.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in same)


def test_the_counterpart_leaves_empty_what_reconvene_drops() -> None:
    mask, _ = pruned_by("counterpart", "params=1/4")
    ours, _ = pruned_by("reconvene-emptied-reinit", "params=1/4")
    one = case("reconvene-emptied-reinit", "params=1/4")
    assert ours.plan is not None
    keep = one.graph.flat_keep(ours.plan.keep)
    made, read = np.zeros(len(keep), dtype=bool), np.zeros(len(keep), dtype=bool)
    for axis in one.graph.axes:
        if axis.tensor in mask.masks and axis.role in ("in", "out"):
            others = [d for d in range(mask.masks[axis.tensor].ndim) if d != axis.dim]
            alive = mask.masks[axis.tensor].sum(others).numpy() > 0
            (read if axis.role == "in" else made)[axis.where[alive]] = True
    assert not (made & read & ~keep).any()


def test_gates_are_what_a_gate_would_feel() -> None:
    one = case("snap")
    group = next(g for g in one.graph.groups if not g.pinned and not g.coupled)
    model, (x_BCHW, y_B) = one.make().train(), one.batches[0]
    gate = torch.ones(group.size, requires_grad=True)
    reader = one.graph.axes_of(group.name, "in")[0].tensor.removesuffix(".weight")
    model.get_submodule(reader).register_forward_pre_hook(lambda _, args: (args[0] * gate.view(1, -1, 1, 1),))
    loss = nn.functional.cross_entropy(model(x_BCHW), y_B)
    (felt,) = torch.autograd.grad(loss, gate)
    assert torch.allclose(gate_scores(one)[group.name].float(), felt.abs(), rtol=1e-3, atol=1e-6)


def test_candidates_differ_and_fill_the_budget() -> None:
    one = case("random-search")
    plans = candidates(one, 4)
    assert len({plan.hash for plan in plans}) > 1
    costs = [cost_of(one.graph, plan).params / cost_of(one.graph).params for plan in plans]
    assert max(costs) <= 1 / 4
    assert min(costs) > 1 / 6
    assert flow(one.make(), one, example_of(one.dataset).shape[1:]) > 0


def test_a_budget_out_of_reach_is_said() -> None:
    with pytest.raises(BudgetError, match="biases and norms"):
        ARMS["mask-random"].prune(case("mask-random", "params=1/200"))
    too_large = Pruned(case("uniform").make())
    with pytest.raises(BudgetError, match=r"arm 'uniform' costs 42,938 params; params=1/4 allows 10,734"):
        check_budget(case("uniform"), too_large)


def test_costs_are_counted_on_the_model_itself() -> None:
    pruned, _ = pruned_by(DEFAULT, "macs=1/4")
    one = case(DEFAULT, "macs=1/4")
    assert pruned.plan is not None
    assert cost_of(trace(pruned.model, example_of(one.dataset))).macs == cost_of(one.graph, pruned.plan).macs
