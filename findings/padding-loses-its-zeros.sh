#!/usr/bin/env bash
# onnxruntime 1.31.1, onnx 1.23.2, numpy 2.4.6, sympy 1.14.0. Seen on 29 November 2026.
#
# Guess: ONNX Runtime answers Pad with zeros and MaxPool behind it alike with and without its graph optimisations.
#
# With them, the default, Pad is taken into the pooling, whose own padding never wins, where the zeros of Pad win over what
# is negative: an image of -1 gives -1 everywhere instead of 0 at its border. Nothing is said. If Pad adds as many rows as
# the window has, which MaxPool's own padding may not, the file is not opened at all.
#
# Output seen:
#   plain:     pads 1, window 3: [0. 0. 0. -1.]; pads 0 to 2, window 2: [0. -1. 0. 0. -1. 0.]
#   optimised: pads 1, window 3: [-1. -1. -1. -1.]; pads 0 to 2, window 2: Pad should be smaller than kernel.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6 sympy==1.14.0
cat > "$folder/check.py" <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

x = np.full((1, 1, 4, 4), -1, np.float32)
CASES = {"pads 1, window 3": ([0, 0, 1, 1, 0, 0, 1, 1], 3), "pads 0 to 2, window 2": ([0, 0, 0, 1, 0, 0, 1, 2], 2)}


def file_of(pads, window):
    sides = [4 + pads[2 + i] + pads[6 + i] for i in (0, 1)]
    graph = helper.make_graph(
        [
            helper.make_node("Pad", ["x", "pads", "zero"], ["padded"]),
            helper.make_node("MaxPool", ["padded"], ["y"], kernel_shape=[window, window], strides=[2, 2]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, *((side - window) // 2 + 1 for side in sides)])],
        [numpy_helper.from_array(np.array(pads, np.int64), "pads"), numpy_helper.from_array(np.float32(0), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def answered(file, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 4
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return str(error).strip().partition("was false. ")[2]
    return session.run(None, {"x": x})[0].ravel()


levels = onnxruntime.GraphOptimizationLevel
found = {}
for how, level in (("plain", levels.ORT_DISABLE_ALL), ("optimised", levels.ORT_ENABLE_ALL)):
    found[how] = [answered(file_of(*case), level) for case in CASES.values()]
    shown = [each if isinstance(each, str) else "[" + " ".join(f"{v:.0f}." for v in each) + "]" for each in found[how]]
    print(f"{how + ':':10} " + "; ".join(f"{case}: {each}" for case, each in zip(CASES, shown)))
assert found["plain"][0].tolist() == [0, 0, 0, -1]
assert found["optimised"][0].tolist() == [-1, -1, -1, -1]
assert found["plain"][1].tolist() == [0, -1, 0, 0, -1, 0]
assert "smaller than kernel" in found["optimised"][1]
PY
"$folder/env/bin/python" "$folder/check.py"
