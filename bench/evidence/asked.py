"""The cells of a protocol as accuracies that can be compared: in percent, by arm and by pair."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.evidence.cells import Cell, Found
from bench.evidence.tasks import Task

Pair = tuple[str, str, int]
"""Setting, budget and seed: what two arms have in common when they are compared."""


@dataclass(frozen=True)
class Evidence:
    """What was found, and how to ask for it."""

    found: Found
    choosing: tuple[int, ...] = ()
    """Seeds that the default was chosen on."""

    @property
    def seeds(self) -> set[int]:
        """All seeds that are declared."""
        return {task.seed for task in self.declared()}

    @property
    def settings(self) -> list[str]:
        """Model, data and recipe, in the order in which they are declared."""
        return list(dict.fromkeys(task.setting for task in self.declared()))

    def declared(self) -> list[Task]:
        """All tasks, done or not."""
        return [*self.found.cells, *self.found.missing, *self.found.stale]

    def budgets(self, setting: str) -> list[str]:
        """The budgets of a setting that have a cell."""
        return list(dict.fromkeys(t.budget for t in self.found.cells if t.setting == setting and t.budget))

    def of(self, arm: str, *, setting: str | None = None, budget: str | None = None) -> dict[Task, Cell]:
        """The cells of an arm that have an accuracy, in a setting, at a budget (`params` for any budget of params)."""
        return {
            task: cell
            for task, cell in self.found.cells.items()
            if task.arm == arm
            and "accuracy" in cell
            and (setting is None or task.setting == setting)
            and (budget is None or budget in (task.budget, task.budget.partition("=")[0]))
        }

    def accuracies(
        self,
        arm: str,
        *,
        setting: str | None = None,
        budget: str | None = None,
        seeds: Collection[int] | None = None,
    ) -> dict[Pair, float]:
        """Accuracy after the last epoch in percent, by pair; of these seeds, or of all."""
        found = self.of(arm, setting=setting, budget=budget)
        return {
            (t.setting, t.budget, t.seed): 100 * cell["accuracy"]
            for t, cell in found.items()
            if seeds is None or t.seed in seeds
        }

    def asks_for(self, arm: str) -> bool:
        """Some cell of the arm is declared."""
        return any(task.arm == arm for task in self.declared())

    def wanted(self, arm: str, setting: str, budget: str) -> int:
        """How many seeds are declared."""
        return sum((t.arm, t.setting, t.budget) == (arm, setting, budget) for t in self.declared())

    def errors(self, arm: str, setting: str, budget: str) -> list[str]:
        """What the arm said instead of giving a model."""
        return [
            cell["error"]
            for t, cell in self.found.cells.items()
            if (t.arm, t.setting, t.budget) == (arm, setting, budget) and "error" in cell
        ]


NOTHING: Final = Evidence(Found({}, (), ()))
"""No cells, and none declared."""


def values(cells: Iterable[Mapping[str, Any]], *path: str | int) -> list[float]:
    """The figure at a path in each of the cells."""
    found = []
    for cell in cells:
        value: Any = cell
        for step in path:
            value = value[step]
        found.append(float(value))
    return found


def times_faster(cell: Cell, batch: int) -> float:
    """How many times faster than the dense model the engine answers, in turns with it."""
    latency = next(each for each in cell["latency"] if each["batch"] == batch)
    return latency["dense_p50_ms"] / latency["p50_ms"]
