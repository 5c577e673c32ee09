"""What an engine makes of an ONNX file, whatever the values of the weights and the names that nothing depends on."""

from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper


def structure(path: Path) -> list[tuple[Any, ...]]:
    """Each node with its attributes, and each input of it: the output of which node, or type and shape of a tensor (and
    its values, if these are whole numbers)."""
    graph = onnx.load(path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: (number, i) for number, node in enumerate(graph.node) for i, name in enumerate(node.output)}

    def read(name: str) -> object:
        tensor = tensors.get(name)
        if tensor is None:
            return made.get(name, name)
        array = numpy_helper.to_array(tensor)
        return (str(array.dtype), array.shape, array.tolist() if array.dtype.kind != "f" else name.rpartition(".")[0])

    ends = [(read(value.name), value.type.SerializeToString()) for value in (*graph.input, *graph.output)]
    nodes = [
        (
            node.op_type,
            tuple(map(read, node.input)),
            len(node.output),
            sorted(attribute.SerializeToString() for attribute in node.attribute),
        )
        for node in graph.node
    ]
    return [*ends, *nodes]
