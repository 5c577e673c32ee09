"""Train what was pruned, side by side, and write what came of it.

    python -m bench.evidence run cpu --jobs 2               fill the cells that are missing
    python -m bench.evidence run cpu --ray 10.0.0.1:6379    the same as tasks of Ray; all nodes must see the folders
    python -m bench.evidence run gpu --minutes 9            the same, beginning none after nine minutes: run it again
    python -m bench.evidence run cpu --only 'reconvene-*'   some arms, or cells: 'resnet20-*/params-1-8/uniform.*'
    python -m bench.evidence list gpu                       how many there are, and what is missing
    python -m bench.evidence again FILE                     one cell again, beside what it said
    python -m bench.evidence latency gpu                    their latency once more, on a machine that is idle else
    python -m bench.evidence steps cpu                      time training steps at the widths of cells that lack it
    python -m bench.evidence merge FOLDER                   take in cells that were made elsewhere
    python -m bench.evidence table                          write docs/evidence.md and its pictures from the cells
    python -m bench.evidence plot                           the same pictures to look into, build/evidence/PROTOCOL.html

A run may be stopped at any moment; what it had finished is not done again. `cpu` and `gpu` need CIFAR-10, `tiny` needs
Tiny ImageNet, in the folder --data-dir or PRUNIT_DATA.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench._common import ROOT
from bench.evidence import cells, page, plots, running
from bench.evidence.arms import HOUR
from bench.evidence.asked import Evidence
from bench.evidence.filling import MEASURED, Places, checkpoint_of, fill, line, measured_again, timed_again
from bench.evidence.pictures import pictures
from bench.evidence.protocols import PROTOCOLS, chosen, protocol
from bench.evidence.tasks import Task
from prunit.errors import ConfigError, PrunitError
from prunit.files import write_atomically
from prunit.recipe.config import BuildConfig
from prunit.recipe.places.asked import check_ray
from prunit.recipe.places.on_ray import OnRay
from prunit.recipe.places.pieces import Executor, Here
from prunit.recipe.places.processes import Processes

WORK: Final = ROOT / "build" / "evidence"
PAGE: Final = ROOT / "docs" / "evidence.md"


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.evidence", description=__doc__, formatter_class=form)
    parser.add_argument("command", choices=tuple(COMMANDS))
    parser.add_argument("what", nargs="?", default="", help=f"a protocol ({', '.join(PROTOCOLS)}), a file or a folder")
    parser.add_argument("--only", default="*", metavar="PATTERNS", help="arms or cells, joined by commas")
    parser.add_argument("--jobs", type=int, help="cells at a time, a process each; default 1, on Ray as many as fit")
    parser.add_argument("--ray", metavar="ADDRESS", help="as tasks of Ray: local, auto or HOST:PORT")
    parser.add_argument("--cpus-per-trial", type=int, metavar="N", help="on Ray, and so many threads; default 1")
    parser.add_argument("--gpus-per-trial", type=float, metavar="SHARE", help="on Ray; default 0")
    parser.add_argument("--minutes", type=float, help="begin no cell after so long")
    parser.add_argument("--fresh", action="store_true", help="do again what is done")
    parser.add_argument("--work", type=Path, default=WORK, metavar="FOLDER", help="checkpoints, pictures")
    parser.add_argument(
        "--cells", type=Path, metavar="FOLDER", help="default: bench/results/evidence; smoke: in --work"
    )
    parser.add_argument("--data-dir", type=Path, metavar="FOLDER", help="default: PRUNIT_DATA")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE")
    return parser.parse_args(arguments)


def folder_of(options: argparse.Namespace, name: str) -> Path:
    """The folder of all cells. Those of the smoke test are not evidence: they stay out of what is committed."""
    return options.cells or (options.work / "cells" if name == "smoke" else cells.CELLS)


def executor_of(options: argparse.Namespace) -> Executor:
    """Where cells are made; `ConfigError` where that cannot be."""
    check_ray(options.ray, options.cpus_per_trial, options.gpus_per_trial, BuildConfig(), what="protocol")
    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs}: it must be a whole number, at least 1, of cells at the same time")
    if options.ray is not None:
        cpus, gpus = options.cpus_per_trial or 1, options.gpus_per_trial or 0.0
        return OnRay(options.ray, jobs=options.jobs, cpus=cpus, gpus=gpus)
    return Here() if options.jobs in (None, 1) else Processes(options.jobs)


def run(options: argparse.Namespace) -> int:
    """Fill what is missing; the exit status."""
    wanted = protocol(options.what)
    folder = folder_of(options, wanted.name)
    tasks = chosen(wanted.tasks(), options.only)
    found = cells.find(tasks, folder)
    todo = tasks if options.fresh else [task for task in tasks if task not in found.cells]
    places = Places(options.work, options.data_dir)
    for task in todo if options.fresh else ():
        checkpoint_of(task, places).unlink(missing_ok=True)
    made, failed = running.run(todo, folder, places, executor=executor_of(options), minutes=options.minutes)
    print(f"{wanted.name}: {made} cells made, {len(todo) - made} of {len(tasks)} missing")
    for text in failed:
        print(f"failed: {text}")
    return 1 if failed else 0


def listing(options: argparse.Namespace) -> int:
    """What is declared, what is there and what is missing."""
    for name in [options.what] if options.what else PROTOCOLS:
        wanted = protocol(name)
        tasks = chosen(wanted.tasks(), options.only)
        found = cells.find(tasks, folder_of(options, name))
        told = f"{len(found.cells)} of {found.tasks} cells, {len(found.stale)} out of date"
        print(f"{name}: {wanted.about}; {told}")
        for setting, n in Counter(f"{t.setting} {t.budget or 'dense'}" for t in (*found.missing, *found.stale)).items():
            print(f"  missing {n:4} of {setting}")
    return 0


def again(options: argparse.Namespace) -> int:
    """Fill a stored cell's task once more and compare: 0 if the same channels were kept."""
    file = Path(options.what)
    old = cells.read(file)
    if old is None:
        raise ConfigError(f"there is no cell '{file}': name a file below {cells.CELLS}")
    task = _task_of(file, old)
    with tempfile.TemporaryDirectory(prefix="prunit-evidence-") as scratch:
        new = fill(task, Places(Path(scratch), options.data_dir))
    print(f"{task.key}\n  was  plan {old.get('plan')}: {line(old)}\n  now  plan {new.get('plan')}: {line(new)}")
    return 0 if old.get("plan") == new.get("plan") else 1


