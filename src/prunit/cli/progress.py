"""Progress on standard error: bars in a terminal, a line now and then elsewhere."""

import sys
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

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
}
_LOG_EVERY_S: Final = 30.0
"""How often a long stage says how far it is where there is no terminal."""


class Bars:
    """One bar for the stage that is running and, from the first training on, one for the whole build.

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
        self._stage: TaskID | None = None
        self._name = ""
        self._said_at = monotonic()

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
        self.tell(step.variant, step.stage, step.done, step.total, step.note)
        if step.left_s is None:
            return
        self._progress.update(self._whole, completed=step.overall, ends_at=monotonic() + step.left_s, visible=True)
        if not self._live and monotonic() - self._said_at > _LOG_EVERY_S and step.stage == "train":
            note = f", {step.note}" if step.note else ""
            self._say(f"{self._name} {step.done / step.total:.0%}{note}; about {_time(step.left_s)} left in all")

    def tell(self, variant: str, stage: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` units of a stage are finished; a total of 0 is not known."""
        words = _WORDS.get(stage, stage)
        self._show(words if stage in ("check", "memory", "probe", "report", "pace", "judge") else f"{variant}: {words}")
        assert self._stage is not None
        self._progress.update(self._stage, completed=done, total=total or None, note=harmless(note))

    def wait(self, what: str) -> None:
        """Show that something goes on of which nobody knows how long it takes."""
        self._show(what)

    def _show(self, name: str) -> None:
        name = harmless(name)
        if name == self._name:
            return
        if self._stage is not None:
            self._progress.remove_task(self._stage)
        self._name = name
        self._stage = self._progress.add_task(name, total=None, note="", ends_at=None)
        self._say(name)

    def _keep(self, text: str) -> None:
        """A line that stays, on a terminal above the bars."""
        if self._live:
            self._progress.console.print(harmless(text), style="dim", markup=False, highlight=False)
        self._say(text)

    def _say(self, text: str) -> None:
        """A line for those who watch a log instead of a terminal."""
        if not self._live:
            self._said_at = monotonic()
            sys.stderr.write(f"{harmless(text)}\n")
            sys.stderr.flush()


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
