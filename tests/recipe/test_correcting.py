"""Of whole and half blocks of channels the plan is taken that is better balanced."""

from types import SimpleNamespace
from typing import Any

import pytest

from prunit.allocate import Budget
from prunit.errors import BudgetError
from prunit.mcu.parts import part
from prunit.recipe import correcting
from prunit.recipe.config import PruneConfig
from prunit.recipe.on_parts import PartMeter

BUDGET = Budget.parse("cycles=1/3@ethos-u55-128")


def scored(name: str, on: str) -> Any:
    asked: Any = SimpleNamespace(part=part(on))
    return SimpleNamespace(meters={name: PartMeter(name, asked)}, graph=None)


def holding(monkeypatch: pytest.MonkeyPatch, found: dict[Any, float | None]) -> list[Any]:
    """Replaces the search for one rounding: the plan's balance by `round_to`, None where out of reach."""
    asked: list[Any] = []

    def met(scored: Any, budget: Budget, config: PruneConfig) -> Any:
        asked.append(config.round_to)
        one = found[config.round_to]
        if one is None:
            raise BudgetError(f"out of reach with {config.round_to}", {})
        return SimpleNamespace(round_to=config.round_to, plan=SimpleNamespace(widths=one))

    monkeypatch.setattr(correcting, "_met", met)
    monkeypatch.setattr(correcting, "balance", lambda graph, widths: widths)
    return asked


@pytest.mark.parametrize(("whole", "half", "taken"), [(-3.0, -3.5, "auto"), (-3.0, -2.5, 4), (None, -9.0, 4)])
def test_the_better_balanced_plan_is_taken(
    monkeypatch: pytest.MonkeyPatch, whole: float | None, half: float, taken: Any
) -> None:
    holding(monkeypatch, {"auto": whole, 4: half})
    found: Any = correcting.met_by_tools(scored("cycles", "ethos-u55-128"), BUDGET, PruneConfig())
    assert found.round_to == taken


def test_who_says_a_rounding_gets_it_and_memory_goes_by_single_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = holding(monkeypatch, {"auto": -1.0, 8: -1.0})
    correcting.met_by_tools(scored("cycles", "ethos-u55-128"), BUDGET, PruneConfig(round_to=8))
    correcting.met_by_tools(scored("arena_bytes", "tflm"), BUDGET, PruneConfig())
    assert asked == [8, "auto"]


def test_the_first_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    holding(monkeypatch, {"auto": None, 4: None})
    with pytest.raises(BudgetError, match="with auto"):
        correcting.met_by_tools(scored("cycles", "ethos-u55-128"), BUDGET, PruneConfig())
