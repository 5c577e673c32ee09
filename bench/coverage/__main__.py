"""Try every family of timm's CNNs and hybrids, and networks of other packages: `python -m bench.coverage`.

About an hour and a half on one core for each of the two sections. Stopped, it goes on where it was: what came of each
model and tool is a file in --work, what is there already is not done again without --fresh, and what the folder lacks
is taken from the stored results. The results and the page always hold everything in that folder.

The section 'beyond' needs bench/coverage/beyond/requirements.txt; a package that is not there is skipped with a word.

    python -m bench.coverage --section timm --tools prunit,onnx --fresh   prunit on timm again, Torch-Pruning kept
    python -m bench.coverage --section beyond --only 'monai,*:yolo*'      some of the others (names or packages)
    python -m bench.coverage --only 'regnet*,convnext_atto' --fresh       some models again (names or families)
    python -m bench.coverage --failed --fresh                             what is not exact again
    python -m bench.coverage --one resnet18                               one model, in this process, as JSON
    python -m bench.coverage --render                                     nothing again, only the page
"""

import argparse
import fnmatch
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

from bench._common import ROOT, commit, write
from bench.coverage import cells, page, tallies
from bench.coverage.beyond import registry
from bench.coverage.beyond.case import Beyond
from bench.coverage.sections import SECTIONS, TOOLS, Section, absent, versions
from bench.coverage.selection import Case, content, family_of, kind_of

WORK: Final = ROOT / "build" / "coverage"
PAGE: Final = ROOT / "docs" / "coverage.md"


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__, formatter_class=form)
    parser.add_argument("--section", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)}; default all")
    parser.add_argument("--only", default="*", metavar="PATTERNS", help="models or families, joined by commas")
    parser.add_argument("--tools", default=",".join(TOOLS), help=f"of {', '.join(TOOLS)}; default all")
    parser.add_argument("--no-onnx", action="store_true", help="do not export")
    parser.add_argument("--fresh", action="store_true", help="do again what is done")
    parser.add_argument("--failed", action="store_true", help="only what is stored as something else than exact")
    parser.add_argument("--stale", action="store_true", help="only what is stored of another state of the code")
    parser.add_argument("--one", metavar="NAME", help="one model in this process, without limits")
    parser.add_argument("--render", action="store_true", help="run nothing; write the results and the page")
    parser.add_argument("--list", action="store_true", help="print the models and stop")
    parser.add_argument("--work", type=Path, default=WORK, metavar="FOLDER")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE")
    options = parser.parse_args(arguments)
    options.tools = [t for t in options.tools.split(",") if not (options.no_onnx and t == "onnx")]
    options.sections = options.section.split(",")
    for what, asked, known in (("tools", options.tools, TOOLS), ("sections", options.sections, SECTIONS)):
        if set(asked) - set(known):
            parser.error(f"{what} are {', '.join(known)}, got {', '.join(asked)}")
    return options


def chosen(cases: Sequence[Any], patterns: str) -> list[Any]:
    """The cases whose name, family or package matches one of the patterns."""
    wanted = patterns.split(",")
    return [c for c in cases if any(fnmatch.fnmatch(n, p) for p in wanted for n in (c.name, _family(c)))]


def _family(case: Case | Beyond) -> str:
    return case.family if isinstance(case, Case) else case.package


def sweep(section: Section, cases: Sequence[Case | Beyond], options: argparse.Namespace) -> dict[str, str]:
    """Fill the cells that are missing, or all that the options ask for; the packages that are missing, and why."""
    state = commit()
    todo: list[tuple[Case | Beyond, str]] = []
    tools = [tool for tool in options.tools if tool in section.tools]
    for tool in tools:
        for case in cases:
            found = cells.read(section.file(options.work, tool, case.name))
            if found is None or not cells.finished(found) or _again(found, options, state):
                todo.append((case, tool))
    missing = absent([case for case, _ in todo])
    for package, why in missing.items():
        print(f"skipped {package}: {why}", flush=True)
    todo = [(case, tool) for case, tool in todo if _family(case) not in missing]
    if todo:
        cells.warm_up(tools)
    start = time.monotonic()
    for i, (case, tool) in enumerate(todo, 1):
        cell = cells.run(case, tool, section.file(options.work, tool, case.name), commit=state)
        spent = time.monotonic() - start
        print(f"[{i}/{len(todo)}, {spent:.0f} s] {tool}: {tallies.line(case.name, cell)}", flush=True)
    return missing


def _again(cell: cells.Cell, options: argparse.Namespace, state: str | None) -> bool:
    """Whether a finished cell is asked for again."""
    if options.stale:
        return cell["commit"] != state
    return options.fresh and not (options.failed and cell["status"] == "exact")


def merged(section: Section, work: Path, missing: dict[str, str]) -> dict[str, Any]:
    """The section's result from all of its cells in the folder."""
    cases = section.cases(work)
    found = {tool: {c.name: cells.read(section.file(work, tool, c.name)) for c in cases} for tool in section.tools}
    if section.name == "timm":
        return page.merged([c for c in cases if isinstance(c, Case)], found)
    others = [c for c in cases if isinstance(c, Beyond)]
    there = {c.package for c in others if any(of_tool.get(c.name) for of_tool in found.values())}
    missing = {package: why for package, why in missing.items() if package not in there}
    return page.merged_beyond(others, found, versions(list(registry.PACKAGES)), missing)


def one(name: str, tools: Sequence[str]) -> None:
    """Print what comes of one model, in this process."""
    case: Any = next((c for c in registry.everything() if c.name == name), None)
    if case is None:
        size, spatial, attention = content(name)
        case = Case(name, family_of(name), kind_of(spatial, attention), size, 0, spatial, attention)
    else:
        print(absent([case]) or "", end="")
    cells.warm_up([])
    for tool in tools:
        print(json.dumps(cells.fill(tool, case.make), indent=1))


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    if options.one:
        one(options.one, options.tools)
        return
    results: dict[str, dict[str, Any]] = {}
    for name, section in SECTIONS.items():
        if name not in options.sections:
            if section.result.exists():
                results[name] = json.loads(section.result.read_text(encoding="utf-8"))
            continue
        section.restore(options.work)
        cases = section.cases(options.work)
        if options.list:
            for case in cases:
                print(f"{name:8} {_family(case):40} {case.name}")
            continue
        missing = {} if options.render else sweep(section, chosen(cases, options.only), options)
        results[name] = merged(section, options.work, missing)
        write(results[name], section.result)
    if not options.list:
        options.page.write_text(page.render(results["timm"], results.get("beyond")), encoding="utf-8")
        print(f"wrote {options.page}")


if __name__ == "__main__":
    main()
