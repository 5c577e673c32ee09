#!/usr/bin/env bash
# tflite_micro 0.dev20261023182759, ai-edge-litert 2.3.0, numpy 2.4.6, flatbuffers 25.12.19. Seen on 29 November 2026.
#
# Guess: a CONCATENATION that LiteRT runs, TensorFlow Lite Micro runs too.
#
# It takes at most 10 tensors: its kernel has room for so many (kMaxInputNum). With 11 it is refused when the network is
# prepared, on the device: dense blocks of a DenseNet have more. Joined in two steps the same network runs.
#
# Output seen:
#   10 tensors: LiteRT 40 numbers, TensorFlow Lite Micro 40 numbers
#   11 tensors: LiteRT 44 numbers, TensorFlow Lite Micro TFLM failed to allocate tensors
#   11 tensors in two steps: LiteRT 44 numbers, TensorFlow Lite Micro 44 numbers
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6 tflite-micro==0.dev20261023182759
cat > "$folder/check.py" <<'PY'
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from tflite_micro.python.tflite_micro import runtime

x = np.array([[1, 2, 3, 4]], np.int8)


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


def joined(*counts):
    """So many times x in one tensor, a number for each step."""
    net = Net()
    read = net.tensor([1, 4])
    made, length = [], 0
    for count in counts:
        length += 4 * count
        answer = net.tensor([1, length])
        net.add("CONCATENATION", 2, [*made, *[read] * count], answer, "ConcatenationOptions", axis=1)
        made = [answer]
    return net.file(read, made[0])


def litert(file):
    opened = Interpreter(model_content=file, num_threads=1)
    opened.allocate_tensors()
    opened.set_tensor(opened.get_input_details()[0]["index"], x)
    opened.invoke()
    return opened.get_tensor(opened.get_output_details()[0]["index"])


def micro(file):
    try:
        opened = runtime.Interpreter.from_bytes(file)
    except RuntimeError as error:
        return str(error)
    opened.set_input(x, 0)
    opened.invoke()
    return np.array(opened.get_output(0))


for counts, refused in (([10], False), ([11], True), ([10, 1], False)):
    file = joined(*counts)
    whole, small = litert(file), micro(file)
    shown = [each if isinstance(each, str) else f"{each.size} numbers" for each in (whole, small)]
    steps = " in two steps" if len(counts) > 1 else ""
    print(f"{sum(counts)} tensors{steps}: LiteRT {shown[0]}, TensorFlow Lite Micro {shown[1]}")
    assert np.array_equal(whole, np.tile(x, sum(counts)))
    assert isinstance(small, str) if refused else np.array_equal(small, whole)
PY
"$folder/env/bin/python" "$folder/check.py" 2> "$folder/said"
grep -q "kMaxInputNum was not true" "$folder/said"
