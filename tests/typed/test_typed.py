"""What type checkers make of an installed prunit: real types of every public name, and users' mistakes found."""

import importlib
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import prunit

HERE = Path(__file__).parent
SOURCE = Path(prunit.__file__).parent
MISTAKES = (
    "prunit.prune",
    "prunit.build(3, 'digits', 'out')",
    "prunit.trace(torch.zeros(1), torch.zeros(1))",
    "prunit.compact(nn.Identity())",
    "prunit.Portfolio.read('out').name.missing",
    "prunit.zoo.load('vgg11', classes=3)",
    "prunit.recipe.nothing",
    "Budget.parse('macs=1/2').limits[0].nothing",
)


def public_names() -> list[tuple[str, str]]:
    """Module and name of all that has a name without an underscore, where it is defined or listed."""
    found: list[tuple[str, str]] = []
    for module in ["prunit", *(m.name for m in pkgutil.walk_packages(prunit.__path__, "prunit."))]:
        if module in ("prunit.__main__", "prunit.cli") or module.startswith("prunit.cli."):
            continue
        loaded: Any = importlib.import_module(module)
        names = getattr(loaded, "__all__", None) or [
            name
            for name, value in vars(loaded).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module and not inspect.ismodule(value)
        ]
        found += [(module, name) for name in names]
    return found


def program_of(names: list[tuple[str, str]]) -> str:
    """A user's file that imports each name and asks for its type."""
    lines = [f"from {module} import {name} as n{i}\nreveal_type(n{i})" for i, (module, name) in enumerate(names)]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with three files: everyday code, every name, and mistakes."""
    found = tmp_path_factory.mktemp("user")
    shutil.copy(HERE / "everyday.py", found / "everyday.py")
    (found / "names.py").write_text(program_of(public_names()))
    imports = ("import torch", "from torch import nn", "import prunit", "import prunit.recipe")
    begin = "\n".join((*imports, "from prunit.allocate import Budget", ""))
    (found / "mistakes.py").write_text(begin + "".join(f"_ = {line}\n" for line in MISTAKES))
    return found


def environment() -> dict[str, str]:
    """In which this prunit is found as an installed package is."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE.parent), os.environ.get("PYTHONPATH", "")])}


@cache
def told_by_pyright(folder: Path) -> list[dict[str, Any]]:
    """What basedpyright in its strict mode says, in all files."""
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "-p", str(folder), "--outputjson", "--pythonpath", sys.executable]
    child = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=folder)
    return json.loads(child.stdout)["generalDiagnostics"]


def of(told: list[dict[str, Any]], file: str, severity: str) -> list[str]:
    return [
        f"line {each['range']['start']['line'] + 1}: {each['message']}"
        for each in told
        if each["severity"] == severity and Path(each["file"]).name == file
    ]


def test_the_marker_is_there() -> None:
    assert (SOURCE / "py.typed").is_file()


@pytest.mark.slow
def test_everyday_code_has_real_types_under_pyright_strict(folder: Path) -> None:
    assert of(told_by_pyright(folder), "everyday.py", "error") == []


@pytest.mark.slow
def test_every_public_name_has_a_type_under_pyright_strict(folder: Path) -> None:
    names, told = public_names(), told_by_pyright(folder)
    assert of(told, "names.py", "error") == []
    types = [text for text in of(told, "names.py", "information") if "Type of" in text]
    assert len(types) == len(names) > 300
    unknown = [f"{module}.{name}: {text}" for (module, name), text in zip(names, types, strict=True) if is_vague(text)]
    assert unknown == []


@pytest.mark.slow
def test_mistakes_are_found_by_pyright(folder: Path) -> None:
    found = of(told_by_pyright(folder), "mistakes.py", "error")
    lines = {int(re.search(r"line (\d+)", text)[1]) for text in found}  # pyright: ignore[reportOptionalSubscript]
    assert lines == set(range(6, 6 + len(MISTAKES))), found


@pytest.mark.slow
def test_the_same_under_mypy_strict(folder: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    names = public_names()
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    files = ["everyday.py", "names.py", "mistakes.py"]
    child = subprocess.run(
        [*command, *files], capture_output=True, text=True, check=False, env=environment(), cwd=folder
    )
    lines = child.stdout.splitlines()
    assert [line for line in lines if ": error: " in line and not line.startswith("mistakes.py")] == [], child.stderr
    types = [line for line in lines if line.startswith("names.py") and "Revealed type is" in line]
    assert len(types) == len(names)
    assert [line for line in types if re.search(r'is "(Any|builtins\.object|object)"$', line)] == []
    wrong = {int(line.split(":")[1]) for line in lines if line.startswith("mistakes.py") and ": error: " in line}
    assert wrong == set(range(6, 6 + len(MISTAKES)))


def is_vague(text: str) -> bool:
    """Whether what a checker says of a name is no type, or holds a part that is none."""
    return re.search(r"\bUnknown\b", text) is not None or re.search(r'is "(Any|object)"$', text) is not None
