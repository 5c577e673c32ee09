#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.31.1, numpy 2.4.6, sympy 1.14.0. Seen on 29 November 2026.
#
# Guess: where onnx infers the shape of a tensor, engines compute a tensor of that shape.
#
# MaxPool with ceil_mode, a window of 1 and strides of 3 on 6x6 pixels: the third window would begin at pixel 6, outside of the
# image. Of a file of opset 18 or 19 onnx infers 3x3 places; its own evaluator and ONNX Runtime answer 2x2, ONNX Runtime with a
# warning. Of opset 22 it infers 2x2.
#
# Output seen:
#   opset 18: inferred 3x3, onnx's evaluator 2x2, ONNX Runtime 2x2
#   opset 19: inferred 3x3, onnx's evaluator 2x2, ONNX Runtime 2x2
#   opset 22: inferred 2x2, onnx's evaluator 2x2, ONNX Runtime 2x2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6 sympy==1.14.0
cat > "$folder/check.py" <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

x = np.zeros((1, 1, 6, 6), np.float32)
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
for opset, wanted in ((18, 3), (19, 3), (22, 2)):
    graph = helper.make_graph(
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1, 1], strides=[3, 3], ceil_mode=1)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, "h", "w"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    shape = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape
    inferred = tuple(size.dim_value for size in shape.dim)
    evaluated = ReferenceEvaluator(model).run(None, {"x": x})[0].shape
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answered = session.run(None, {"x": x})[0].shape
    shown = ["x".join(map(str, size[2:])) for size in (inferred, evaluated, answered)]
    print(f"opset {opset}: inferred {shown[0]}, onnx's evaluator {shown[1]}, ONNX Runtime {shown[2]}")
    assert inferred == (1, 1, wanted, wanted)
    assert evaluated == answered == (1, 1, 2, 2)
PY
"$folder/env/bin/python" "$folder/check.py"
