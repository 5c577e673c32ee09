#!/usr/bin/env bash
# ai-edge-litert 2.3.0, numpy 2.4.6, flatbuffers 25.12.19, x86 with AVX2 or more. Seen on 29 November 2026.
#
# Guess: LiteRT's default kernels (XNNPACK) answer an int8 network as its reference kernels do, but for a step at a few
# outputs; those of `BUILTIN_WITHOUT_DEFAULT_DELEGATES` do to the bit.
#
# One layer differs at an output or two in a thousand. But each layer rounds the steps of the one before again: after 16
# convolutions a third of the outputs differ, or two thirds where no ReLU cuts them off. Without delegates the answers are
# equal as long as nothing is negative; where outputs have both signs they are as far off as the default ones. Accuracy
# that was measured on a workstation is that of other integers than a microcontroller's.
#
# Output seen (share of outputs that differ from the reference kernels', and by how much at the most):
#   1 layers, cut off at 0: default 0.1 % (1), without delegates 0.0 % (0)
#   4 layers, cut off at 0: default 5.6 % (2), without delegates 0.0 % (0)
#   16 layers, cut off at 0: default 34.5 % (6), without delegates 0.0 % (0)
#   1 layers, both signs: default 0.2 % (1), without delegates 0.2 % (1)
#   4 layers, both signs: default 15.9 % (3), without delegates 17.0 % (3)
#   16 layers, both signs: default 67.2 % (23), without delegates 67.4 % (24)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6
cat > "$folder/check.py" <<'PY'
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

SIDE, CHANNELS = 16, 16
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


def chain(layers, zero_point):
    net = Net()
    image = made = net.tensor([1, SIDE, SIDE, CHANNELS])
    for _ in range(layers):
        values = np.clip(np.rint(40 * rng.standard_normal((CHANNELS, 3, 3, CHANNELS))), -127, 127).astype(np.int8)
        scales = ((2 / values[0].size) ** 0.5 / 40 * rng.uniform(0.8, 1.2, CHANNELS)).astype(np.float32)
        weight = net.tensor(values.shape, scales, values=values)
        bias = net.tensor([CHANNELS], scales * np.float32(0.05), values=np.zeros(CHANNELS, np.int32))
        answer = net.tensor([1, SIDE, SIDE, CHANNELS], zero_point=zero_point)
        made = net.add("CONV_2D", 3, [made, weight, bias], answer, "Conv2DOptions", **DENSE)
    return net.file(image, made)


def answers(file, kernels):
    opened = Interpreter(model_content=file, experimental_op_resolver_type=kernels, num_threads=1)
    opened.allocate_tensors()
    taken, given = opened.get_input_details()[0]["index"], opened.get_output_details()[0]["index"]
    for each in images:
        opened.set_tensor(taken, each)
        opened.invoke()
        yield opened.get_tensor(given).astype(int)


images = rng.integers(-128, 128, (20, 1, SIDE, SIDE, CHANNELS)).astype(np.int8)
found = {}
for signs, zero_point in (("cut off at 0", -128), ("both signs", 0)):
    for layers in (1, 4, 16):
        file = chain(layers, zero_point)
        reference = np.stack([*answers(file, OpResolverType.BUILTIN_REF)])
        shown = []
        for how in ("AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"):
            off = np.abs(np.stack([*answers(file, getattr(OpResolverType, how))]) - reference)
            found[signs, layers, how] = float((off > 0).mean())
            shown.append(f"{(off > 0).mean():.1%} ({off.max()})".replace("%", " %"))
        print(f"{layers} layers, {signs}: default {shown[0]}, without delegates {shown[1]}")
for signs in ("cut off at 0", "both signs"):
    assert 0 < found[signs, 1, "AUTO"] < 0.02
    assert found[signs, 16, "AUTO"] > 0.1
assert all(found["cut off at 0", layers, "BUILTIN_WITHOUT_DEFAULT_DELEGATES"] == 0 for layers in (1, 4, 16))
assert found["both signs", 16, "BUILTIN_WITHOUT_DEFAULT_DELEGATES"] > 0.1
PY
"$folder/env/bin/python" "$folder/check.py" 2> "$folder/said"
