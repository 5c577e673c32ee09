"""Operators that move values, or take the largest or the mean of some: pools, paddings, resizing, joining."""

import math
from typing import Final

import numpy as np

from prunit.export.tflite.building import Building, channels_last
from prunit.export.tflite.padding import pad, window_of
from prunit.export.tflite.reading import Shape, Step
from prunit.export.tflite.resizing import places_of_onnx, places_of_tflite
from prunit.export.tflite.spans import averages_image

_MOST_JOINED: Final = 10
"""Tensors in one CONCATENATION: TensorFlow Lite Micro's `kMaxInputNum`."""

_NEAR: Final = 1e-4
"""Of a pixel: less than the 1024ths in which kernels count."""


def max_pool(building: Building, step: Step) -> None:
    """MAX_POOL_2D."""
    window = window_of(building.graph, step, step.attributes["kernel_shape"])
    if window.dilations != (1, 1) or len(step.outputs) > 1:
        raise building.graph.refused(step, "MAX_POOL_2D has no dilation and no indices", "use a plain nn.MaxPool2d")
    x, rule = window.padded(building, step, step.input(0), least=True)
    building.emit("MAX_POOL_2D", step, [x], step.output, _pool(window.options(rule), window.kernel))


def average_pool(building: Building, step: Step) -> None:
    """AVERAGE_POOL_2D, or MEAN where the kernel is the whole image."""
    if averages_image(step, building.graph):
        mean(building, step)
        return
    window = window_of(building.graph, step, step.attributes["kernel_shape"])
    counted = bool(step.attributes.get("count_include_pad", 0)) or (window.before, window.after) == ((0, 0), (0, 0))
    if window.dilations != (1, 1) or (window.after != (0, 0) and step.attributes.get("ceil_mode", 0)):
        raise building.graph.refused(step, "windows have dilation or end outside of the image", "use ceil_mode=False")
    if counted:
        x, rule = building.activation(step.input(0)), "VALID"
        if (window.before, window.after) != ((0, 0), (0, 0)):
            (top, left), (bottom, right) = window.before, window.after
            x = pad(building, step, x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    else:
        x, rule = building.activation(step.input(0)), window.rule
        if rule is None:
            raise building.graph.refused(
                step, "AVERAGE_POOL_2D does not place it so with count_include_pad=False", "use count_include_pad=True"
            )
    building.emit("AVERAGE_POOL_2D", step, [x], step.output, _pool(window.options(rule), window.kernel))


def mean(building: Building, step: Step) -> None:
    """MEAN over height and width."""
    if not averages_image(step, building.graph):
        raise building.graph.refused(step, "only means over height and width are supported", "use x.mean((2, 3))")
    x = building.activation(step.input(0))
    axes = building.constant("image/axes", np.array([1, 2], np.int32))
    flat = len(building.graph.shape(step.output)) == 2
    answer = building.row(step, step.output, size=building.shape(x)[-1]) if flat else step.output
    building.emit("MEAN", step, [x, axes], answer, {"keepDims": True})


def padding(building: Building, step: Step) -> None:
    """PAD, with zeros."""
    graph, shape = building.graph, building.graph.shape(step.input(0))
    counts, value, axes = (graph.constants.get(step.input(i)) for i in (1, 2, 3))
    plain = step.attributes.get("mode", b"constant") == b"constant" and (
        value is None or float(value.reshape(-1)[0]) == 0
    )
    if counts is None or not plain or len(shape) != 4 or (step.input(3) and axes is None) or counts.min(initial=0) < 0:
        raise graph.refused(step, "only paddings of an image with zeros are supported", "use nn.ZeroPad2d")
    around = np.zeros((4, 2), np.int64)
    dimensions = range(4) if axes is None else [int(axis) % 4 for axis in axes]
    for axis, pair in zip(dimensions, counts.reshape(2, -1).T.tolist(), strict=True):
        around[axis] = pair
    pairs = [(int(a), int(b)) for a, b in around[[0, 2, 3, 1]]]
    pad(building, step, building.activation(step.input(0)), pairs, into=building.activation(step.output))


def concat(building: Building, step: Step) -> None:
    """CONCATENATION: what comes in other steps than its answer is brought into these first."""
    graph, shape = building.graph, building.graph.shape(step.output)
    axis = step.attributes["axis"] % len(shape)
    if len(shape) not in (2, 4) or any(name in building.orders for name in step.inputs):
        raise graph.refused(step, "only images (1, C, H, W) and rows (1, N) are joined", "flatten after it")
    quant = building.quants[step.output]
    inputs: list[str] = []
    for name in step.inputs:
        values = graph.constants.get(name)
        if values is None:
            inputs.append(building.requantised(step, name, quant))
        else:
            steps = building.as_int8(values.astype(np.float64), quant, len(shape))
            inputs.append(building.constant(name, steps, (quant.scale,), zero_point=quant.zero_point))
    place = channels_last((0, 1, 2, 3)).index(axis) if len(shape) == 4 else axis
    options = {"axis": place, "fusedActivationFunction": "NONE"}
    while len(inputs) > _MOST_JOINED:
        first, inputs = inputs[:_MOST_JOINED], inputs[_MOST_JOINED:]
        sizes = list(building.shape(first[0]))
        sizes[place] = sum(building.shape(name)[place] for name in first)
        inputs.insert(0, building.between(f"{step.output}/joined", tuple(sizes), quant))
        building.emit("CONCATENATION", step, first, inputs[0], options)
    building.emit("CONCATENATION", step, inputs, step.output, options)


def reshape(building: Building, step: Step) -> None:
    """RESHAPE between an image and a row of values, which keeps the order of channels last until a linear layer."""
    name, graph = step.input(0), building.graph
    before, after = graph.shape(name), graph.shape(step.output)
    order = building.orders.get(name)
    if len(before) == 4 and len(after) == 2 and after[0] == 1:
        if before[1] > 1 and before[2] * before[3] > 1:
            building.orders[step.output] = before[1:]
    elif len(before) == len(after) == 2 and before == after:
        if order is not None:
            building.orders[step.output] = order
    elif before != after and not (len(before) == 2 and len(after) == 4 and order == _image(after)):
        raise graph.refused(
            step, f"it becomes {after}, which would need its values in another order", "flatten with x.flatten(1)"
        )
    if len(after) == 2 and (building.is_pixel(name) or (len(before) == 4 and before[2] * before[3] == 1)):
        building.row(step, step.output, building.pixel(step, name) if len(before) == 2 else building.activation(name))
        return
    x = building.activation(name)
    answer = building.row(step, step.output, size=after[1]) if len(after) == 2 else building.activation(step.output)
    shape = np.array(building.shape(answer), np.int32)
    options = {"newShape": shape.tolist()}
    building.emit("RESHAPE", step, [x, building.constant(f"{answer}/shape", shape)], answer, options)


def slices(building: Building, step: Step) -> None:
    """STRIDED_SLICE for a Slice with constant ends."""
    graph, shape = building.graph, building.graph.shape(step.input(0))
    starts, ends, axes, steps = (graph.constants.get(step.input(i)) for i in (1, 2, 3, 4))
    if starts is None or ends is None or len(shape) != 4 or (steps is not None and steps.min() < 1):
        raise graph.refused(step, "only slices of images with constant ends are supported", "index with numbers")
    begin, end, by = [0] * 4, list(shape), [1] * 4
    for i, start in enumerate(starts.tolist()):
        axis = i if axes is None else int(axes[i]) % 4
        begin[axis], end[axis], by[axis] = slice(start, int(ends[i]), 1 if steps is None else int(steps[i])).indices(
            shape[axis]
        )
    _strided(building, step, step.output, begin, end, by)


def split(building: Building, step: Step) -> None:
    """STRIDED_SLICE for each part of a Split."""
    graph, shape = building.graph, building.graph.shape(step.input(0))
    if len(shape) != 4:
        raise graph.refused(step, "only images (1, C, H, W) are split", "split before the flattening")
    axis, start = step.attributes.get("axis", 0) % 4, 0
    for name in step.outputs:
        begin, end = [0] * 4, list(shape)
        begin[axis], end[axis] = start, start + graph.shape(name)[axis]
        start = end[axis]
        _strided(building, step, name, begin, end, [1] * 4)


def resize(building: Building, step: Step) -> None:
    """RESIZE_NEAREST_NEIGHBOR or RESIZE_BILINEAR, where one of their three modes takes the very same pixels."""
    graph, after = building.graph, building.graph.shape(step.output)
    mode = step.attributes.get("mode", b"nearest").decode()
    found = _resized(building, step, mode)
    if found is None:
        how = step.attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
        raise graph.refused(
            step,
            f"mode {mode} with {how} to {after} takes other pixels than TensorFlow Lite's",
            "use nn.Upsample(scale_factor=2, mode='nearest') or mode='bilinear'",
        )
    x = building.activation(step.input(0))
    size = building.constant(f"{step.output}/size", np.array(after[2:], np.int32))
    code = "RESIZE_NEAREST_NEIGHBOR" if mode == "nearest" else "RESIZE_BILINEAR"
    building.emit(code, step, [x, size], step.output, {"alignCorners": found[0], "halfPixelCenters": found[1]})


def _resized(building: Building, step: Step, mode: str) -> tuple[bool, bool] | None:
    """Whether TensorFlow Lite must align corners, and count from the middles of pixels; None if nothing will do."""
    before, after = building.graph.shape(step.input(0)), building.graph.shape(step.output)
    scales = building.graph.constants.get(step.input(2))
    factors = [large / small for small, large in zip(before, after, strict=True)]
    if scales is not None and scales.size:
        factors = scales.tolist()
    about = step.attributes
    if len(before) != 4 or len(factors) != 4 or before[:2] != after[:2] or about.get("antialias") or "axes" in about:
        return None
    wanted = [places_of_onnx(step, before[i], after[i], factors[i]) for i in (2, 3)]
    for align, half in ((False, False), (False, True), (True, False)):
        made = [places_of_tflite(mode, before[i], after[i], align=align, half=half) for i in (2, 3)]
        pairs = zip(wanted, made, strict=True)
        if all(one is not None and np.allclose(one, other, rtol=0, atol=_NEAR) for one, other in pairs):
            return align, half
    return None


def _strided(building: Building, step: Step, output: str, begin: list[int], end: list[int], by: list[int]) -> None:
    parts = (("begin", begin), ("end", end), ("strides", by))
    names = [
        building.constant(f"{output}/{what}", np.array([sizes[i] for i in (0, 2, 3, 1)], np.int32))
        for what, sizes in parts
    ]
    building.emit("STRIDED_SLICE", step, [building.activation(step.input(0)), *names], output, {"beginMask": 0})


def _pool(options: dict[str, object], kernel: tuple[int, int]) -> dict[str, object]:
    return {**options, "filterHeight": kernel[0], "filterWidth": kernel[1], "fusedActivationFunction": "NONE"}


def _image(shape: Shape) -> Shape | None:
    """The order in which a row must lie that becomes this image: none in particular for a single pixel."""
    return None if math.prod(shape[2:]) == 1 or shape[1] == 1 else shape[1:]
