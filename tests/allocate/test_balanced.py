"""Balanced widths: what the product of shares is, and that no other step would have kept more of it."""

import numpy as np
import pytest
import torch

from prunit import zoo
from prunit.allocate import Budget, Constraints, Target, balance, balanced, uniform
from prunit.errors import BudgetError
from prunit.graph import ChannelGraph, trace
from prunit.prices.costs import width_array


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return trace(zoo.load("resnet20"), torch.zeros(1, 3, 32, 32))


def found(graph: ChannelGraph, budget: str, **constraints: int) -> dict[str, int]:
    target = Target(graph, Budget.parse(budget), Constraints(**constraints))
    return dict(balanced(target, {}))


def test_the_balance_is_the_sum_over_layers_of_the_logs_of_what_is_left(graph: ChannelGraph) -> None:
    widths = {group.name: group.size if group.pinned else group.size // 2 for group in graph.groups}
    inside = sum(1 for name in (layer.weight for layer in graph.layers) if not name.startswith(("stem", "classifier")))
    assert balance(graph, {group.name: group.size for group in graph.groups}) == 0
    # Layers between two groups keep a quarter of their weights; the first and the last one, a half.
    assert balance(graph, widths) == pytest.approx(inside * np.log(1 / 4) + 2 * np.log(1 / 2))


@pytest.mark.parametrize("budget", ["macs=1/2", "macs=1/4", "params=1/8", "macs=1/3,params=1/4"])
def test_it_meets_budgets_with_more_balance_than_equal_shares(graph: ChannelGraph, budget: str) -> None:
    widths, target = found(graph, budget), Target(graph, Budget.parse(budget))
    assert target.met_by(width_array(graph, widths))
    assert target.used(width_array(graph, widths)) > 0.98
    assert balance(graph, widths) > balance(graph, uniform(target, {}))


def test_streams_are_narrowed_last(graph: ChannelGraph) -> None:
    widths = found(graph, "params=1/2")
    shares = {group.name: widths[group.name] / group.size for group in graph.groups if not group.pinned}
    coupled = [shares[group.name] for group in graph.groups if group.coupled and group.name in shares]
    assert coupled
    assert min(coupled) > float(np.mean([share for name, share in shares.items()]))


def test_no_step_is_left_that_fits(graph: ChannelGraph) -> None:
    widths = width_array(graph, found(graph, "macs=1/3", round_to=4))
    target = Target(graph, Budget.parse("macs=1/3"), Constraints(round_to=4))
    assert target.allowed.hold(widths)
    for i in np.flatnonzero(widths < target.ceiling):
        wider = widths.copy()
        wider[i] = target.allowed.up(wider + 1)[i]
        assert not target.met_by(wider)


def test_what_allows_all_is_left_whole_and_what_allows_nothing_refused(graph: ChannelGraph) -> None:
    assert found(graph, "macs=1") == {group.name: group.size for group in graph.groups}
    with pytest.raises(BudgetError, match="cannot be met"):
        found(graph, "params=1", min_width=1) and found(graph, "params=1/10000")
