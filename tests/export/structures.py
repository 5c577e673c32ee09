"""What an engine makes of an ONNX file, whatever the values of the weights and the names that nothing depends on."""

from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper


def structure(path: Path) -> list[tuple[Any, ...]]:
    """Each node with its attributes, and each input of it: by name, or as type and shape of a tensor (and its values,
    if these are whole numbers)."""
    graph = onnx.load(path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}

    def read(name: str) -> object:
        tensor = tensors.get(name)
        if tensor is None:
            return name
        array = numpy_helper.to_array(tensor)
        return (str(array.dtype), array.shape, array.tolist() if array.dtype.kind != "f" else name.rpartition(".")[0])

    ends = [(value.name, value.type.SerializeToString()) for value in (*graph.input, *graph.output)]
    nodes = [
        (
            node.op_type,
            tuple(map(read, node.input)),
            tuple(node.output),
            sorted(attribute.SerializeToString() for attribute in node.attribute),
        )
        for node in graph.node
    ]
    return [*ends, *nodes]
