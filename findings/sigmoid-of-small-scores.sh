#!/usr/bin/env bash
# onnxruntime 1.31.1, onnx 1.23.2, numpy 2.3.5, x86_64 CPU. Seen on 29 November 2026.
#
# Guess: Sigmoid of float32 in ONNX Runtime is right to a few units of the last place, whatever its input, as in torch
# and numpy: 1.5e-8 at -18.
#
# It is an approximation between -18 and 18 and is 0 beyond; towards that end it has an absolute error of about 1e-7, so
# that small scores are off by a third at -16.5. As a score that is nothing. A detector that ranks by the root of the
# product of two scores makes of it 0 where 5e-5 is right.
#
# Output seen:
#   -8: 1.000 of the exact sigmoid
#   -16.5: 1.310 of the exact sigmoid
#   -20: 0.000 of the exact sigmoid; its root 0 instead of 4.5e-05
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet numpy==2.3.5 onnx==1.23.2 onnxruntime==1.31.1
cat > "$folder/check.py" <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["y"])], "one", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
x = np.array([-8.0, -16.5, -20.0], np.float32)
found = session.run(None, {"x": x})[0].astype(np.float64)
exact = 1 / (1 + np.exp(-x.astype(np.float64)))
near, far, beyond = found / exact
print(f"-8: {near:.3f} of the exact sigmoid")
print(f"-16.5: {far:.3f} of the exact sigmoid")
print(f"-20: {beyond:.3f} of the exact sigmoid; its root {np.sqrt(found[2]):.2g} instead of {np.sqrt(exact[2]):.2g}")
assert abs(near - 1) < 0.01
assert abs(far - 1) > 0.1
assert found[2] == 0
PY
"$folder/env/bin/python" "$folder/check.py"
