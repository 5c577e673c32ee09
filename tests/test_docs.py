"""The documentation keeps up: paths exist, names are covered, examples and code blocks run."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
import typer

import prunit
from prunit import zoo
from prunit.cli.commands import app
from prunit.cut.plans import keep_all
from prunit.cut.surgery import Rectify, check_runs, compact
from prunit.graph import trace
from prunit.recipe.config import BuildConfig, read_config, setting_names
from prunit.recipe.recipes import RECIPES
from prunit.recipe.reconvene import EVALUATORS
from prunit.scores import SCORES
from tests.edge.folders import portfolio_in
from tests.nets import random_plan

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "prunit"
CARDS = ROOT / "docs" / "cards"
EXAMPLES = ROOT / "examples"
MAP = (ROOT / "docs" / "map.md").read_text("utf-8")
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *ROOT.glob("README.md")]
HEADINGS = [
    "What it does",
    "Use it",
    "The idea in one formula",
    "Where it comes from",
    "Switches",
    "Cost",
    "Pitfalls",
]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """Line number and text of the page's code blocks whose info string is exactly `language`."""
    text = page.read_text("utf-8")
    for match in FENCE.finditer(text):
        if match[1].strip() == language:
            yield text.count("\n", 0, match.start()) + 2, match[2]