def _task_of(file: Path, cell: cells.Cell) -> Task:
    declared = protocol(cell["task"]["protocol"]).tasks()
    for task in declared:
        if task.digest == cell["digest"]:
            return task
    raise ConfigError(f"'{file}' is of settings that its protocol no longer has: it is out of date, run it again")


def merge(options: argparse.Namespace) -> int:
    """Take in the cells of a folder; 1 if some do not agree with those that are there."""
    if not Path(options.what).is_dir():
        raise ConfigError(f"'{options.what}' is no folder of cells: name one that holds {', '.join(PROTOCOLS)} …")
    told: list[str] = []
    for wanted in PROTOCOLS.values():
        added, lines = cells.merge(wanted.tasks(), Path(options.what), folder_of(options, wanted.name))
        told += lines
        if added:
            print(f"{wanted.name}: {added} cells added")
    print("\n".join(told) if told else "no two cells contradict each other")
    return 1 if told else 0


def table(options: argparse.Namespace) -> int:
    """Write the page: of one protocol, or of all that are evidence."""
    names = [options.what] if options.what else [name for name in PROTOCOLS if name != "smoke"]
    found = {name: cells.find(protocol(name).tasks(), folder_of(options, name)) for name in names}
    folder = options.page.parent / page.PICTURES
    drawn = {file: text for each in found.values() for file, text in pictures(Evidence(each)).items()}
    for old in folder.glob("*.svg"):
        if old.name not in drawn:
            old.unlink()
    for file, text in drawn.items():
        write_atomically(folder / file, text)
    write_atomically(options.page, page.render(found))
    print(f"wrote {options.page} and {len(drawn)} pictures")
    return 0


def plot(options: argparse.Namespace) -> int:
    """Write the pictures of one protocol, or of all that have cells."""
    for name in [options.what] if options.what else PROTOCOLS:
        found = cells.find(protocol(name).tasks(), folder_of(options, name))
        if not found.cells:
            print(f"{name}: no cells, nothing to draw")
            continue
        file = options.work / f"{name}.html"
        write_atomically(file, plots.html(name, found))
        print(f"wrote {file}")
    return 0


def latency(options: argparse.Namespace) -> int:
    """Measure the exported models of a protocol's cells once more, here; one of equal widths once."""
    folder = folder_of(options, options.what)
    found = cells.find(chosen(protocol(options.what).tasks(), options.only), folder)
    places = Places(options.work, options.data_dir)
    known: dict[str, cells.Cell] = {}
    for i, (task, cell) in enumerate(found.cells.items(), 1):
        if "error" in cell:
            continue
        widths = f"{task.setting} {cell['widths']}"
        known[widths] = new = known.get(widths) or measured_again(task, cell, places)
        cells.store({**cell, **{name: new[name] for name in (*MEASURED, "measured")}}, task, folder)
        print(f"[{i}/{len(found.cells)}] {task.key}: {line({**cell, 'latency': new['latency']})}", flush=True)
    return 0


def steps(options: argparse.Namespace) -> int:
    """Time training steps at the widths of the cells that are compared by their training time and lack it."""
    folder = folder_of(options, options.what)
    found = cells.find(chosen(protocol(options.what).tasks(), options.only), folder)
    lacking = {t: c for t, c in found.cells.items() if t.arm in HOUR and "accuracy" in c and not c.get("steps")}
    for i, (task, cell) in enumerate(lacking.items(), 1):
        new = timed_again(task, cell, Places(options.work, options.data_dir))
        cells.store(new, task, folder)
        share = new["steps"]["pruned_s"] / new["steps"]["dense_s"]
        print(f"[{i}/{len(lacking)}] {task.key}: a step takes {share:.2f} of the dense model's", flush=True)
    return 0


COMMANDS: Final = {
    "run": run,
    "steps": steps,
    "list": listing,
    "again": again,
    "latency": latency,
    "merge": merge,
    "table": table,
    "plot": plot,
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    try:
        return COMMANDS[options.command](options)
    except PrunitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
