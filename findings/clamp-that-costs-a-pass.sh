#!/usr/bin/env bash
# ethos-u-vela 5.2.0, ai-edge-litert 2.3.0, numpy 2.4.6, flatbuffers 25.12.19. Seen on 29 November 2026.
#
# Guess: a RELU that a convolution's options ask for costs an Ethos-U nothing, however many channels there are.
#
# So it does from 8 channels on. A convolution of 7 channels is compiled as two operators, the convolution and a Relu that
# takes as long, so that 7 channels are slower than 8. Without it, and with the same zero point of -128 (the smallest int8
# stands for 0, and what is below is cut off there anyway), the same answers come without the second operator.
#
# Output seen (Ethos-U55 of 128 multiply-adds, 3x3 at 32x32):
#   7 channels, RELU: 38410 cycles in all; Conv2D 7772, Relu 7784
#   7 channels, NONE: 29786 cycles in all; Conv2D 7268
#   8 channels, RELU: 29982 cycles in all; Conv2D 7420, Relu 0
#   8 channels, NONE: 29982 cycles in all; Conv2D 7420
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6 ethos-u-vela==5.2.0
cat > "$folder/check.py" <<'PY'
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

rng = np.random.default_rng(0)


class Net:
    """An int8 network as a TensorFlow Lite flatbuffer."""

    def __init__(self):
        self.graph, self.model = schema.SubGraphT(), schema.ModelT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []

    def tensor(self, shape, scale=0.05, zero_point=0, values=None):
        made = schema.TensorT()
        made.name, made.shape = f"t{len(self.graph.tensors)}", list(shape)
        int32 = values is not None and values.dtype == np.int32
        made.type = schema.TensorType.INT32 if int32 else schema.TensorType.INT8
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = np.atleast_1d(scale).astype(np.float32)
        made.quantization.zeroPoint = np.full(made.quantization.scale.size, zero_point, np.int64)
        if values is not None:
            made.buffer = len(self.model.buffers)
            self.model.buffers.append(schema.BufferT())
            self.model.buffers[-1].data = np.frombuffer(values.tobytes(), np.uint8)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def add(self, code, version, inputs, output, table, **options):
        made, known = schema.OperatorT(), schema.OperatorCodeT()
        known.builtinCode = known.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, code)
        known.version, made.opcodeIndex = version, len(self.model.operatorCodes)
        self.model.operatorCodes.append(known)
        made.inputs, made.outputs = list(inputs), [output]
        made.builtinOptionsType = getattr(schema.BuiltinOptions, table)
        made.builtinOptions = getattr(schema, f"{table}T")()
        for name, value in options.items():
            assert hasattr(made.builtinOptions, name)
            setattr(made.builtinOptions, name, value)
        self.graph.operators.append(made)
        return output

    def file(self, taken, given):
        self.graph.inputs, self.graph.outputs = [taken], [given]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


PLAIN = {"padding": schema.Padding.SAME, "strideH": 1, "strideW": 1}
DENSE = {**PLAIN, "dilationHFactor": 1, "dilationWFactor": 1}


def conv(net, read, inputs, outputs, kernel, size, **options):
    values = np.clip(np.rint(40 * rng.standard_normal((outputs, kernel, kernel, inputs))), -127, 127)
    scales = np.full(outputs, 1 / (40 * kernel * inputs**0.5), np.float32)
    weight = net.tensor(values.shape, scales, values=values.astype(np.int8))
    bias = net.tensor([outputs], scales * np.float32(0.05), values=np.zeros(outputs, np.int32))
    made = net.tensor([1, size, size, outputs], zero_point=-128)
    return net.add("CONV_2D", 3, [read, weight, bias], made, "Conv2DOptions", **DENSE, **options)


def compiled(file, accelerator, system, *options):
    """All cycles, and those of each operator of Vela's report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.tflite").write_bytes(file)
        command = [sys.executable, "-m", "ethosu.vela", "net.tflite", "--output-dir", ".", "--verbose-performance"]
        command += ["--accelerator-config", accelerator, "--config", "Arm/vela.ini", "--system-config", system]
        command += ["--memory-mode", "Shared_Sram", *options]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        summary = next(csv.DictReader((folder / f"net_summary_{system}.csv").read_text().splitlines()))
        rows = csv.DictReader((folder / "net_per-layer.csv").read_text().splitlines())
        return int(float(summary["cycles_total"])), {(r["Name"], r["NNG Operator"]): int(r["Op Cycles"]) for r in rows}


found = {}
for channels in (7, 8):
    for flag in ("RELU", "NONE"):
        net, rng = Net(), np.random.default_rng(0)
        image = net.tensor([1, 32, 32, 16])
        before = conv(net, image, 16, channels, 3, 32)
        asked = getattr(schema.ActivationFunctionType, flag)
        layer = conv(net, before, channels, channels, 3, 32, fusedActivationFunction=asked)
        file = net.file(image, conv(net, layer, channels, 16, 1, 32))
        total, rows = compiled(file, "ethos-u55-128", "Ethos_U55_High_End_Embedded")
        own = [f"{kind} {cycles}" for (name, kind), cycles in rows.items() if name.split("_")[0] == f"t{layer}"]
        print(f"{channels} channels, {flag}: {total} cycles in all; {', '.join(own)}")
        found[channels, flag] = total, rows.get((f"t{layer}", "Relu"), 0)
assert found[7, "RELU"][1] > 5000
assert found[7, "RELU"][0] > 1.2 * found[7, "NONE"][0]
assert found[7, "RELU"][0] > 1.2 * found[8, "RELU"][0]
assert found[8, "RELU"] == found[8, "NONE"]
PY
"$folder/env/bin/python" "$folder/check.py"
