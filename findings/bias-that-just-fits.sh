#!/usr/bin/env bash
# onnxruntime 1.31.1, onnx 1.23.2, numpy 2.3.5, sympy 1.14.0. Seen on 29 November 2026.
#
# Guess: ONNX Runtime's static quantiser, which makes the steps of a channel's weights larger where its bias would not fit
# into an int32, leaves a file that computes what the float one does: the bias fits.
#
# It makes the bias as large as fits (2147268885 of 2147483647 steps). The products of weights and inputs are added to it
# in 32 bits; 512 of them exceed what is left, and the sum turns its sign. A channel of tiny weights whose answer is 1 in
# float answers 0 in the int8 file (this one cuts off below 0). Such channels are what training with weight decay or
# pruning leaves. Steps that leave the bias a few bits of room cost nothing.
#
# Output seen:
#   bias in steps 2147268885, float 1.00026, int8 0.00000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.3.5 sympy==1.14.0
cat > "$folder/check.py" <<'PY'
import logging
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_static

logging.disable(logging.CRITICAL)
folder = Path(sys.argv[1])
weights = np.stack([np.full(512, 1e-6), np.full(512, 0.5)]).astype(np.float32).reshape(2, 512, 1, 1)
bias = np.array([1.0, 0.5], np.float32)
graph = helper.make_graph(
    [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv")],
    "net",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 512, 4, 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 4, 4])],
    [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "float.onnx")
x = np.random.default_rng(0).uniform(0, 1, (8, 512, 4, 4)).astype(np.float32)


class Reader:
    def __init__(self):
        self.batches = iter([{"x": x}])

    def get_next(self):
        return next(self.batches, None)


quantize_static(
    folder / "float.onnx",
    folder / "int8.onnx",
    Reader(),
    per_channel=True,
    activation_type=QuantType.QUInt8,
    weight_type=QuantType.QInt8,
)
constants = {t.name: numpy_helper.to_array(t) for t in onnx.load(folder / "int8.onnx").graph.initializer}
steps = int(constants["b_quantized"][0])
exact, found = (
    onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0][:, 0]
    for name in ("float.onnx", "int8.onnx")
)
print(f"bias in steps {steps}, float {exact.mean():.5f}, int8 {found.mean():.5f}")
assert steps > 2**31 - 2**19
assert np.abs(exact - 1).max() < 1e-3
assert np.abs(found).max() < 0.1
PY
"$folder/env/bin/python" "$folder/check.py" "$folder"
