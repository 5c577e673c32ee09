"""The rules of the house that a machine can check: floors, lean imports, small files, documented functions."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
HEAVY = ("torch", "onnx", "onnxruntime", "safetensors", "lightning_fabric", "timm", "torchvision", "plotly", "sklearn")


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )


def test_floors_import_only_lower_ones() -> None:
    pytest.importorskip("importlinter")
    found = run_python("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout


@pytest.mark.parametrize("module", ["prunit", "prunit.cli", "prunit.edge", "prunit.errors"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    found = run_python("-c", code)
    assert found.stdout.strip() == "[]", found.stdout + found.stderr


def test_public_names_resolve_and_are_sorted() -> None:
    import prunit

    assert list(prunit.__all__) == sorted(prunit.__all__)
    assert all(getattr(prunit, name) is not None for name in prunit.__all__)
    assert set(prunit.__all__) <= set(dir(prunit))


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda p: p.stem)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes of a module that others may use."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_modules_and_what_they_offer_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body
    assert [node.name for node in definitions(tree) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_signatures_are_explicit(path: Path) -> None:
    faults = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if any(a.annotation is None for a in named if a.arg not in ("self", "cls")) or node.returns is None:
            faults.append(f"{node.name}: not annotated")
        if node.args.kwarg:
            faults.append(f"{node.name}: **{node.args.kwarg.arg}")
        if any(isinstance(d, ast.List | ast.Dict | ast.Set) for d in (*node.args.defaults, *node.args.kw_defaults)):
            faults.append(f"{node.name}: a mutable default")
    assert faults == []
