"""What only training mode runs, returns or reads is cut with the rest, or stays whole for a reason."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunit.cut.surgery import check_runs, compact, mask
from prunit.graph import trace
from tests.graph.two_modes import EVERY, Branch, Net, X, equal_in_both_modes
from tests.nets import furthest, lived_in, random_plan


@pytest.mark.parametrize("factory", EVERY)
@pytest.mark.parametrize("seed", range(3))
def test_equal_in_both_modes(factory: Callable[[], nn.Module], seed: int) -> None:
    model = lived_in(factory())
    graph = trace(model, X[:1])
    plan = random_plan(graph, seed=seed)
    assert plan.widths != dict(plan.dense)
    check_runs(model, compact(model, graph, plan), X)
    equal_in_both_modes(model, graph, plan, X, X)


@pytest.mark.parametrize("factory", EVERY)
def test_the_first_layer_may_shrink_and_what_training_returns_may_not(factory: Callable[[], nn.Module]) -> None:
    graph = trace(factory().double(), X)
    assert any(not g.pinned for g in graph.groups)
    for group in graph.groups:
        if group.name.split(".")[-1] in ("aux", "super1", "super2", "fc", "out", "0" if "heads" in group.name else ""):
            assert "output" in group.pinned


def test_a_branch_that_only_training_runs_stays_as_wide_as_it_is() -> None:
    graph = trace(Branch().double(), X)
    assert graph.group("branch").pinned == "only training mode runs it"
    assert not graph.group("a").pinned
    assert [layer.module for layer in graph.layers] == ["a", "b", "fc"]  # no device runs the others


def test_a_mode_that_changes_nothing_costs_no_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[bool] = []

    class Counting(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            runs.append(True)
            return super().forward(input)

    trace(Counting(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 2, 1)).double(), X)
    assert len(runs) == 1


# ── the model afterwards ──


@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.parametrize("factory", EVERY)
def test_modes_are_as_they_were(factory: Callable[[], nn.Module], mode: bool) -> None:
    model = factory().double().train(mode)
    next(model.children()).train(not mode)  # one layer differs, as a frozen one does
    held = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    modes = [m.training for m in model.modules()]
    trace(model, X)
    assert [m.training for m in model.modules()] == modes
    assert {name: value for name, value in vars(model).items() if not name.startswith("_")} == held


def test_a_model_that_fuses_its_branches_when_evaluated_is_read_as_it_is() -> None:
    class Fusing(Net):
        def train(self, mode: bool = True) -> "Fusing":
            if not mode and hasattr(self, "aux"):
                self.fused = nn.Linear(12, 5)
                del self.aux
            return super().train(mode)

        def forward(self, x: Tensor) -> Any:
            y, z = self.both(x)
            return y + z

    model = lived_in(Fusing())
    names = [name for name, _ in model.named_modules()]
    graph = trace(model, X)
    assert [name for name, _ in model.named_modules()] == names
    assert "aux" in graph.group("fc").producers
    plan = random_plan(graph)
    small, twin = compact(model, graph, plan), mask(model, graph, plan)
    assert furthest(twin.train(), small.train(), X) < 1e-12


def test_parameters_survive_a_mode_that_writes_to_them() -> None:
    class Merging(Net):
        """Adds a low rank to a weight in place when it is evaluated, as adapters do."""

        def train(self, mode: bool = True) -> "Merging":
            if self.training and not mode:
                self.fc.weight.data += 1
            if mode and not self.training:
                self.fc.weight.data -= 1
            return super().train(mode)

        def forward(self, x: Tensor) -> Any:
            return self.both(x)[0] * (1 if float(x.sum()) > -1e9 else 2)  # runs on values only

    model = Merging()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    trace(model, X.float())
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert model.training


def test_a_tensor_that_a_cache_outside_of_the_model_keeps_is_read_anew() -> None:
    grids: dict[tuple[int, ...], Tensor] = {}

    class Anchored(Net):
        def forward(self, x: Tensor) -> Any:
            h = self.a(x).relu()
            grid = grids.setdefault(tuple(h.shape), torch.ones(h.shape, dtype=h.dtype, device=h.device))
            return self.fc(self.b(h * grid).relu().mean((2, 3)))

    model = lived_in(Anchored())
    graph = trace(model, X)
    grids.clear()
    assert trace(model, X).groups == graph.groups
