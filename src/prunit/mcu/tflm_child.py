"""The process in which TensorFlow Lite Micro runs: it reads requests from its input and writes answers to its output.

Started by `prunit.mcu.tflm` by its path, so that it needs nothing of prunit. A request is a line of JSON, the model's
bytes and, to be answered, int8 inputs; an answer is a line of JSON and the outputs' bytes. What TensorFlow Lite Micro
prints goes to standard error, where the other side reads it.
"""

import json
import sys
from typing import Any, BinaryIO

import numpy as np
from tflite_micro.python.tflite_micro import runtime


def _answer(request: dict[str, Any], model: bytes, inputs: bytes) -> tuple[dict[str, Any], list[Any]]:
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=request["arena"])
    if request["do"] == "allocate":
        interpreter.print_allocations()
        return {}, []
    details = interpreter.get_input_details(0)
    shape, kind = tuple(int(size) for size in details["shape"]), np.dtype(details["dtype"])
    if request["do"] == "run":
        interpreter.set_input(np.zeros(shape, kind), 0)
        interpreter.invoke()
        return {}, []
    if [1, *request["shape"][1:]] != list(shape) or kind != np.int8:
        return {"error": f"the network takes {kind} {shape}, got int8 images of {tuple(request['shape'][1:])}"}, []
    found: list[list[Any]] = [[] for _ in range(request["outputs"])]
    for image in np.frombuffer(inputs, np.int8).reshape(request["shape"]):
        interpreter.set_input(image[None], 0)
        interpreter.invoke()
        for index, outputs in enumerate(found):
            outputs.append(np.array(interpreter.get_output(index)))
    arrays = [np.concatenate(outputs) for outputs in found]
    return {"outputs": [[str(array.dtype), list(array.shape)] for array in arrays]}, arrays


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    while line := requests.readline():
        request = json.loads(line)
        model, inputs = requests.read(request["model"]), requests.read(request["inputs"])
        try:
            said, arrays = _answer(request, model, inputs)
        except (RuntimeError, ValueError) as error:
            said, arrays = {"error": str(error)}, []
        answers.write(json.dumps(said).encode() + b"\n")
        for array in arrays:
            answers.write(np.ascontiguousarray(array).tobytes())
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
