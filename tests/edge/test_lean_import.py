"""What importing costs: on a device, torch would be seconds of start-up and hundreds of MiB."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "psutil", "safetensors", "lightning_fabric", "timm", "torchvision")
EDGE = (
    "edge",
    "files",
    "edge.portfolio",
    "edge.session",
    "edge.runtimes",
    "edge.measuring.probe",
    "edge.measuring.probe_layers",
    "edge.measuring.layer_times",
    "edge.switching.steering",
    "edge.switching.simulate",
    "edge.switching.switch",
    "errors",
)


@pytest.mark.parametrize(
    "module", ["prunit", ", ".join(f"prunit.{name}" for name in EDGE)], ids=["prunit", "everything in edge"]
)
def test_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == []
