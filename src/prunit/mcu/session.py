"""A network of integers in the place of an engine's session: float images in, real numbers out."""

import numpy as np

from prunit.edge.session import Array
from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.litert import Kernels, answers
from prunit.mcu.network import IntegerNetwork
from prunit.mcu.numbers import quantised, real


class IntegerSession:
    """Answers of a network of integers in real numbers; images are channels first, as exported files take.

    A device's answers are those of LiteRT's `reference` kernels. The `optimised` ones round in another way where
    outputs have both signs, by a step or two, and are about ten times as fast. `data` is the network's flatbuffer, if
    it is there already.
    """

    def __init__(
        self, network: IntegerNetwork, data: bytes | None = None, *, kernels: Kernels = "optimised", threads: int = 1
    ) -> None:
        self._network = network
        self._data = flatbuffer_of(network) if data is None else data
        self._kernels: Kernels = kernels
        self._threads = threads

    def run(self, x_BCHW: Array) -> Array:
        """The first output for a batch."""
        return self.run_all(x_BCHW)[0]

    def run_all(self, x_BCHW: Array) -> tuple[Array, ...]:
        """All outputs for a batch; images among them channels first."""
        tensors, network = self._network.by_name, self._network
        steps = quantised(x_BCHW, tensors[network.inputs[0]], layout="NCHW")
        found = answers(self._data, steps, kernels=self._kernels, threads=self._threads)
        return tuple(
            np.ascontiguousarray(real(values, tensors[name], layout="NCHW"))
            for values, name in zip(found, network.outputs, strict=True)
        )

    def close(self) -> None:
        """Nothing is held."""
