"""What `import prunit` offers, what it costs, and the README's everyday lines."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import prunit


def test_names_are_sorted_and_each_is_there() -> None:
    assert list(prunit.__all__) == sorted(prunit.__all__)
    assert dir(prunit) == prunit.__all__
    for name in prunit.__all__:
        assert getattr(prunit, name) is not None


def test_every_name_that_is_resolved_on_first_use_is_exported() -> None:
    assert sorted([*prunit._HOMES, "__version__"]) == prunit.__all__


@pytest.mark.parametrize("name", [name for name in prunit.__all__ if name != "__version__"])
def test_each_name_says_what_it_is(name: str) -> None:
    text = getattr(prunit, name).__doc__
    assert text
    assert len(text.splitlines()[0]) > 10


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'prunit' has no attribute 'prune'"):
        _ = prunit.prune  # pyright: ignore[reportAttributeAccessIssue]


def python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_and_help_load_no_torch() -> None:
    heavy = "{'torch', 'onnxruntime', 'onnx', 'lightning_fabric', 'sklearn', 'PIL'} & set(sys.modules)"
    python(f"import sys, prunit; assert not {heavy}, {heavy}; assert 'numpy' not in sys.modules")
    python(
        "import sys, contextlib\n"
        "sys.argv = ['prunit', '--help']\n"
        "from prunit.cli import main\n"
        "with contextlib.suppress(SystemExit): main()\n"
        f"assert not {heavy}, {heavy}"
    )


def test_names_stay_what_they_are_after_every_submodule_was_imported() -> None:
    # A submodule that is imported becomes an attribute of its package: none may be called like a function.
    python(
        "import importlib, pkgutil, sys, types, prunit\n"
        "for m in pkgutil.walk_packages(prunit.__path__, 'prunit.'):\n"
        "    if m.name != 'prunit.__main__': importlib.import_module(m.name)\n"
        "found = {n for n in prunit.__all__ if isinstance(getattr(prunit, n), types.ModuleType)}\n"
        "assert found == {'zoo', 'portfolio'}, found\n"
    )


def test_every_module_says_in_its_first_line_what_it_is_for() -> None:
    for found in pkgutil.walk_packages(prunit.__path__, "prunit."):
        if found.name != "prunit.__main__":
            module: ModuleType = importlib.import_module(found.name)
            assert module.__doc__, found.name


def test_missing_torch_is_said_in_one_line() -> None:
    python(
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import prunit\n"
        "try: prunit.trace\n"
        "except prunit.PrunitError as error:\n"
        "    assert str(error) == \"prunit.trace needs the package 'torch': pip install 'prunit[train]'\", error\n"
        "else: raise AssertionError"
    )


def factory() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


def test_everyday_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, example = factory().eval(), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        before = model(example)

    # fmt: off
    graph = prunit.trace(model, example)
    plan  = prunit.plan(model, example, recipe="reconvene", score="synflow", budget={"params": 1/16}, seed=0)
    small = prunit.compact(model, graph, plan)
    twin  = prunit.mask(model, graph, plan)
    cost  = prunit.cost(graph, plan)
    # fmt: on

    with torch.no_grad():
        torch.testing.assert_close(small(example), twin(example))
        assert torch.equal(model(example), before)
    assert cost.params == sum(p.numel() for p in small.parameters()) <= prunit.cost(graph).params / 16

    prunit.save(small, plan, "small.safetensors")
    again = prunit.load("small.safetensors", factory)
    with torch.no_grad():
        torch.testing.assert_close(again(example), small(example))

    config = {"budgets": [], "subset": 60, "train": {"epochs": 1, "device": "cpu"}}
    quick = {"prune": {"rounds": 2}, "probe": {"seconds": 0.01, "batch": 2}}
    portfolio = prunit.build(
        lambda: nn.Sequential(nn.Conv2d(1, 3, 1), factory()), "digits", "out", config=config | quick
    )
    assert [v.name for v in portfolio.variants] == ["dense"]

    model = prunit.zoo.load("resnet20", num_classes=10)
    assert isinstance(model, nn.Module)
