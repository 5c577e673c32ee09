"""What is tried, in two sections: timm's families, and networks of other packages; each has its result."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from bench._common import RESULTS
from bench.coverage import cells
from bench.coverage.beyond import registry
from bench.coverage.beyond.case import Beyond
from bench.coverage.selection import Case, selected

TOOLS: Final = ("prunit", "onnx", "torch-pruning")


@dataclass(frozen=True)
class Section:
    """A list of models: its name, the tools that are asked, where its result is kept, and what lists its cases."""

    name: str
    tools: tuple[str, ...]
    result: Path
    cases: Callable[[Path], Sequence[Case | Beyond]]

    def file(self, work: Path, tool: str, name: str) -> Path:
        """Where the cell of a model and a tool is kept."""
        folder = work if self.name == "timm" else work / self.name
        return folder / tool / f"{name.replace(':', '-').replace('/', '-')}.json"

    def restore(self, work: Path) -> None:
        """Give back what the stored result has and the folder of cells has not, with that result's day."""
        if not self.result.exists():
            return
        stored = json.loads(self.result.read_text(encoding="utf-8"))
        for row in stored["rows"]:
            for tool in self.tools:
                file = self.file(work, tool, row["name"])
                if row.get(tool) and not file.exists():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    cells.store({"date": stored["date"][:10]} | row[tool], file)
        if self.name == "timm":
            selection = work / "selection.json"
            if not selection.exists():
                fields = Case.__dataclass_fields__
                rows = [{key: row[key] for key in fields} for row in stored["rows"]]
                cells.store({"timm": stored["versions"]["timm"], "cases": rows}, selection)


def _timm(work: Path) -> Sequence[Case]:
    return selected(work / "selection.json")


def _beyond(work: Path) -> Sequence[Beyond]:
    return registry.everything()


SECTIONS: Final[Mapping[str, Section]] = {
    "timm": Section("timm", TOOLS, RESULTS / "coverage.json", _timm),
    "beyond": Section("beyond", ("prunit", "torch-pruning"), RESULTS / "coverage_beyond.json", _beyond),
}


def absent(cases: Sequence[Case | Beyond]) -> dict[str, str]:
    """The packages of these cases that cannot be imported, and why."""
    return registry.absent(dict.fromkeys(case.package for case in cases if isinstance(case, Beyond)))


def versions(packages: Sequence[str]) -> dict[str, Any]:
    """The versions of these packages; None for those that are not installed."""
    found: dict[str, Any] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
