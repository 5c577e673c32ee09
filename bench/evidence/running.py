"""All tasks of a protocol: one process or several, stopped at any moment and continued."""

import time
from collections.abc import Sequence
from pathlib import Path

from bench.evidence import cells
from bench.evidence.filling import Places, line
from bench.evidence.pieces import CellBench, piece_of
from bench.evidence.tasks import Task, file_of
from prunit.errors import WorkerError
from prunit.recipe.places.pieces import Executor, Here
from prunit.recipe.places.threads import told, working
from prunit.recipe.progress import Progress


def run(
    tasks: Sequence[Task],
    folder: Path,
    places: Places,
    *,
    executor: Executor | None = None,
    minutes: float | None = None,
) -> tuple[int, list[str]]:
    """How many cells were made, and a line for each that failed. No cell is begun once the minutes are over.

    What an arm cannot do (a budget out of reach, a training that diverges) is a result; a failure is anything else,
    is not stored, and stops nothing but its own cell. Without an executor one is made after the other, here.
    """
    executor = executor or Here()
    started = time.monotonic()
    until = None if minutes is None else time.time() + 60 * minutes
    by_key = {(piece := piece_of(task, until=until)).key: (task, piece) for task in tasks}
    bench = CellBench(folder, places, Progress(None))
    made, failed = 0, []
    places.scratch.mkdir(parents=True, exist_ok=True)
    try:
        with working(executor, len(by_key), places.scratch) as threads, executor.open(bench) as done:
            if how := told(executor, threads):
                print(how, flush=True)
            for piece in done(piece for _, piece in by_key.values()):
                task, _ = by_key[piece.key]
                outcome = bench.came_of(task)
                cell = cells.read(file_of(task, folder)) if outcome.made else None
                if cell is not None:
                    made, said = made + 1, line(cell)
                elif outcome.error:
                    failed, said = [*failed, f"{task.key}: {outcome.error}"], outcome.error
                else:
                    continue
                at = f"[{made + len(failed)}/{len(tasks)}, {time.monotonic() - started:.0f} s]"
                print(f"{at} {task.key}: {said}", flush=True)
    except WorkerError as error:
        raise WorkerError(str(error).replace("go on with --resume (resume=True)", "run it again")) from error
    return made, failed
