#!/usr/bin/env bash
# onnxruntime 1.31.1, onnx 1.23.2, numpy 2.3.5, sympy 1.14.0. Seen on 29 November 2026.
#
# Guess: with `CalibMaxIntermediateOutputs` = 3, ONNX Runtime's static quantiser finds the same ranges of activations as
# without. Its documentation says so: "This will produce the same result as all computing with None, but is more memory
# efficient".
#
# Whenever three outputs were gathered they are thrown away, not counted. Of eight batches only the last two are left, and
# where the number of batches can be divided by it nothing is: "No data is collected.".
#
# Output seen (inputs lie between 0 and 1, 2, … 8 in eight batches, the largest first):
#   ends at 8.00 without it, at 2.00 with 3; with 4: No data is collected.
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
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_static

logging.disable(logging.CRITICAL)
folder = Path(sys.argv[1])
graph = helper.make_graph(
    [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
    "net",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 4, 4])],
    [numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "float.onnx")


class Reader:
    def __init__(self):
        ramp = np.linspace(0, 1, 48, dtype=np.float32).reshape(1, 3, 4, 4)
        self.batches = iter([{"x": largest * ramp} for largest in range(8, 0, -1)])

    def get_next(self):
        return next(self.batches, None)


def end(options):
    quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Reader(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options=options,
    )
    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load(folder / "int8.onnx").graph.initializer}
    return 255 * float(constants["x_scale"])


whole, pieces = end({}), end({"CalibMaxIntermediateOutputs": 3})
try:
    end({"CalibMaxIntermediateOutputs": 4})
    said = "nothing"
except ValueError as error:
    said = str(error)
print(f"ends at {whole:.2f} without it, at {pieces:.2f} with 3; with 4: {said}")
assert abs(whole - 8) < 0.01
assert abs(pieces - 2) < 0.01
assert said == "No data is collected."
PY
"$folder/env/bin/python" "$folder/check.py" "$folder"
