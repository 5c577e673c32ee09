"""Ways from ResNet-20 in PyTorch to an int8 file for microcontrollers: `python -m bench.mcu_converters`.

Each converter is installed by pip into an environment of its own, and converts the same network with the same random
images for its ranges, in the way its documentation shows. A row is what pip installed, how long it takes, and what the
file is: operators, the arena of TensorFlow Lite Micro, cycles of an Ethos-U. About ten minutes and 6 GB of disk.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench._common import RESULTS, ROOT, record, write
from prunit import trace, zoo
from prunit.errors import ModelError
from prunit.export import EXPORTERS
from prunit.mcu.parts import part
from prunit.mcu.reading import content_of
from prunit.mcu.tflm import arena
from prunit.mcu.vela import compiled
from prunit.recipe.blueprint import Blueprint

PART: Final = "ethos-u55-128"
SECONDS: Final = 900
"""For an installation, and for a conversion."""
IMAGES: Final = 32
SAMPLES: Final = "calibration_image_sample_data_20x128x128x3_float32.npy"
"""onnx2tf fetches a file of this name from the network if there is none, also where it is given images."""

OURS: Final = """
import sys, time
from pathlib import Path
import numpy as np
from prunit.export.tflite import integer_twin
start = time.perf_counter()
images = np.load("images.npy")
twin = integer_twin(Path("resnet20.onnx"), [images], name="resnet20", shape_CHW=(3, 32, 32))
Path("out.tflite").write_bytes(twin.data)
print("seconds", time.perf_counter() - start)
"""
LITERT_TORCH: Final = """
import time
import litert_torch, numpy as np, torch
from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
from litert_torch.quantize.quant_config import QuantConfig
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from prunit import zoo
model = zoo.load("resnet20", num_classes=10)
model.load_state_dict(torch.load("resnet20.pt"))
images = torch.from_numpy(np.load("images.npy"))
start = time.perf_counter()
quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
prepared = prepare_pt2e(torch.export.export(model.eval(), (images[:1],)).module(), quantizer)
for image in images:
    prepared(image[None])
made = convert_pt2e(prepared, fold_quantize=False)
litert_torch.convert(made, (images[:1],), quant_config=QuantConfig(pt2e_quantizer=quantizer)).export("out.tflite")
print("seconds", time.perf_counter() - start)
"""
ONNX2TF: Final = """
import shutil, time
import numpy as np
import onnx2tf
np.save("nhwc.npy", np.load("images.npy").transpose(0, 2, 3, 1))
start = time.perf_counter()
onnx2tf.convert(
    input_onnx_file_path="resnet20.onnx",
    output_folder_path="onnx2tf",
    overwrite_input_shape=["input:1,3,32,32"],
    output_integer_quantized_tflite=True,
    custom_input_op_name_np_data_path=[["input", "nhwc.npy", [[[[0, 0, 0]]]], [[[[1, 1, 1]]]]]],
    non_verbose=True,
)
print("seconds", time.perf_counter() - start)
shutil.copy("onnx2tf/resnet20_full_integer_quant.tflite", "out.tflite")
"""
CONVERTERS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "prunit": (("ai-edge-litert", "flatbuffers"), OURS),
    "litert-torch": (("torch==2.13.0", "litert-torch"), LITERT_TORCH),
    "onnx2tf": (("onnx2tf",), ONNX2TF),
}
"""By name what pip is asked for, and the conversion. Of prunit it is what comes beside torch, onnx and ONNX Runtime."""


def prepared(folder: Path) -> None:
    """The network as weights and as ONNX, and images."""
    torch.manual_seed(0)
    model = zoo.load("resnet20", num_classes=10).eval()
    torch.save(model.state_dict(), folder / "resnet20.pt")
    EXPORTERS["onnx"](model, torch.randn(2, 3, 32, 32), folder, name="resnet20")
    noise = np.random.default_rng(0)
    np.save(folder / "images.npy", noise.standard_normal((IMAGES, 3, 32, 32)).astype(np.float32))
    np.save(folder / SAMPLES, noise.random((20, 128, 128, 3)).astype(np.float32))


def installed(folder: Path, wanted: tuple[str, ...]) -> dict[str, Any]:
    """An environment with what pip makes of it: seconds, bytes beside an empty one, versions; or what pip says."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    empty = _bytes(folder)
    start = time.perf_counter()
    command = [str(folder / "bin" / "pip"), "install", "--no-cache-dir", "--no-compile", *wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"pip": f"not done after {SECONDS} s"}
    if done.returncode:
        return {"pip": done.stderr.strip().splitlines()[-1]}
    seconds = time.perf_counter() - start
    listed = subprocess.run([command[0], "list", "--format=json"], capture_output=True, text=True, check=True)
    versions = {each["name"]: each["version"] for each in json.loads(listed.stdout)}
    return {
        "install_s": round(seconds, 1),
        "install_bytes": _bytes(folder) - empty,
        "packages": len(versions) - 2,  # pip and setuptools are in an empty one
        "versions": {name: versions[name] for name in sorted(versions) if name in _NAMED},
    }


