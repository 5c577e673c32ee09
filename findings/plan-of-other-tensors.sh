#!/usr/bin/env bash
# ethos-u-vela 5.2.0, ai-edge-litert 2.3.0, numpy 2.4.6, flatbuffers 25.12.19. Seen on 30 November 2026.
#
# A flatbuffer may carry a plan that tells TensorFlow Lite Micro where tensors lie in its arena: metadata
# "OfflineMemoryAllocation", a version, the graph, a count and an offset for each tensor. Vela writes such a plan into the
# file that it makes, since its commands name addresses in that arena.
#
# Guess: it replaces a plan that was in the file before.
#
# It keeps the old one and writes none of its own. The compiled graph has other tensors (the commands, the weights, the
# memory that all share, both ends), and the plan that comes with it counts and places those of the network before it was
# compiled.
#
# Output seen:
#   without a plan: 5 tensors in the compiled graph, its plan is of 5
#   with a plan: 5 tensors in the compiled graph, its plan is of 10
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6 ethos-u-vela==5.2.0
cat > "$folder/check.py" <<'PY'
import subprocess
import sys
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

NAME = b"OfflineMemoryAllocation"
CHANNELS, SIZE = 16, 16
IMAGE = SIZE * SIZE * CHANNELS


def tensor(model, name, shape, values=None, scale=0.05):
    made = schema.TensorT()
    made.name, made.shape, made.type = name, shape, schema.TensorType.INT8
    made.quantization = schema.QuantizationParametersT()
    made.quantization.scale = np.atleast_1d(np.float32(scale))
    made.quantization.zeroPoint = np.zeros(made.quantization.scale.size, np.int64)
    if values is not None:
        if values.dtype == np.int32:
            made.type = schema.TensorType.INT32
        made.buffer = len(model.buffers)
        model.buffers.append(schema.BufferT())
        model.buffers[-1].data = np.frombuffer(values.tobytes(), np.uint8)
    model.subgraphs[0].tensors.append(made)
    return len(model.subgraphs[0].tensors) - 1


def network(offsets):
    """Three convolutions of 1x1 in a row, with the bytes at which their images lie if there are any."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.subgraphs = 3, [schema.BufferT()], [graph]
    graph.tensors, graph.operators = [], []
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version, model.operatorCodes = 3, [code]
    draws, scales = np.random.default_rng(0), np.full(CHANNELS, 0.01, np.float32)
    images = [tensor(model, "image 0", [1, SIZE, SIZE, CHANNELS])]
    for number in (1, 2, 3):
        values = draws.integers(-127, 128, (CHANNELS, 1, 1, CHANNELS)).astype(np.int8)
        weight = tensor(model, f"weight {number}", list(values.shape), values, scales)
        bias = tensor(model, f"bias {number}", [CHANNELS], np.zeros(CHANNELS, np.int32), scales * np.float32(0.05))
        images.append(tensor(model, f"image {number}", [1, SIZE, SIZE, CHANNELS]))
        step, options = schema.OperatorT(), schema.Conv2DOptionsT()
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        step.inputs, step.outputs = [images[-2], weight, bias], [images[-1]]
        step.builtinOptionsType, step.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
        graph.operators.append(step)
    graph.inputs, graph.outputs = [images[0]], [images[-1]]
    if offsets:
        places = np.full(len(graph.tensors), -1, np.int32)
        places[images] = offsets
        plan = schema.MetadataT()
        plan.name, plan.buffer = NAME, len(model.buffers)
        model.buffers.append(schema.BufferT())
        numbers = np.concatenate([[1, 0, len(places)], places]).astype("<i4")
        model.buffers[-1].data = np.frombuffer(numbers.tobytes(), np.uint8)
        model.metadata = [plan]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def compiled(data, name):
    """The compiled graph's tensors, and how many its plan is of."""
    file = Path(name)
    file.write_bytes(data)
    command = [sys.executable, "-m", "ethosu.vela", str(file), "--output-dir", "."]
    command += ["--accelerator-config", "ethos-u55-128", "--config", "Arm/vela.ini"]
    command += ["--system-config", "Ethos_U55_High_End_Embedded", "--memory-mode", "Shared_Sram"]
    subprocess.run(command, check=True, capture_output=True)
    model = schema.ModelT.InitFromPackedBuf(Path(f"{file.stem}_vela.tflite").read_bytes(), 0)
    (plan,) = [each for each in model.metadata if bytes(each.name) == NAME]
    return len(model.subgraphs[0].tensors), int(model.buffers[plan.buffer].data.tobytes()[8:12][0])


found = {}
for what, offsets in (("without a plan", None), ("with a plan", [0, IMAGE, 0, IMAGE])):
    found[what] = compiled(network(offsets), f"{what.split()[0]}.tflite")
    print(f"{what}: {found[what][0]} tensors in the compiled graph, its plan is of {found[what][1]}")
assert found["without a plan"][0] == found["without a plan"][1]
assert found["with a plan"][0] != found["with a plan"][1]
PY
cd "$folder"
env/bin/python check.py
