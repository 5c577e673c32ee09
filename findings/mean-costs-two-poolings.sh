#!/usr/bin/env bash
# ethos-u-vela 5.2.0, ai-edge-litert 2.3.0, numpy 2.4.6, flatbuffers 25.12.19. Seen on 29 November 2026.
#
# Guess: the mean over a whole image takes an Ethos-U as long whether it is written as MEAN or as AVERAGE_POOL_2D with a window
# of the image's size.
#
# MEAN takes two to four times as many of Vela's cycles: it becomes a depthwise convolution and a multiplication. The other
# side: AVERAGE_POOL_2D answers at the scale of what it reads, MEAN at a finer one.
#
# Output seen:
#   ethos-u55-128, 32x32x16: MEAN 22045 cycles (DepthwiseConv2D + Mul), AVERAGE_POOL_2D 10468
#   ethos-u55-128, 8x8x64: MEAN 6128 cycles (DepthwiseConv2D + Mul), AVERAGE_POOL_2D 3152
#   ethos-u85-256, 32x32x16: MEAN 21231 cycles (DepthwiseConv2D + Mul), AVERAGE_POOL_2D 5266
#   ethos-u85-256, 8x8x64: MEAN 5490 cycles (DepthwiseConv2D + Mul), AVERAGE_POOL_2D 1480
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


def cycles(code, size, channels, accelerator, system):
    net = Net()
    image = net.tensor([1, size, size, channels])
    read = conv(net, image, channels, channels, 3, size)
    made = net.tensor([1, 1, 1, channels], zero_point=-128)
    if code == "MEAN":
        axes = net.tensor([2], values=np.array([1, 2], np.int32))
        net.add(code, 2, [read, axes], made, "ReducerOptions", keepDims=True)
    else:
        window = {**PLAIN, "padding": schema.Padding.VALID, "filterHeight": size, "filterWidth": size}
        net.add(code, 2, [read], made, "Pool2DOptions", **window)
    rows = compiled(net.file(image, conv(net, made, channels, 16, 1, 1)), accelerator, system)[1]
    own = {kind: found for (name, kind), found in rows.items() if name.split("_")[0] == f"t{made}"}
    return " + ".join(own), sum(own.values())


PARTS = {"ethos-u55-128": "Ethos_U55_High_End_Embedded", "ethos-u85-256": "Ethos_U85_SYS_Flash_High"}
for accelerator, system in PARTS.items():
    for size, channels in ((32, 16), (8, 64)):
        kinds, mean = cycles("MEAN", size, channels, accelerator, system)
        pool = cycles("AVERAGE_POOL_2D", size, channels, accelerator, system)[1]
        what = f"{accelerator}, {size}x{size}x{channels}"
        print(f"{what}: MEAN {mean} cycles ({kinds}), AVERAGE_POOL_2D {pool}")
        assert kinds == "DepthwiseConv2D + Mul"
        assert 1.7 * pool < mean < 5 * pool
PY
"$folder/env/bin/python" "$folder/check.py"
