"""Operators that compute each value by itself: sums and products of two tensors, activations."""

from typing import Final

import numpy as np

from prunit.export.tflite.building import Building, Figures
from prunit.export.tflite.reading import FLAGS, Shape, Step, float_constant
from prunit.export.tflite.weighted import affine

_CODES: Final = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL"}
_OPTIONLESS: Final = {"Sigmoid": "LOGISTIC", "Tanh": "TANH", "HardSwish": "HARD_SWISH"}
_RELUS: Final = {"RELU": "RELU", "RELU6": "RELU6"}


def arithmetic(building: Building, step: Step) -> None:
    """ADD, SUB or MUL; with a constant for each channel, or for all, of an image a depthwise convolution instead."""
    if _by_channel(building, step):
        return
    graph, answer = building.graph, building.graph.shape(step.output)
    if step.operator == "Div":
        raise graph.refused(step, "only divisions by a constant are supported", "multiply by the inverse instead")
    for name in step.inputs:
        if name in building.orders and building.orders[name] != _order(building, step):
            raise graph.refused(step, "one side is an image laid flat, the other is not", "flatten after it")
        if name in graph.constants and graph.constants[name].ndim > len(answer):
            raise graph.refused(step, "its constant has more dimensions than its answer", "reshape the constant")
    if len(answer) not in (2, 4):
        raise graph.refused(
            step, "only images (1, C, H, W) and rows (1, N) are supported", "reshape after the last layer"
        )
    inputs = [_operand(building, step, name, len(answer)) for name in step.inputs]
    building.emit(_CODES[step.operator], step, inputs, step.output, {"fusedActivationFunction": building.flag(step)})
    if (order := _order(building, step)) is not None:
        building.orders[step.output] = order


def relu(building: Building, step: Step) -> None:
    """A ReLU or clip that no layer could take up."""
    x, low, high = step.input(0), *step.cut
    if not low <= 0 <= high:
        raise building.graph.refused(
            step, f"it cuts off at {low:g} and {high:g}, beyond 0", "clip to a range with 0 in it"
        )
    code = _RELUS.get(FLAGS.get(step.cut, ""), "QUANTIZE")  # other ends are those of the answer's range
    building.emit(code, step, [building.activation(x)], step.output)
    _keep_order(building, step)


def optionless(building: Building, step: Step) -> None:
    """LOGISTIC, TANH and HARD_SWISH."""
    building.emit(_OPTIONLESS[step.operator], step, [building.activation(step.input(0))], step.output)
    _keep_order(building, step)


def leaky_relu(building: Building, step: Step) -> None:
    """LEAKY_RELU."""
    options = {"alpha": step.attributes.get("alpha", 0.01)}
    building.emit("LEAKY_RELU", step, [building.activation(step.input(0))], step.output, options)
    _keep_order(building, step)


def prelu(building: Building, step: Step) -> None:
    """PRELU, with slopes for each channel or one for all."""
    slopes = float_constant(building.graph, step.input(1))
    shape = building.graph.shape(step.input(0))
    if slopes is None or len(shape) != 4 or slopes.size not in (1, shape[1]):
        raise building.graph.refused(
            step, "its slopes are not constants for each channel of an image", "use nn.PReLU on images"
        )
    values_HWC = np.broadcast_to(slopes.reshape(-1), (1, 1, shape[1])).astype(np.float64)
    inputs = [building.activation(step.input(0)), building.figures(step.input(1), values_HWC, 3)]
    building.emit("PRELU", step, inputs, step.output)


def softmax(building: Building, step: Step) -> None:
    """SOFTMAX over the channels."""
    shape = building.graph.shape(step.input(0))
    if step.attributes.get("axis", -1) % len(shape) != 1 or len(shape) not in (2, 4):
        raise building.graph.refused(
            step, "only a softmax over channels is supported", "use dim=1 on (1, N) or (1, C, H, W)"
        )
    if step.input(0) in building.orders:
        raise building.graph.refused(
            step, "its row is an image laid flat", "take the softmax of a linear layer's answer"
        )
    building.emit("SOFTMAX", step, [building.activation(step.input(0))], step.output, {"beta": 1.0})


def _by_channel(building: Building, step: Step) -> bool:
    """x * a, x / a, x + a, x - a and a - x, a of one value or one for each channel, as an affine layer."""
    graph = building.graph
    constants = [i for i, name in enumerate(step.inputs) if name in graph.constants]
    if len(constants) != 1:
        return False
    at = constants[0]
    x, values = step.inputs[1 - at], float_constant(graph, step.inputs[at])
    shape = graph.shape(x)
    if values is None or len(shape) != 4 or graph.shape(step.output) != shape or (step.operator == "Div" and at == 0):
        return False
    lifted = values.reshape((1,) * (4 - values.ndim) + values.shape) if values.ndim <= 4 else None
    if lifted is None or lifted.shape not in ((1, 1, 1, 1), (1, shape[1], 1, 1)):
        return False
    a_C: Figures = np.broadcast_to(lifted.reshape(-1), (shape[1],)).astype(np.float64)
    one_C, zero_C = np.ones(shape[1]), np.zeros(shape[1])
    if step.operator == "Mul":
        affine(building, step, x, a_C, zero_C)
    elif step.operator == "Div":
        affine(building, step, x, 1 / a_C, zero_C)
    elif step.operator == "Add":
        affine(building, step, x, one_C, a_C)
    else:
        affine(building, step, x, one_C if at == 1 else -one_C, -a_C if at == 1 else a_C)
    return True


def _operand(building: Building, step: Step, name: str, rank: int) -> str:
    order = _order(building, step)
    values = building.graph.constants.get(name)
    if values is None or order is None or values.size == 1:
        return building.flowing(name, rank)
    channels, rows, columns = order
    values_HWC = values.reshape(channels, rows, columns).transpose(1, 2, 0)
    return building.figures(name, values_HWC.reshape(1, -1).astype(np.float64), 2)


def _order(building: Building, step: Step) -> Shape | None:
    return next((building.orders[name] for name in step.inputs if name in building.orders), None)


def _keep_order(building: Building, step: Step) -> None:
    if (order := building.orders.get(step.input(0))) is not None:
        building.orders[step.output] = order
