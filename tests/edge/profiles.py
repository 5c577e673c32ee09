"""Device profiles of devices that do not exist, for tests: times follow a formula."""

from collections.abc import Callable, Sequence

from prunit.edge.measuring.energy import LITERATURE
from prunit.edge.measuring.probe_layers import merge, points_of
from prunit.edge.measuring.profile import DeviceProfile, LayerPoints, LayerShape, Rest
from prunit.edge.portfolio import Device

Formula = Callable[[LayerShape, int, int], float]
"""Milliseconds of a layer with so many inputs and outputs."""

DEVICE = Device(name="toy", cores=1, engine="onnxruntime", engine_version="1", os="none", python="3")
NO_REST = Rest(per_layer_ms=0, fetching=())


def blocks(shape: LayerShape, inputs: int, outputs: int) -> float:
    """As engines do: outputs in blocks of 16; inputs that fill no blocks take a quarter longer."""
    whole = -(-outputs // 16) * 16
    return 1e-4 * inputs * whole * (1.0 if inputs % 16 == 0 else 1.25) / (inputs if shape.depthwise else 1)


def products(shape: LayerShape, inputs: int, outputs: int) -> float:
    """In proportion to the products of a layer, with something for itself."""
    return 1e-3 + 1e-5 * inputs * outputs / (inputs if shape.depthwise else 1)


def profile(shapes: Sequence[LayerShape], formula: Formula = blocks, *, rest: Rest = NO_REST) -> DeviceProfile:
    """A profile of these layers on a device where they take what the formula says."""
    layers = tuple(
        LayerPoints(shape=s, points=tuple((p.inputs, p.outputs, formula(s, p.inputs, p.outputs)) for p in points_of(s)))
        for s in merge(shapes)
    )
    date = "2026-01-01T00:00:00+00:00"
    return DeviceProfile(prunit="0", date=date, device=DEVICE, threads=1, rest=rest, energy=LITERATURE, layers=layers)
