"""Losses inside of the model, teachers, and whatever else training mode is given that evaluation is not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunit.cut.plans import Plan
from prunit.cut.store import apply_plan
from prunit.cut.surgery import compact, mask
from prunit.errors import ModelError
from prunit.graph import trace
from tests.graph.two_modes import Net, X, equal_in_both_modes
from tests.nets import furthest, lived_in, random_plan

CLASSES = torch.tensor([0, 3, 1, 4])


class Loss(Net):
    """Training computes its losses inside; evaluation classifies."""

    def forward(self, x: Tensor, classes: Tensor | None = None) -> Any:
        h = self.a(x).relu()
        y = self.fc(self.b(h).relu().mean((2, 3)))
        if not self.training:
            return y
        if classes is None:
            raise ValueError("targets are needed in training mode")
        return {"loss": F.cross_entropy(y, classes), "aux": F.cross_entropy(self.aux(h.mean((2, 3))), classes)}


class Optional(Loss):
    """The same without a word of the mode."""

    def forward(self, x: Tensor, classes: Tensor | None = None) -> Any:
        y, z = self.both(x)
        return y if classes is None else F.cross_entropy(y, classes) + F.cross_entropy(z, classes)


class Teacher(nn.Module):
    """Two steps of a decoder that reads its own answer, or what the teacher says; and how far off the features are."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.step, self.out = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Linear(8, 6)
        self.word, self.stop = nn.Linear(6, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor, teacher: Tensor | None = None) -> Any:
        h, said, stops = self.a(x).relu().mean((2, 3)), [], []
        for t in range(2):
            y = self.out(h)
            said.append(y)
            stops.append(self.stop(h))
            h = (self.step(h) + self.word(y if teacher is None else teacher[:, t])).relu()
        return torch.stack(said, 1) if teacher is None else (torch.stack(said, 1), torch.cat(stops, 1))


LOSSES: list[tuple[Callable[[], nn.Module], Any]] = [
    (Loss, (X, CLASSES)),
    (Optional, (X, CLASSES)),
    (Teacher, (X, torch.randn(4, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))),
]


@pytest.mark.parametrize(("factory", "training_example"), LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_with_the_inputs_of_training_both_modes_are_exact(
    factory: Callable[[], nn.Module], training_example: Any, seed: int
) -> None:
    model = lived_in(factory())
    graph = trace(model, X, training_example=training_example)
    assert not graph.group("a").pinned
    plan = replace(random_plan(graph, seed=seed), inputs=graph.inputs, training_inputs=graph.training_inputs)
    again = apply_plan(model, Plan.from_json(plan.to_json()))
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in compact(model, graph, plan).state_dict().items()
    }
    equal_in_both_modes(model, graph, plan, X, training_example)


@pytest.mark.parametrize(("factory", "training_example"), LOSSES)
def test_one_example_that_both_modes_take_is_enough(factory: Callable[[], nn.Module], training_example: Any) -> None:
    model = lived_in(factory())
    graph = trace(model, training_example)
    assert not graph.group("a").pinned
    equal_in_both_modes(model, graph, random_plan(graph), training_example, training_example)


@pytest.mark.parametrize(("factory", "training_example"), LOSSES)
def test_without_them_whatever_is_cut_trains_as_the_masked_network(
    factory: Callable[[], nn.Module], training_example: Any
) -> None:
    model = lived_in(factory())
    graph = trace(model, X)
    small, twin = (cut(model, graph, random_plan(graph)) for cut in (compact, mask))
    assert furthest(twin.eval(), small.eval(), X) < 1e-12
    assert furthest(twin.train(), small.train(), training_example) < 1e-12


def test_training_that_fails_on_the_example_is_named() -> None:
    graph = trace(Loss().double(), X)
    assert all(g.pinned for g in graph.groups)
    assert graph.group("a").pinned == (
        "training mode fails on the example (ValueError: targets are needed in training mode; 'aux' may read it there):"
        " pass training_example"
    )
    assert graph.group("a").pinned in graph.notes


def test_training_that_fails_with_no_layer_of_its_own_is_only_told_of() -> None:
    class Strict(Net):
        def forward(self, x: Tensor) -> Any:
            if self.training:
                raise RuntimeError("deploy me")
            y, z = self.both(x)
            return y + z

    graph = trace(Strict().double(), X)
    assert not graph.group("a").pinned
    assert any("RuntimeError: deploy me" in note for note in graph.notes)


def test_a_layer_that_waits_for_another_input_keeps_what_it_may_read() -> None:
    class Waiting(Loss):
        def forward(self, x: Tensor, classes: Tensor | None = None) -> Any:
            h = self.a(x).relu()
            y = self.fc(self.b(h).relu().mean((2, 3)))
            return y if classes is None else F.cross_entropy(self.aux(h.mean((2, 3))), classes)

    graph = trace(Waiting().double(), X)
    assert "'aux', which does not run with this example, may read it" in graph.group("a").pinned
    assert not graph.group("b").pinned
    assert not trace(Waiting().double(), X, training_example=(X, CLASSES)).group("a").pinned


def test_a_training_example_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ModelError, match="the example holds no tensor"):
        trace(Loss().double(), X, training_example=("classes",))


def test_a_head_that_nobody_was_seen_to_read_stays_whole() -> None:
    class Kept(Net):
        def forward(self, x: Tensor) -> Any:
            y, self.seen = self.both(x)
            return y

    graph = trace(Kept().double(), X)
    assert graph.group("aux").pinned == "nothing was seen to read it"
    assert not graph.group("a").pinned
