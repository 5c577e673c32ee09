"""The mode is looked at in code outside of `forward`: whatever that returns in training mode is read all the same."""

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

from prunit.graph import trace
from tests.graph import mode_helpers
from tests.graph.mode_helpers import Finisher, Options, finished
from tests.graph.two_modes import X, equal_in_both_modes
from tests.nets import lived_in, random_plan


class Net(nn.Module):
    """Training mode returns features too, so that a layer must stay whole which evaluation mode would let shrink."""

    finish: Any

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Any:
        return self.finish(*self.ends(x))

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.b(self.a(x).relu())
        return self.fc(h.relu().mean((2, 3))), h


class ByModule(Net):
    def forward(self, x: Tensor) -> Any:
        return mode_helpers.finished(self, *self.ends(x))


class ByObject(Net):
    def __init__(self) -> None:
        super().__init__()
        self.finisher = Finisher()

    def forward(self, x: Tensor) -> Any:
        return self.finisher(self, *self.ends(x))


class ByPropertyOfAnObject(Net):
    def __init__(self) -> None:
        super().__init__()
        self.options = Options(self)

    def forward(self, x: Tensor) -> Any:
        y, h = self.ends(x)
        return (y, h) if self.options.deep else y


class ByPartial(Net):
    def __init__(self) -> None:
        super().__init__()
        self.finish = functools.partial(finished, self)


class ByMethodOfTheInstance(Net):
    def __init__(self) -> None:
        super().__init__()
        self.finish = types.MethodType(finished, self)


class ByPartialMethod(Net):
    finish = functools.partialmethod(finished)


class ByTable(Net):
    finishers: Any = {"deep": [finished]}  # noqa: RUF012

    def forward(self, x: Tensor) -> Any:
        return self.finishers["deep"][0](self, *self.ends(x))


class ByTableOfTheInstance(Net):
    def __init__(self) -> None:
        super().__init__()
        self.finishers = {"deep": finished}

    def forward(self, x: Tensor) -> Any:
        return self.finishers["deep"](self, *self.ends(x))


class ByGetattr(Net):
    def __getattr__(self, name: str) -> Any:
        return self.training if name == "deep" else super().__getattr__(name)

    def forward(self, x: Tensor) -> Any:
        y, h = self.ends(x)
        return (y, h) if self.deep else y


def _first_when_evaluated(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(self: Any, *inputs: Any) -> Any:
        found = forward(self, *inputs)
        return found if self.training else found[0]

    return wrapped


class ByDecorator(Net):
    @_first_when_evaluated
    def forward(self, x: Tensor) -> Any:
        return self.ends(x)


class _FirstWhenEvaluated:
    def __init__(self, forward: Callable[..., Any]) -> None:
        self.inner = forward

    def __get__(self, model: Any, kind: type) -> Any:
        return functools.partial(self.run, model)

    def run(self, model: Any, *inputs: Any) -> Any:
        found = self.inner(model, *inputs)
        return found if model.training else found[0]


class ByDescriptor(Net):
    @_FirstWhenEvaluated
    def forward(self, x: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.ends(x)


EVERY = [
    *(ByModule, ByObject, ByPropertyOfAnObject, ByPartial, ByMethodOfTheInstance, ByPartialMethod, ByTable),
    *(ByTableOfTheInstance, ByGetattr, ByDecorator, ByDescriptor),
]


@pytest.mark.parametrize("factory", EVERY)
def test_what_training_returns_stays_whole_and_both_modes_are_equal(factory: Callable[[], Net]) -> None:
    model = lived_in(factory())
    graph = trace(model, X)
    assert graph.group("b").pinned == "the model's output in training mode"
    assert not graph.group("a").pinned
    equal_in_both_modes(model, graph, random_plan(graph), X, X)