_NAMED: Final = (
    *("ai-edge-litert", "flatbuffers", "jax", "litert-converter", "litert-torch", "numpy", "onnx", "onnx2tf"),
    *("onnxruntime", "tensorflow", "torch", "torchao", "transformers"),
)


def converted(folder: Path, python: Path, code: str, rounds: int) -> dict[str, Any]:
    """Seconds of the conversion and of the process it runs in, medians, and what the file is; or how it failed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment['PATH']}"
    (folder / "convert.py").write_text(code)
    inside, whole = [], []
    for _ in range(rounds):
        (folder / "out.tflite").unlink(missing_ok=True)
        start = time.perf_counter()
        done = subprocess.run(
            [str(python), "convert.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        whole.append(time.perf_counter() - start)
        if done.returncode or not (folder / "out.tflite").is_file():
            return {"conversion": (done.stderr or done.stdout).strip().splitlines()[-1][:300]}
        inside.append(float(done.stdout.rpartition("seconds ")[2].split()[0]))
    return {
        "conversion_s": round(statistics.median(inside), 2),
        "process_s": round(statistics.median(whole), 2),
        **described((folder / "out.tflite").read_bytes()),
    }


def described(data: bytes) -> dict[str, Any]:
    """Operators, arena and cycles of a flatbuffer."""
    read = content_of(data)
    found: dict[str, Any] = {
        "bytes": len(data),
        "operators": sum(read.operators.values()),
        "by_operator": dict(read.operators),
        "input": list(read.inputs[0].shape),
    }
    try:
        found["arena_bytes"] = arena(data).total_bytes
        report = compiled(data, part(PART))
        found |= {"cycles": report.cycles, "left_to_cpu": [each.operator for each in report.left_to_cpu]}
    except ModelError as error:
        found["refused"] = str(error)
    return found


def of_a_plan(rounds: int) -> dict[str, float]:
    """Milliseconds until the file of other widths is there, once the dense network was read."""
    model, example = zoo.load("resnet20", num_classes=10), torch.randn(2, 3, 32, 32)
    graph = trace(model, example)
    start = time.perf_counter()
    blueprint = Blueprint(model.eval(), graph, example)
    blueprint.file(graph.sizes, part("tflm"))
    first = time.perf_counter() - start
    noise, seconds = np.random.default_rng(0), []
    for _ in range(rounds):
        widths = np.array([g.size if g.pinned else noise.integers(1, g.size + 1) for g in graph.groups], np.float64)
        start = time.perf_counter()
        blueprint.file(widths, part("tflm"))
        seconds.append(time.perf_counter() - start)
    return {"first_s": round(first, 2), "file_ms": round(1e3 * statistics.median(seconds), 1)}


def code_of(*places: str) -> dict[str, int]:
    """Lines and bytes of these files and folders of the package."""
    files = [file for place in places for file in sorted((ROOT / "src" / "prunit").glob(place))]
    texts = [file.read_text("utf-8") for file in files]
    return {"lines": sum(text.count("\n") for text in texts), "bytes": sum(len(text.encode()) for text in texts)}


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mcu_converters", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "mcu_converters.json", metavar="FILE", help="to write")
    parser.add_argument("--rounds", type=int, default=3, help="conversions each (default 3)")
    options = parser.parse_args()
    rows = []
    for name, (wanted, code) in CONVERTERS.items():
        with tempfile.TemporaryDirectory(prefix="converters-") as place:
            folder = Path(place)
            prepared(folder)
            row = {"converter": name, "asked": list(wanted), **installed(folder / "env", wanted)}
            if "install_s" in row:
                python = Path(sys.executable) if name == "prunit" else folder / "env" / "bin" / "python"
                row |= converted(folder, python, code, options.rounds)
        rows.append(row)
        print(row)
    config = {
        "network": "resnet20, 10 classes, 3x32x32, untrained",
        "images": IMAGES,
        "part": part(PART).described,
        "plan": of_a_plan(20),
        "code": code_of("export/tflite/*.py", "mcu/flatbuffer.py", "mcu/network.py", "mcu/numbers.py"),
    }
    print(config)
    write(
        record("mcu_converters", rows, config=config, n=options.rounds, percentile="median (p50)", threads=1),
        options.json,
    )


if __name__ == "__main__":
    main()
