#!/usr/bin/env bash
# torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.31.1, numpy 2.3.5. Seen on 28 November 2026.
#
# Guess: an exported x.clamp(0, 1).clamp(2, 3) gives what torch gives, 2 for every x.
#
# torch.onnx.export optimises by default with onnxscript, whose rule for one Clip after another takes the larger of the
# two lower bounds and the smaller of the two upper ones. Where the ranges do not meet, that is a Clip with its lower bound
# above its upper one, which gives the upper one: 1, also with ONNX Runtime's own optimisations off. With
# optimize=False both Clips stay and the result is right.
#
# Output seen:
#   optimize=False: 2 x Clip, torch [2.0, 2.0, 2.0], file [2.0, 2.0, 2.0]
#   optimize=True: 1 x Clip, torch [2.0, 2.0, 2.0], file [1.0, 1.0, 1.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1
cat > "$folder/check.py" <<'PY'
import warnings

import onnxruntime
import torch

warnings.filterwarnings("ignore")


class Clamps(torch.nn.Module):
    def forward(self, x):
        return x.clamp(0.0, 1.0).clamp(2.0, 3.0)


x = torch.tensor([-5.0, 0.5, 7.0])
wanted, found, clips = Clamps()(x).tolist(), {}, {}
for optimize in (False, True):
    exported = torch.onnx.export(Clamps(), (x,), dynamo=True, optimize=optimize, verbose=False).model_proto
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(exported.SerializeToString(), options)
    found[optimize] = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0].tolist()
    clips[optimize] = sum(node.op_type == "Clip" for node in exported.graph.node)
    print(f"optimize={optimize}: {clips[optimize]} x Clip, torch {wanted}, file {found[optimize]}")
assert wanted == found[False] == [2.0, 2.0, 2.0] and clips[False] == 2
assert found[True] == [1.0, 1.0, 1.0] and clips[True] == 1
PY
"$folder/env/bin/python" "$folder/check.py"
