"""`integer_network`: a float graph with ranges for its tensors, as the network of integers that computes the same.

Images are batch 1 and lie channels last; nothing is transposed for it. An image laid flat for a linear layer lies in
another order then, which the layer's weight takes over. The graph's tensors keep their names.
"""

from collections.abc import Callable, Mapping
from typing import Final

from prunit.export.quantising.network import Network
from prunit.export.quantising.ranges import Span
from prunit.export.tflite import moving, pointwise, weighted
from prunit.export.tflite.building import Building
from prunit.export.tflite.reading import Step, float_graph
from prunit.export.tflite.spans import quants
from prunit.mcu.network import IntegerNetwork

_LOWERED: Final[Mapping[str, Callable[[Building, Step], None]]] = {
    "Conv": weighted.conv,
    "ConvTranspose": weighted.conv_transpose,
    "Gemm": weighted.linear,
    "MatMul": weighted.linear,
    "BatchNormalization": weighted.batch_norm,
    "HardSigmoid": weighted.hard_sigmoid,
    "Add": pointwise.arithmetic,
    "Sub": pointwise.arithmetic,
    "Mul": pointwise.arithmetic,
    "Div": pointwise.arithmetic,
    "Relu": pointwise.relu,
    "Sigmoid": pointwise.optionless,
    "Tanh": pointwise.optionless,
    "HardSwish": pointwise.optionless,
    "LeakyRelu": pointwise.leaky_relu,
    "PRelu": pointwise.prelu,
    "Softmax": pointwise.softmax,
    "MaxPool": moving.max_pool,
    "AveragePool": moving.average_pool,
    "GlobalAveragePool": moving.mean,
    "ReduceMean": moving.mean,
    "Pad": moving.padding,
    "Concat": moving.concat,
    "Resize": moving.resize,
    "Slice": moving.slices,
    "Split": moving.split,
    "Reshape": moving.reshape,
    "Flatten": moving.reshape,
    "Squeeze": moving.reshape,
    "Unsqueeze": moving.reshape,
}


def integer_network(network: Network, spans: Mapping[str, Span], *, name: str) -> IntegerNetwork:
    """The network called `name` with int8 activations in steps over `spans`, int8 weights and int32 biases.

    Input and outputs are those of the file for one image: (1, C, H, W) as (1, H, W, C). `spans` has the ranges of all
    float tensors by name, as `observed` and `span` find them or `stand_in_spans` makes them up.

    Raises `ModelError`, in one line, for an operator or a shape without a counterpart, constants that are NaN, and
    tensors without a range.
    """
    graph = float_graph(network)
    for step in graph.steps:
        if step.operator not in _LOWERED:
            raise graph.refused(step, "it has no counterpart there", f"use what has one: {', '.join(sorted(_LOWERED))}")
    building = Building(graph, quants(graph, spans))
    for input in graph.inputs:
        building.activation(input)
    for step in graph.steps:
        _LOWERED[step.operator](building, step)
    return building.network(name)
