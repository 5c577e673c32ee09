"""What a model takes on a device at given widths, predicted from the device's profile: nothing is built or run."""

from dataclasses import asdict

import numpy as np

from prunit.edge.measuring.layer_times import LayerTimes
from prunit.edge.measuring.profile import DeviceProfile, LayerShape, Window
from prunit.errors import ModelError, UncoveredError
from prunit.graph import ChannelGraph, Layer
from prunit.prices.costs import CostModel, cost_model

_NAMED = 3
"""How many layers a message names."""


def layers_of(graph: ChannelGraph) -> list[LayerShape]:
    """What a device has to measure so that the latency of this graph can be predicted at any widths.

    Raises `ModelError` for a layer that a profile cannot hold: a 1D, 3D or transposed convolution, or one that makes
    several channels of each that it reads alone.
    """
    model = cost_model(graph)
    narrowest = np.where(graph.free, 1, graph.sizes)
    sides = zip(*model.channels_at(graph.sizes), *model.channels_at(narrowest), strict=True)
    return [_shape(graph, layer, *map(float, side)) for layer, side in zip(graph.layers, sides, strict=True)]


def _shape(
    graph: ChannelGraph, layer: Layer, inputs: float, outputs: float, fewest_in: float, fewest_out: float
) -> LayerShape:
    window: Window | None = None
    if layer.kind == "linear" and not layer.positions:
        raise _uncovered(layer, "is applied to as many vectors as there are channels of another layer")
    if layer.kind == "conv":
        geometry = layer.geometry
        if geometry is None:
            raise _uncovered(layer, "is no 2D convolution that keeps its size or goes down")
        lone = geometry.groups > 1 and graph.tensors[layer.weight].shape[1] == 1
        if lone and geometry.groups != outputs:
            raise _uncovered(layer, f"makes {round(outputs)} channels, several of each that it reads alone")
        window = Window.model_validate({**asdict(geometry), "groups": "depthwise" if lone else geometry.groups})
    return LayerShape(
        inputs=round(inputs),
        outputs=round(outputs),
        inputs_fixed=fewest_in == inputs,
        outputs_fixed=fewest_out == outputs,
        window=window,
        rows=1 if window else layer.positions,
    )


def _uncovered(layer: Layer, why: str) -> ModelError:
    return ModelError(
        f"layer '{layer.module}' {why}; a device profile has no such layers, so no latency can be predicted: limit macs"
        " or params instead"
    )


class EnergyMeter:
    """The energy of one image, in mJ: multiply-adds and bytes moved at the profile's price for each.

    Weights move once, and what a layer puts out twice, to memory and back. Nothing is counted between layers.
    """

    def __init__(self, graph: ChannelGraph, profile: DeviceProfile) -> None:
        self.model, self.price = cost_model(graph), profile.energy

    def by_layer(self, widths: np.ndarray) -> np.ndarray:
        """Millijoules of each layer when group i keeps `widths[i]` channels."""
        costs = self.model.layers_at(widths)
        moved = costs.weight_bytes + 2 * costs.output_bytes
        return (costs.macs * self.price.pj_per_mac + moved * self.price.pj_per_byte) * 1e-9

    def __call__(self, widths: np.ndarray) -> float:
        """The energy at these widths."""
        return float(self.by_layer(widths).sum())


class LatencyMeter:
    """The latency of one image, in ms, on the device of a profile, for one graph.

    Raises `UncoveredError` if the profile does not cover a layer.
    """

    def __init__(self, graph: ChannelGraph, profile: DeviceProfile, *, source: str = "the profile") -> None:
        self.model: CostModel = cost_model(graph)
        self.rest = profile.rest
        pairs = np.array(profile.rest.fetching or [(1, 0.0)])
        self._bytes, self._ms = np.log(pairs[:, 0]), pairs[:, 1]
        shapes = layers_of(graph)
        found = profile.points_of(shapes)
        missing = [(layer, shape) for layer, shape, p in zip(graph.layers, shapes, found, strict=True) if p is None]
        if missing:
            named = "; ".join(f"'{layer.module}', {shape}" for layer, shape in missing[:_NAMED])
            more = f", and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise UncoveredError(
                f"{source} has no times of {len(missing)} of {len(shapes)} layers: {named}{more}; write the model's"
                " layers with prunit layers and measure them on the device with prunit probe-device"
            )
        self._times = LayerTimes([points for points in found if points is not None])

    def by_layer(self, widths: np.ndarray) -> np.ndarray:
        """Milliseconds of each layer when group i keeps `widths[i]` channels; parts of channels count as whole ones.

        What fetching its weights takes is counted with a layer: it was measured with these in a cache, unless they are
        too many for it by themselves.
        """
        own = self.model.layers_at(widths).weight_bytes
        fetching = own * (self._fetching(own.sum()) - self._fetching(own)) / 1e6
        return np.maximum(self._times.at(*self.model.channels_at(widths)) + fetching + self.rest.per_layer_ms, 0)

    def _fetching(self, turning: np.ndarray) -> np.ndarray:
        """Milliseconds to fetch a million bytes where so many bytes of weights are used in turn."""
        return np.interp(np.log(np.maximum(turning, 1)), self._bytes, self._ms)

    def __call__(self, widths: np.ndarray) -> float:
        """The latency at these widths: the layers, and the rest."""
        return float(self.by_layer(widths).sum())
