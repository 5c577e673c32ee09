"""A model as a network of integers at any widths, before anybody trains it: what parts are asked about.

Torch translates the dense model once. Shapes follow from the widths by themselves, and whether they follow rightly is
tried on one plan, whose compact model is exported for that.
"""

from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor, nn

from prunit.cut.plans import Plan
from prunit.errors import ModelError
from prunit.export.quantising.network import Network
from prunit.export.tflite import integer_network, stand_in_spans
from prunit.export.translation import Translation
from prunit.export.untrained import Untrained, spread_plan
from prunit.graph import ChannelGraph
from prunit.mcu.micro import file_for
from prunit.mcu.network import IntegerNetwork
from prunit.mcu.parts import Part
from prunit.mcu.resizing import resized
from prunit.prices.costs import cost_model, width_array

_NAMED = 3
"""Shapes that a message names."""


class Blueprint:
    """The network of integers of one dense model at any widths, with made-up weights and ranges.

    `translation` is what `export_onnx` gave of the same model, if it was exported already. Raises `ModelError` on first
    use for a model that cannot be exported, has an operator that integers have not, or whose shapes cannot be followed.
    """

    def __init__(
        self, dense: nn.Module, graph: ChannelGraph, example_BCHW: Tensor, *, translation: Translation | None = None
    ) -> None:
        self.graph = graph
        self._made_of = (dense, example_BCHW, translation)
        self._model = cost_model(graph)
        self.layers = tuple(layer.weight.removesuffix(".weight") for layer in graph.layers)
        """What the network calls the layers of the graph, in their order."""

    def at(self, widths: np.ndarray) -> IntegerNetwork:
        """The network when group i keeps `widths[i]` channels."""
        return resized(self._dense, self._sides(widths))

    def shapes_at(self, widths: np.ndarray) -> IntegerNetwork:
        """The same with weights of zeros, which is faster: for what goes by shapes."""
        return resized(self._dense, self._sides(widths), drawn=False)

    def file(self, widths: np.ndarray, on: Part) -> bytes:
        """The flatbuffer of the network at these widths, as it is for a part."""
        return file_for(self.at(widths), on)

    def _sides(self, widths: np.ndarray) -> dict[str, tuple[int, int]]:
        inputs, outputs = self._model.channels_at(widths)
        sides = zip(np.rint(inputs).astype(int).tolist(), np.rint(outputs).astype(int).tolist(), strict=True)
        return dict(zip(self.layers, sides, strict=True))

    @cached_property
    def _dense(self) -> IntegerNetwork:
        model, example_BCHW, translation = self._made_of
        untrained = Untrained(model, self.graph, example_BCHW, translation=translation)
        with TemporaryDirectory(prefix="prunit-") as folder:
            path = Path(folder) / "plan.onnx"
            untrained.write_dense(path)
            dense = _drawn(path)
            if any(not group.pinned for group in self.graph.groups):
                plan = spread_plan(self.graph)
                untrained.write(plan, path)
                self._check(dense, _drawn(path), plan)
        return dense

    def _check(self, dense: IntegerNetwork, cut: IntegerNetwork, plan: Plan) -> None:
        """`ModelError` where the shapes of a plan's network are not those that its own export has."""
        followed = resized(dense, self._sides(width_array(self.graph, plan.widths)))
        found = [(o.layer, o.code, *_shapes(followed, o.inputs + o.outputs)) for o in followed.operators]
        wanted = [(o.layer, o.code, *_shapes(cut, o.inputs + o.outputs)) for o in cut.operators]
        if found != wanted:
            wrong = [f"'{a[0]}' {a[1]}" for a, b in zip(found, wanted, strict=False) if a != b] or [
                "the last operators"
            ]
            more = f", and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
            raise ModelError(
                "the shapes of this model at other widths cannot be followed for a microcontroller or NPU: a cut model"
                f" has other ones at {', '.join(wrong[:_NAMED])}{more}; limit macs or params instead"
            )


def _drawn(path: Path) -> IntegerNetwork:
    network = Network(path)
    return integer_network(network, stand_in_spans(network), name="plan")


def _shapes(network: IntegerNetwork, names: tuple[str, ...]) -> list[tuple[int, ...]]:
    return [network.by_name[name].shape for name in names if name]
