"""Models from a user's own file or module, and every way in which that goes wrong."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from prunit import zoo
from prunit.errors import ModelError

Write = Callable[[str], Path]


def test_a_factory_gets_what_its_signature_names(write_python: Write) -> None:
    path = write_python("""
from torch import nn
def build(num_classes, *, in_channels=3, depth=2, **more):
    assert not more
    return nn.Sequential(nn.Conv2d(in_channels, 4, depth), nn.Flatten(), nn.LazyLinear(num_classes))
def nothing():
    return nn.Conv2d(1, 1, 1)
class Net(nn.Linear):
    def __init__(self, image_size):
        super().__init__(image_size, 1)
""")
    model = zoo.load(f"{path}:build", num_classes=4, in_channels=2, image_size=9)
    assert model(torch.zeros(1, 2, 9, 9)).shape == (1, 4)
    assert isinstance(zoo.load(f"{path}:nothing"), nn.Conv2d)
    assert zoo.load(f"{path}:Net", image_size=9).weight.shape == (1, 9)


def test_a_file_finds_its_neighbours_and_leaves_the_path_alone(write_python: Write, tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("from torch import nn\nlayer = nn.Conv2d(1, 1, 1)\n")
    path = write_python("import neighbour_of_mine\ndef build():\n    return neighbour_of_mine.layer\n")
    before = list(sys.path)
    assert isinstance(zoo.load(f"{path}:build"), nn.Conv2d)
    assert sys.path == before


def test_a_module_of_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_package_of_mine").mkdir()
    (tmp_path / "a_package_of_mine" / "__init__.py").write_text("")
    (tmp_path / "a_package_of_mine" / "nets.py").write_text(
        "from torch import nn\nclass Nets:\n    @staticmethod\n    def small():\n        return nn.Conv2d(1, 1, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert isinstance(zoo.load("a_package_of_mine.nets:Nets.small"), nn.Conv2d)


def test_the_seed_reaches_a_users_factory(write_python: Write) -> None:
    path = write_python("from torch import nn\ndef build():\n    return nn.Linear(3, 3)\n")
    one, same, other = (zoo.load(f"{path}:build", seed=seed).state_dict()["weight"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("buidl", r"mine\.py' has no 'buidl'; it defines: build, number, quits, raises, takes, the_class"),
        ("raises", r"mine\.py': raises\(num_classes=10\) raised ValueError: 10 classes are too many \(mine\.py:5\)"),
        ("quits", r"mine\.py': quits\(\) raised SystemExit: bye \(mine\.py:7\)"),
        ("number", r"mine\.py:number' returned an object of type int, not an nn\.Module"),
        ("the_class", r"mine\.py:the_class' returned the class Linear, not an nn\.Module"),
        ("takes", r"mine\.py:takes' needs the argument depth, which prunit does not know .*: give a default"),
        ("model", r"mine\.py': model is an object of type Linear, not a factory"),
        ("constant", r"mine\.py': constant is an object of type int, not a factory"),
        ("", r"mine\.py:' names no factory: write path/to/file\.py:FACTORY"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_attribute(write_python: Write, attribute: str, message: str) -> None:
    path = write_python("""from torch import nn
model, constant = nn.Linear(1, 1), 3
def build(): return nn.Linear(1, 1)
def raises(num_classes):
    raise ValueError(f"{num_classes} classes\\nare too many")
def quits():
    raise SystemExit("bye")
def number(): return 3
def the_class(): return nn.Linear
def takes(depth, num_classes): return nn.Linear(1, 1)
""")
    with pytest.raises(ModelError, match=message) as raised:
        zoo.load(f"{path}:{attribute}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def build(:\n", r"cannot be imported: SyntaxError: .*mine\.py, line 1"),
        (
            "import no_such_package_here\n",
            r"ModuleNotFoundError: No module named 'no_such_package_here' \(mine\.py:1\)",
        ),
        ("\nraise SystemExit(3)\n", r"SystemExit: 3 \(mine\.py:2\)"),
    ],
)
def test_a_file_that_cannot_be_imported(write_python: Write, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        zoo.load(f"{write_python(text)}:build")
    assert "prunit_user_mine" not in sys.modules


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ModelError, match=r"'no/net\.py:build': there is no file 'no/net\.py' \(working folder: "):
        zoo.load("no/net.py:build")


def test_a_file_without_a_factory() -> None:
    with pytest.raises(ModelError, match=r"'net\.py' names a file but no factory in it: write net\.py:FACTORY"):
        zoo.load("net.py")


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(ModelError, match=r"there is no module 'no_such\.module', neither installed nor in the working"):
        zoo.load("no_such.module:build")


@pytest.mark.parametrize("text", ["import no_such_package_here\n", "1 / 0\n"])
def test_a_module_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "a_broken_module.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"module 'a_broken_module' cannot be imported: (ModuleNot|ZeroDiv)"):
        zoo.load("a_broken_module:build")


def test_a_long_error_is_cut(write_python: Write) -> None:
    path = write_python("def build():\n    raise RuntimeError('x' * 5000)\n")
    with pytest.raises(ModelError, match=re.escape("x...")) as raised:
        zoo.load(f"{path}:build")
    assert len(str(raised.value)) < 600