def commands(page: Path) -> Iterator[str]:
    """The prunit commands in the page's shell blocks, without comments."""
    for _, text in blocks(page, "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            yield from (part.strip() for part in line.split("#")[0].split(";") if part.strip().startswith("prunit "))


def modules() -> list[str]:
    return sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small only wait for each other with more
    yield
    torch.set_num_threads(before)


# ── the map ──


def test_the_map_mentions_every_file() -> None:
    named = set(re.findall(r"`([\w/]+\.\w+)`", MAP))
    # A package is there by its files; its __init__ need not be named.
    assert [m for m in modules() if m not in named and not m.endswith("/__init__.py")] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_path_that_is_named_exists(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    links = [target for target in re.findall(r"\]\(([^)#]+)", text) if not target.startswith("http")]
    wrong = [target for target in links if not (page.parent / target).exists()]
    # `graph/labels.py` stands for src/prunit/graph/labels.py; a word in capitals for something that the user has.
    paths = re.findall(r"`([a-z_.][\w.-]*/[\w./-]*|[a-z_]+\.(?:py|md|toml))`", text)
    # `../shared/datasets` lies beside some checkouts and not beside others.
    theirs = ("my_model.py", "my_data.py", "../shared/datasets")
    own = [p for p in paths if p not in theirs and not re.search(r"[A-Z]{2,}", p)]
    wrong += [p for p in own if not any((base / p).exists() for base in (ROOT, SOURCE, page.parent))]
    assert wrong == []


def test_the_map_shows_the_floors_as_they_are() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = next(c for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    real = [{name.strip().removeprefix("prunit.") for name in layer.split("|")} for layer in contract["layers"]]
    shown = FENCE.search(MAP, MAP.index("## Floors"))
    assert shown is not None
    assert [{name.strip() for name in line.split("·")} for line in shown[2].strip().splitlines()] == real


def test_no_module_hides_a_public_function() -> None:
    tops = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert tops & set(prunit.__all__) == {"portfolio", "zoo"}


# ── the cards ──


def test_every_method_has_a_card() -> None:
    text = "\n".join(card.read_text("utf-8") for card in CARDS.glob("*.md") if card.name != "README.md")
    names = [*SCORES, *RECIPES, *EVALUATORS, *get_args(Rectify)]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_index_of_cards_is_complete() -> None:
    text = (CARDS / "README.md").read_text("utf-8")
    assert [card.name for card in sorted(CARDS.glob("*.md")) if f"]({card.name})" not in text] == ["README.md"]
    assert [n for n in [*SCORES, *RECIPES, *EVALUATORS, *get_args(Rectify)] if f"`{n}`" not in text] == []


def test_the_index_of_decisions_is_complete() -> None:
    folder = ROOT / "docs" / "adr"
    text = (folder / "README.md").read_text("utf-8")
    assert [page.name for page in sorted(folder.glob("*.md")) if f"]({page.name})" not in text] == ["README.md"]


@pytest.mark.parametrize("card", sorted(set(CARDS.glob("*.md")) - {CARDS / "README.md"}), ids=page_id)
def test_cards_have_the_same_headings(card: Path) -> None:
    assert re.findall(r"^## (.*)$", card.read_text("utf-8"), re.MULTILINE) == HEADINGS
    assert list(commands(card))
    assert list(blocks(card, "python"))


# ── what can be run ──

PYTHON = [
    pytest.param(page, line, text, id=f"{page_id(page)}:{line}")
    for page in PAGES
    for line, text in blocks(page, "python")
]
COMMANDS = [(page_id(page), command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "line", "text"), PYTHON)
@pytest.mark.usefixtures("one_thread")
def test_python_blocks_run(page: Path, line: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "import lightning" in text:  # where it is installed it warns of itself; pytest puts the filters back
        warnings.simplefilter("ignore")
    portfolio_in(tmp_path / "portfolio")  # what a page may take for granted once it has shown how to build one
    with torch.random.fork_rng():
        # Newlines in front, so that a traceback shows the line of the page.
        exec(compile("\n" * (line - 1) + text, str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_are_understood(page: str, command: str) -> None:
    _, name, *arguments = shlex.split(command)
    found = typer.main.get_group(app).commands[name].make_context(name, arguments)
    options = {key: found.params.get(key) for key in ("recipe", "score")}
    chosen = {f"prune.{key}": value for key, value in options.items() if value is not None}
    config = read_config(None, chosen, found.params.get("settings") or ())
    assert config.prune.recipe in RECIPES
    assert config.prune.score is None or config.prune.score in SCORES


def test_tour(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    tour = [sys.executable, str(EXAMPLES / "tour.py")]
    done = subprocess.run(tour, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    records = re.findall(r"^(\w[\w ]*):.*\[src/prunit/([\w./, ]+)\]$", done.stdout, re.MULTILINE)
    expected = ["graph", "scores", "widths", "plan", "cost", "compact model", "epochs", "variant"]
    assert [record for record, _ in records] == expected
    assert [p for _, places in records for p in places.split(", ") if not (SOURCE / p).exists()] == []
    assert '"budget": {' in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_factory_of_the_example() -> None:
    reference = f"{EXAMPLES / 'my_model.py'}:make"
    model = zoo.load(reference, num_classes=4, in_channels=3)
    example = torch.zeros(2, 3, 8, 8)
    assert model(example).shape == (2, 4)
    graph = trace(model, example)
    stream = graph.group("stem")
    assert stream.producers == ("stem", "block.conv2", "block.gate.excite")
    assert [g.name for g in graph.groups if g.pinned] == ["classifier"]
    for plan in (keep_all(graph), random_plan(graph)):
        check_runs(model, compact(model, graph, plan), example)


def test_example_configuration_holds_every_default(tmp_path: Path) -> None:
    file = EXAMPLES / "build.toml"
    assert read_config(file, {}) == BuildConfig()
    # What is commented out is valid too, and with it every setting is there.
    everything = re.sub(r"^# (?=\w+ = )", "", file.read_text("utf-8"), flags=re.MULTILINE)
    (tmp_path / "all.toml").write_text(everything, "utf-8")
    assert read_config(tmp_path / "all.toml", {}) != BuildConfig()
    data = tomllib.loads(everything)
    sections = {
        key: data[key]
        for key in ("prune", "train", "start", "effort", "sparse", "precision", "parts", "fleet", "probe")
    }
    found = {key for key in data if key not in sections}
    found |= {f"{section}.{key}" for section, values in sections.items() for key in values}
    assert found == set(setting_names())
