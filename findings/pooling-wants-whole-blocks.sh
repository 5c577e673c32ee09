#!/usr/bin/env bash
# onnxruntime 1.31.1, onnx 1.23.2, numpy 2.3.5, x86 with AVX-512. Seen on 29 November 2026.
#
# Guess: what is a multiple of 4 is fast: ONNX Runtime's blocked convolution takes such inputs, so a max or an average
# pooling between two convolutions takes 60 channels as well as 64.
#
# Poolings stay in the blocked layout only where the channels are a multiple of the block (16 here). With 60 channels two
# changes of layout stand around each pooling, though the convolutions beside it are blocked; with 64 there is none.
# So a network that is narrowed from 64 to 60 channels behind each pooling gets slower. Where the block is smaller (8), 60
# is no multiple of it either.
#
# Output seen (layout changes in the optimised graph; conv, pooling and conv with 60 channels against 64):
#   MaxPool            64 channels: 2 layout changes; 60 channels: 4; the whole takes 1.36 times as long
#   GlobalAveragePool  64 channels: 2 layout changes; 60 channels: 4; the whole takes 1.32 times as long
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet numpy==2.3.5 onnx==1.23.2 onnxruntime==1.31.1
cat > "$folder/check.py" <<'PY'
import statistics
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FOLDER = sys.argv[1]


def session_of(pool, channels):
    """conv - pool - conv, whose optimised graph is written down too."""
    rng = np.random.default_rng(0)
    weights = {
        "first": rng.standard_normal((channels, 64, 1, 1), dtype=np.float32),
        "second": rng.standard_normal((64, channels, 1, 1), dtype=np.float32),
    }
    window = {"kernel_shape": [2, 2], "strides": [2, 2]} if pool == "MaxPool" else {}
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"]),
        helper.make_node(pool, ["a"], ["b"], **window),
        helper.make_node("Conv", ["b", "second"], ["y"]),
    ]
    side = 32 if pool == "MaxPool" else 1
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64, side, side])],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = f"{FOLDER}/{pool}{channels}.onnx"
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ops = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    return session, sum(op.startswith("Reorder") for op in ops)


x = {"x": np.random.default_rng(1).standard_normal((1, 64, 64, 64), dtype=np.float32)}
for pool in ("MaxPool", "GlobalAveragePool"):
    (whole, in_whole), (odd, in_odd) = session_of(pool, 64), session_of(pool, 60)
    ratios = []
    for turn in range(220):
        took = []
        for session in (whole, odd):
            before = time.perf_counter()
            session.run(None, x)
            took.append(time.perf_counter() - before)
        ratios.append(took[1] / took[0])
    ratio = statistics.median(ratios[20:])
    print(f"{pool:18} 64 channels: {in_whole} layout changes; 60 channels: {in_odd}; the whole takes {ratio:.2f} times as long")
    assert in_odd > in_whole
PY
"$folder/env/bin/python" "$folder/check.py" "$folder"
