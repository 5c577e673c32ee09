"""Progress on standard error: bars in a terminal, a line now and then elsewhere."""

import sys
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from prunit.errors import harmless

if TYPE_CHECKING:
    from prunit.recipe import Step

_WORDS: Final = {
    "check": "checking model and data",
    "prune": "scoring",
    "measure": "timing plans",
    "pace": "timing training steps",
    "plan": "planned",
    "train": "training",
    "try": "trying",
    "evaluate": "evaluating",
    "export": "exporting",
    "quantise": "quantising",
    "memory": "measuring memory",
    "probe": "measuring latency",
    "report": "writing the report",
    "install": "installing",
    "judge": "judging images",
    "send": "sending",
    "fetch": "bringing the portfolio here",
}
_LOG_EVERY_S: Final = 30.0
"""How often a long stage says how far it is where there is no terminal."""


class Bars:
    """A bar for each stage that is running and, from the first training on, one for the whole build.

    Most often that is one stage; where several variants are worked on at the same time, each place has its bar.
    The remaining time of a stage is extrapolated from its own recent speed; that of the whole build also counts the
    exports and measurements to come.
    """

    def __init__(self) -> None:
        console = Console(stderr=True, emoji=False)
        self._live = console.is_terminal
        wide = console.width >= 100
        self._progress = Progress(
            TextColumn(
                "{task.description}",
                style="bold",
                markup=False,
                table_column=Column(no_wrap=True, max_width=console.width // 2),
            ),
            BarColumn(bar_width=28 if wide else 12),
            _Percentage(),
            TimeElapsedColumn(),
            _Left(),
            *(
                [TextColumn("{task.fields[note]}", style="dim", markup=False, table_column=Column(no_wrap=True))]
                if wide
                else []
            ),
            console=console,
            transient=True,
            disable=not self._live,
            speed_estimate_period=60,
        )
        # There from the start, so that it stays on top of the stages that come and go.
        self._whole = self._progress.add_task("whole build", total=1.0, note="", ends_at=None, visible=False)
        self._stages: dict[int, tuple[str, TaskID]] = {}
        self._said_at: dict[int, float] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, step: "Step") -> None:
        """Show a step of a build."""
        if step.stage == "plan":
            self._keep(step.note)
            return
        if step.stage == "wait":
            self._remove(step.place)
            return
        self._tell(step)
        if step.left_s is None:
            return
        self._progress.update(self._whole, completed=step.overall, ends_at=monotonic() + step.left_s, visible=True)
        since_s = monotonic() - self._said_at.get(step.place, 0.0)
        if not self._live and since_s > _LOG_EVERY_S and step.stage == "train":
            note, (name, _) = f", {step.note}" if step.note else "", self._stages[step.place]
            self._say(f"{name} {step.done / step.total:.0%}{note}; about {_time(step.left_s)} left in all", step.place)

    def tell(self, variant: str, stage: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` units of a stage are finished; a total of 0 is not known."""
        self._tell(_Told(variant, stage, done, total, note))

    def _tell(self, step: "Step | _Told") -> None:
        words = _WORDS.get(step.stage, step.stage)
        alone = step.stage in ("check", "memory", "probe", "report", "pace", "judge", "send", "fetch")
        task = self._show(words if alone else f"{step.variant}: {words}", step.place)
        self._progress.update(task, completed=step.done, total=step.total or None, note=harmless(step.note))

    def wait(self, what: str) -> None:
        """Show that something goes on of which nobody knows how long it takes."""
        self._show(what)

    def _show(self, name: str, place: int = 0) -> TaskID:
        """The bar of that name, the only one at its place."""
        name = harmless(name)
        for other in [other for other in self._stages if not (place and other) and other != place]:
            self._remove(other)
        if place in self._stages and self._stages[place][0] == name:
            return self._stages[place][1]
        self._remove(place)
        self._stages[place] = name, self._progress.add_task(name, total=None, note="", ends_at=None)
        self._say(name, place)
        return self._stages[place][1]

    def _remove(self, place: int) -> None:
        if place in self._stages:
            self._progress.remove_task(self._stages.pop(place)[1])

    def _keep(self, text: str) -> None:
        """A line that stays, on a terminal above the bars."""
        if self._live:
            self._progress.console.print(harmless(text), style="dim", markup=False, highlight=False)
        self._say(text)

    def _say(self, text: str, place: int = 0) -> None:
        """A line for those who watch a log instead of a terminal."""
        if not self._live:
            self._said_at[place] = monotonic()
            sys.stderr.write(f"{harmless(text)}\n")
            sys.stderr.flush()


class _Told(NamedTuple):
    """What `Bars.tell` is told, as a step."""

    variant: str
    stage: str
    done: int
    total: int
    note: str
    place: int = 0


class _Percentage(ProgressColumn):
    """How much is done, nothing where that is not known."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.percentage:3.0f}%", "cyan")


class _Left(ProgressColumn):
    """The remaining time: what the task says itself, else extrapolated; nothing where there is nothing to tell from."""

    def render(self, task: Task) -> Text:
        ends_at = task.fields.get("ends_at")
        left_s = task.time_remaining if ends_at is None else max(ends_at - monotonic(), 0.0)
        return Text("" if left_s is None or task.total is None else f"{_time(left_s)} left", "magenta")


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
