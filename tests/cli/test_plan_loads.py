"""What a plan that asks for nothing special imports: neither PyTorch's compiler nor what belongs to other commands."""

import gc
import subprocess
import sys
from pathlib import Path

from prunit.later import loading

_TOLD = """
import atexit, sys
atexit.register(lambda: sys.stdout.write(" ".join(sys.modules)))
from prunit.cli import main
main()
"""
NOT_NEEDED = {
    "torch._dynamo",
    "sympy",
    "onnx",
    "prunit.export.tflite",
    "prunit.export.quantising",
    "prunit.recipe.blueprint",
    "prunit.recipe.flow",
    "prunit.mcu.vela",
    "prunit.zoo.data",
    "prunit.zoo.external",
    "prunit.report.summary",
}


def test_a_plan_loads_what_it_uses(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _TOLD, "plan", "resnet20", "--recipe", "uniform", "--budget", "macs=1/2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (tmp_path / "plan.json").exists()
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert loaded & NOT_NEEDED == set()


def test_garbage_is_collected_again_after_loading() -> None:
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()


def test_or_not_where_it_was_not_before() -> None:
    gc.disable()
    try:
        with loading():
            pass
        assert not gc.isenabled()
    finally:
        gc.unfreeze()
        gc.enable()
