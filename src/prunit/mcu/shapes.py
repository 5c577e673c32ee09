"""From a network of integers to the shapes of its layers, for which a table knows the cycles."""

from collections.abc import Mapping
from typing import Final

from prunit.errors import ModelError
from prunit.mcu.layers import LayerKind, LayerShape, Padding
from prunit.mcu.network import IntegerNetwork, Operator

_KINDS: Final[Mapping[str, LayerKind]] = {
    "ADD": "add",
    "AVERAGE_POOL_2D": "average_pool",
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "depthwise",
    "FULLY_CONNECTED": "linear",
    "MAX_POOL_2D": "max_pool",
    "MEAN": "mean",
}

FREE: Final = ("RESHAPE", "PAD")
"""Vela gives these no cycles: a tensor is read in another shape, and a convolution of padding VALID that reads what was
padded becomes one that pads by itself."""


def layers_of(network: IntegerNetwork) -> dict[str, LayerShape]:
    """The layers by the names of the tensors that they make, in the order in which they run.

    Raises `ModelError` for an operator that tables do not know, named with its layer: compile the whole network then.
    """
    makers = _makers(network)
    return {o.outputs[0]: _shape(network, o, makers) for o in network.operators if o.code not in FREE}


def shapes_of(network: IntegerNetwork) -> dict[str, LayerShape]:
    """The same of the operators that tables know."""
    makers, found = _makers(network), dict[str, LayerShape]()
    for operator in network.operators:
        try:
            if operator.code not in FREE:
                found[operator.outputs[0]] = _shape(network, operator, makers)
        except ModelError:
            continue
    return found


def _makers(network: IntegerNetwork) -> Mapping[str, Operator]:
    return {operator.outputs[0]: operator for operator in network.operators}


def _shape(network: IntegerNetwork, operator: Operator, makers: Mapping[str, Operator]) -> LayerShape:
    kind = _KINDS.get(operator.code)
    if kind is None:
        raise ModelError(
            f"no table knows the cycles of {operator.code} of '{operator.layer}'; compile the whole network"
        )
    read, made = operator.inputs[0], operator.outputs[0]
    options = operator.options
    padding: Padding = "VALID" if options.get("padding") == "VALID" else "SAME"
    maker = makers.get(read)
    if maker is not None and maker.code == "PAD":
        read, padding = maker.inputs[0], "SAME"
    taken, given = network.by_name[read].shape, network.by_name[made].shape
    height, width = taken[1:3] if len(taken) == 4 and kind != "linear" else (1, 1)
    kernel = (1, 1)
    if kind in ("conv", "depthwise"):
        weight = network.by_name[operator.inputs[1]].shape
        kernel = (weight[1], weight[2])
        if kind == "conv" and weight[3] != taken[3]:
            raise ModelError(
                f"no table knows the cycles of the grouped convolution '{operator.layer}' ({weight[3]} of {taken[3]} "
                "inputs a group); compile the whole network"
            )
    elif kind in ("max_pool", "average_pool"):
        kernel = (options["filterHeight"], options["filterWidth"])
    stride = (options.get("strideH", 1), options.get("strideW", 1))
    inputs = network.by_name[operator.inputs[1]].shape[1] if kind == "linear" else taken[-1]
    found = LayerShape(kind, height, width, inputs, given[-1], kernel, stride, padding, first=read in network.inputs)
    if len(given) == 4 and kind not in ("linear", "mean") and found.size != given[1:3]:
        raise ModelError(
            f"no table knows the cycles of '{operator.layer}', whose output of {given[1]}x{given[2]} comes of another "
            f"padding or dilation than {found} has; compile the whole network"
        )
    return found
