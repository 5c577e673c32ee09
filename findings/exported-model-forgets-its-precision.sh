#!/usr/bin/env bash
# openvino 2026.4.1, numpy 2.3.5, x86 with bfloat16 (AVX512_BF16 or AMX). Seen on 29 November 2026.
#
# Guess: a model that was compiled with INFERENCE_PRECISION_HINT f32, exported and imported again computes as it did: the
# exported form is the compiled one.
#
# It keeps the graph and the weights, and no setting: where the import is not given the hint again, the CPU's own
# preference holds, which is bfloat16 if it has that. The outputs of a network differ then from those before the export by
# some thousandths of the largest, without a word. The number of threads is forgotten alike.
#
# Output seen:
#   compiled with f32 and 1 thread: computes in f32 with 1 thread(s)
#   exported, imported: computes in bf16 with 2 thread(s); outputs off by 4.1e-03 of the largest
#   exported, imported with both again: computes in f32 with 1 thread(s); outputs off by 0.0e+00 of the largest
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet numpy==2.3.5 openvino==2026.4.1
cat > "$folder/check.py" <<'PY'
import sys

sys.modules["openvino_telemetry"] = None  # else the import is reported to a web service
import numpy as np
import openvino as ov
from openvino import opset13 as ops

core = ov.Core()
if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
    sys.exit("this CPU has no bfloat16: there is nothing to see on it")
rng = np.random.default_rng(0)
image = ops.parameter([1, 3, 32, 32], np.float32)
node = image
for inputs in (3, 64, 64):
    weights = ops.constant((rng.standard_normal((64, inputs, 3, 3)) / (3 * inputs**0.5)).astype(np.float32))
    node = ops.relu(ops.convolution(node, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
x = rng.standard_normal((1, 3, 32, 32)).astype(np.float32)


def told(compiled):
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return hint, f"computes in {hint} with {compiled.get_property('INFERENCE_NUM_THREADS')} thread(s)"


compiled = core.compile_model(ov.Model([node], [image]), "CPU", settings)
wanted = compiled(x)[0]
print(f"compiled with f32 and 1 thread: {told(compiled)[1]}")
content = compiled.export_model().getvalue()
found = []
for how, again in (("imported", {}), ("imported with both again", settings)):
    imported = core.import_model(content, "CPU", again)
    off = float(np.abs(imported(x)[0] - wanted).max() / np.abs(wanted).max())
    found.append((told(imported)[0], off))
    print(f"exported, {how}: {told(imported)[1]}; outputs off by {off:.1e} of the largest")
assert found[0][0] == "bf16" and found[0][1] > 1e-4
assert found[1] == ("f32", 0.0)
PY
"$folder/env/bin/python" "$folder/check.py"
