"""Try every family of timm's CNNs and hybrids: `python -m bench.coverage`, about an hour and a half on one core.

Stopped, it goes on where it was: what came of each model and tool is a file in --work, and what is there already is not
done again without --fresh. The result and the page always hold everything in that folder.

    python -m bench.coverage --no-onnx --tools prunit --fresh         all of prunit again
    python -m bench.coverage --only 'regnet*,convnext_atto' --fresh   some models again (names or families)
    python -m bench.coverage --failed --fresh                         what is not exact again
    python -m bench.coverage --one resnet18                           one model, in this process, as JSON
    python -m bench.coverage --render                                 nothing again, only the page
"""

import argparse
import fnmatch
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from bench._common import RESULTS, ROOT, commit, write
from bench.coverage import cells, page
from bench.coverage.selection import Case, content, family_of, kind_of, selected

TOOLS: Final = ("prunit", "onnx", "torch-pruning")
WORK: Final = ROOT / "build" / "coverage"
PAGE: Final = ROOT / "docs" / "coverage.md"


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__, formatter_class=form)
    parser.add_argument("--only", default="*", metavar="PATTERNS", help="models or families, joined by commas")
    parser.add_argument("--tools", default=",".join(TOOLS), help=f"of {', '.join(TOOLS)}; default all")
    parser.add_argument("--no-onnx", action="store_true", help="do not export")
    parser.add_argument("--fresh", action="store_true", help="do again what is done")
    parser.add_argument("--failed", action="store_true", help="only what is stored as something else than exact")
    parser.add_argument("--one", metavar="NAME", help="one model of timm in this process, without limits")
    parser.add_argument("--render", action="store_true", help="run nothing; write the result and the page")
    parser.add_argument("--list", action="store_true", help="print the models and stop")
    parser.add_argument("--work", type=Path, default=WORK, metavar="FOLDER")
    parser.add_argument("--json", type=Path, default=RESULTS / "coverage.json", metavar="FILE")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE")
    options = parser.parse_args(arguments)
    options.tools = [t for t in options.tools.split(",") if not (options.no_onnx and t == "onnx")]
    if set(options.tools) - set(TOOLS):
        parser.error(f"tools are {', '.join(TOOLS)}, got {', '.join(options.tools)}")
    return options


def chosen(cases: Sequence[Case], patterns: str) -> list[Case]:
    """The cases whose name or family matches one of the patterns."""
    wanted = patterns.split(",")
    return [c for c in cases if any(fnmatch.fnmatch(n, p) for p in wanted for n in (c.name, c.family))]


def sweep(cases: Sequence[Case], options: argparse.Namespace) -> None:
    """Fill the cells that are missing, or all that the options ask for."""
    state = commit()
    todo: list[tuple[Case, str]] = []
    for tool in options.tools:
        for case in cases:
            found = cells.read(cell_file(options.work, tool, case.name))
            done = cells.finished(found)
            asked = not options.failed or not done or found["status"] != "exact"
            if asked and (options.fresh or not done):
                todo.append((case, tool))
    if todo:
        cells.warm_up(options.tools)
    start = time.monotonic()
    for i, (case, tool) in enumerate(todo, 1):
        cell = cells.run(case, tool, cell_file(options.work, tool, case.name), commit=state)
        spent = time.monotonic() - start
        print(f"[{i}/{len(todo)}, {spent:.0f} s] {tool}: {page.line(case, cell)}", flush=True)


def cell_file(work: Path, tool: str, name: str) -> Path:
    """Where the cell of a model and a tool is kept."""
    return work / tool / f"{name}.json"


def one(name: str, tools: Sequence[str]) -> None:
    """Print what comes of one model of timm, in this process."""
    size, spatial, attention = content(name)
    case = Case(name, family_of(name), kind_of(spatial, attention), size, 0, spatial, attention)
    cells.warm_up([])
    for tool in tools:
        print(json.dumps(cells.fill(tool, case.make), indent=1))


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    if options.one:
        one(options.one, options.tools)
        return
    cases = selected(options.work / "selection.json")
    if options.list:
        for case in cases:
            print(f"{case.kind:7} {case.family:40} {case.name:35} {case.image_size:4} px {case.params / 1e6:7.2f} M")
        return
    if not options.render:
        sweep(chosen(cases, options.only), options)
    found = {tool: {c.name: cells.read(cell_file(options.work, tool, c.name)) for c in cases} for tool in TOOLS}
    result = page.merged(cases, found)
    write(result, options.json)
    options.page.write_text(page.render(result), encoding="utf-8")
    print(f"wrote {options.page}")
    print(page.headline(result))


if __name__ == "__main__":
    main()
