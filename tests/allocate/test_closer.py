"""Widths brought closer to a budget: within it, allowed, and nearer than before wherever one step helps."""

import numpy as np
import pytest
import torch

import prunit
from prunit import zoo
from prunit.allocate import Budget, Constraints, Target, closer, uniform
from prunit.graph import ChannelGraph
from prunit.prices.costs import width_array


@pytest.fixture(scope="module")
def resnet20() -> ChannelGraph:
    return prunit.trace(zoo.load("resnet20"), torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("budget", ["params=1/2", "params=1/4", "macs=1/2", "weights=500KB", "params=1/4,macs=1/4"])
def test_multiples_of_8_come_within_a_hundredth_of_the_budget(resnet20: ChannelGraph, budget: str) -> None:
    target = Target(resnet20, Budget.parse(budget), Constraints(round_to=8))
    first = width_array(resnet20, uniform(target, {}))
    found = closer(target, first)
    assert 0.99 <= target.used(found) <= 1
    assert target.used(first) <= target.used(found)
    assert target.met_by(found)
    assert target.allowed.hold(found)
    assert np.abs(found - first).max() <= 16, "a step or two, not another allocation"


def test_widths_that_are_near_enough_stay(resnet20: ChannelGraph) -> None:
    target = Target(resnet20, Budget.parse("params=1/4"))
    widths = width_array(resnet20, uniform(target, {}))
    assert target.used(widths) >= 0.99
    assert closer(target, widths) is widths


def test_where_no_step_helps_the_widths_stay(resnet20: ChannelGraph) -> None:
    # The peak of activations hangs on the first stage, which has 16 channels: 8 of them, or more than a half.
    target = Target(resnet20, Budget.parse("ram=0.6"), Constraints(round_to=8))
    widths = width_array(resnet20, uniform(target, {}))
    found = closer(target, widths)
    assert target.used(found) < 0.99
    for group in np.flatnonzero((found < target.ceiling) & (target.allowed.step > 1)):
        wider = found.copy()
        wider[group] = target.allowed.up(found + 1)[group]
        assert target.used(wider) > 1 or target.used(wider) <= target.used(found)


def test_the_search_ends_where_the_budget_allows_all(resnet20: ChannelGraph) -> None:
    target = Target(resnet20, Budget.parse("params=100%,macs=100%"))
    assert (closer(target, resnet20.sizes) == resnet20.sizes).all()
