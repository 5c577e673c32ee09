"""Does the test suite notice when the source is wrong? Breaks lines of it one at a time and runs the tests of each.

    python3 scripts/mutants.py [--lines 40] [--seed 0] [--json FILE]     # of the files of src/prunit, drawn at random
    python3 scripts/mutants.py --again FILE                              # the same lines, with the tests as they are

A line is broken in one place: a comparison or an operation becomes its neighbour, a number one more, `and` becomes
`or`. The tests that mirror the module run until one fails, all tests where it has none of its own; with `--all` the
others too where those notice nothing. Everything happens in a copy of the checkout. What no test notices is not
always a fault: some changes leave the behaviour as it was.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import _env

SOURCE = Path("src/prunit")
TIMEOUT_S = 900
_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A change in a file: which of the places that can be changed, its line, and what is changed there."""

    file: str
    place: int
    line: int
    what: str


def mutants_of(file: str, text: str) -> Iterator[Mutant]:
    """Every change of the file that is known how to make."""
    for place, (node, what) in enumerate(_places(ast.parse(text))):
        yield Mutant(file, place, getattr(node, "lineno", 0), what)


def changed(text: str, place: int) -> str:
    """The file's text with the change at that place; comments and blank lines are lost."""
    tree = ast.parse(text)
    node, _ = list(_places(tree))[place]
    if isinstance(node, ast.Compare):
        node.ops[0] = _SWAPS[type(node.ops[0])]()  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(node, ast.BinOp | ast.BoolOp):
        node.op = _SWAPS[type(node.op)]()  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
        node.operand = ast.UnaryOp(ast.Not(), node.operand) if isinstance(node.op, ast.Not) else node.operand
    elif isinstance(node, ast.Constant):
        node.value = int(node.value) + 1  # pyright: ignore[reportArgumentType]
    return ast.unparse(ast.fix_missing_locations(tree))


def _places(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    hints = {id(part) for node in ast.walk(tree) for hint in _hints(node) for part in ast.walk(hint)}
    for node in ast.walk(tree):
        if id(node) in hints:
            continue
        if isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPS:
            yield node, type(node.ops[0]).__name__
        elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in _SWAPS:
            yield node, type(node.op).__name__
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            yield node, type(node.op).__name__
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield node, f"{node.value} + 1"


def _hints(node: ast.AST) -> list[ast.AST]:
    """Annotations, which are never run, and decorators."""
    found = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    return [part for part in (*found, *getattr(node, "decorator_list", ())) if part is not None]


def tests_of(root: Path, file: str) -> list[str]:
    """The folder of tests that mirrors the deepest package of the module for which there is one."""
    folder = Path(file).relative_to(SOURCE).parent
    for each in (folder, *folder.parents):
        if each != Path() and (root / "tests" / each).is_dir():
            return [str(Path("tests") / each)]
    return []


def noticed(copy: Path, tests: list[str]) -> str:
    """What became of the tests on the changed source: the first that failed, 'too slow', or '' where all passed."""
    environment = {**os.environ, "PYTHONPATH": f"{copy / 'src'}{os.pathsep}{copy}", "OMP_NUM_THREADS": "1"}
    command = [str(_env.BIN / "pytest"), "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "too slow"
    if done.returncode == 0:
        return ""
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0] if failed else f"exit code {done.returncode}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", type=Path, metavar="FILE", help="the lines of an earlier run")
    parser.add_argument("--all", action="store_true", help="all tests for what those of the module do not notice")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    _env.ensure("train,zoo,serve,dev")
    texts = {str(f.relative_to(_env.ROOT)): f.read_text("utf-8") for f in sorted((_env.ROOT / SOURCE).rglob("*.py"))}
    if options.again:
        fields = ("file", "place", "line", "what")
        drawn = [Mutant(*(row[name] for name in fields)) for row in json.loads(options.again.read_text("utf-8"))]
    else:
        drawn = random.Random(options.seed).sample(
            [m for f, t in texts.items() for m in mutants_of(f, t)], options.lines
        )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "prunit"
        listed = subprocess.run(["git", "ls-files"], cwd=_env.ROOT, capture_output=True, text=True, check=True).stdout
        for name in listed.splitlines():
            if (_env.ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(_env.ROOT / name, copy / name)
        for mutant in drawn:
            (copy / mutant.file).write_text(changed(texts[mutant.file], mutant.place), "utf-8")
            tests = tests_of(copy, mutant.file)
            found = noticed(copy, tests)  # without a folder of their own, all
            if not found and tests and options.all:
                found = noticed(copy, [])
            (copy / mutant.file).write_text(texts[mutant.file], "utf-8")
            rows.append(asdict(mutant) | {"noticed": found})
            print(f"{mutant.file}:{mutant.line}  {mutant.what}  {found or '—'}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    print(f"{sum(bool(row['noticed']) for row in rows)} of {len(rows)} noticed")


if __name__ == "__main__":
    main()
