"""Code that compares the width of its input with a number that it noted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunit.graph import trace
from tests.graph.reading import Net, free, read
from tests.nets import images


class Checked(nn.Module):
    """Runs no operator itself."""

    def __init__(self, check: Callable[[Any, Tensor], None], **noted: Any) -> None:
        super().__init__()
        self.conv, self.check = nn.Conv2d(12, 10, 1), check
        for name, value in noted.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        self.check(self, x)
        return self.conv(x)


def asserted(m: Any, x: Tensor) -> None:
    assert x.shape[1] == m.channels


def raised(m: Any, x: Tensor) -> None:
    if x.size(1) != m.channels:
        raise ValueError(f"{m.channels} channels are expected")


def among(m: Any, x: Tensor) -> None:
    _, c, *_ = x.shape
    assert c == m.sizes[0]


def by_keyword(m: Any, x: Tensor) -> None:
    m.inner(x=x)


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.channels = 12

    def forward(self, x: Tensor) -> None:
        assert x.shape[1] == self.channels


CHECKS = [
    (asserted, {"channels": 12}),
    (raised, {"channels": 12}),
    (among, {"sizes": (12, 99)}),
    (by_keyword, {"inner": Keyword()}),
]


@pytest.mark.parametrize(("check", "noted"), CHECKS, ids=[check.__name__ for check, _ in CHECKS])
def test_a_number_that_is_compared_follows_the_cut(check: Any, noted: dict[str, Any]) -> None:
    graph = read(Net(lambda m, x: m.checked(x), out=10, checked=Checked(check, **noted)))
    assert free(graph) == {"stem.0": 12, "inner.checked.conv": 10}


def test_several_modules_that_compare() -> None:
    first, second = Checked(asserted, channels=12), Checked(raised, channels=10)
    second.conv = nn.Conv2d(10, 9, 1)
    graph = read(Net(lambda m, x: m.second(m.first(x)), out=9, first=first, second=second))
    assert free(graph) == {"stem.0": 12, "inner.first.conv": 10, "inner.second.conv": 9}


def test_a_number_that_is_written_out_pins_what_is_compared_with_it() -> None:
    def written(m: Any, x: Tensor) -> None:
        assert x.shape[1] == 12

    graph = read(Net(lambda m, x: m.checked(x), out=10, checked=Checked(written)))
    assert "assert x.shape[1] == 12" in graph.group("stem.0").pinned
    assert free(graph) == {"inner.checked.conv": 10}


def test_a_number_that_counts_two_things_follows_neither() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.channels = 12

        def forward(self, x: Tensor) -> Tensor:
            asserted(self, x)
            return x

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.gate = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 12, 1), Gate()
            self.out = nn.Conv2d(24, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.cat([self.gate(self.one(x)), self.gate(self.two(x))], 1))

    graph = read(Pair())
    assert {"one", "two"}.isdisjoint(free(graph))
    assert trace(Pair().double(), images()).groups == graph.groups
