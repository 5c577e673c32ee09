"""Pruning after training: the dense model is trained by the recipe, cut, and trained by the same recipe once more.

To train again by the whole recipe (learning rate rewinding, Renda et al. 2020) is at least as good as a short
fine-tuning at a low rate, and twice as dear as every other arm: an upper reference.
"""

import copy
import warnings
from collections.abc import Callable

from bench.coverage.theirs import classifiers
from bench.evidence.case import Case, Pruned, Trained
from prunit.cut.plans import choose
from prunit.cut.surgery import compact
from prunit.errors import BudgetError
from prunit.graph import trace
from prunit.prices.costs import cost_of
from prunit.recipe.recipes import constraints_of, decide
from prunit.recipe.source import example_of
from prunit.scores import score_channels

_STEPS = 200
"""In so many steps Torch-Pruning would drop everything; the first one within the budget is taken."""


def trained(case: Case) -> Trained:
    """The trained dense model, which the runner provides to arms with `after_training`."""
    assert case.trained is not None, f"the arm '{case.task.arm}' needs after_training=True in the table of arms"
    return case.trained


def l1_filters(case: Case) -> Pruned:
    """The filters with the smallest L1 norms go from every layer, the same share everywhere; the rest inherits."""
    dense = copy.deepcopy(trained(case).model)
    config = case.config.model_copy(update={"recipe": "uniform", "score": "magnitude"})
    plan = decide(dense, case.graph, case.batches, case.budget, config).plan
    return Pruned(compact(dense, case.graph, plan), plan)


def inherited(score: str) -> Callable[[Case], Pruned]:
    """As wide as the default decides before training; the channels that the trained model's scores rank highest, with
    the weights that it has learnt."""

    def prune(case: Case) -> Pruned:
        config = case.config.model_copy(update={"round_to": "auto"})
        widths = decide(case.make(), case.graph, case.batches, case.budget, config).plan.widths
        dense = copy.deepcopy(trained(case).model)
        scores = score_channels(dense, case.graph, score, case.batches, seed=case.task.seed)
        plan = choose(case.graph, scores, widths)
        return Pruned(compact(dense, case.graph, plan), plan)

    return prune


def group_norm(case: Case) -> Pruned:
    """Torch-Pruning's group norm, one ranking of all groups, in small steps until the budget is met."""
    model = copy.deepcopy(trained(case).model)
    example, most = example_of(case.dataset), case.target.most
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch-Pruning's own
        import torch_pruning as tp

        pruner = tp.pruner.BasePruner(
            model,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=1.0,
            max_pruning_ratio=1 - constraints_of(case.config).min_share,
            iterative_steps=_STEPS,
            ignored_layers=classifiers(model),
        )
        for step in range(1, _STEPS + 1):
            pruner.step()
            cost = cost_of(trace(model, example)).as_dict()
            if all(cost[name] <= limit for name, limit in most.items()):
                return Pruned(model, note=f"step {step} of {_STEPS}")
    cost = cost_of(trace(model, example))
    raise BudgetError(
        f"Torch-Pruning does not reach {case.task.budget}: it ends at {cost.params:,} params and {cost.macs:,} macs"
    )
