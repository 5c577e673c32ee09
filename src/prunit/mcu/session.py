"""A network of integers in the place of an engine's session: float images in, real numbers out."""

import numpy as np

from prunit.edge.session import Array
from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.litert import answers
from prunit.mcu.network import IntegerNetwork
from prunit.mcu.numbers import quantised, real


class IntegerSession:
    """Answers of a device in real numbers, by LiteRT's fast kernels; images are channels first, as exported files take.

    A device's are the reference kernels', from which those of a last layer differ by a step of rounding at some
    outputs (`litert`). `data` is the network's flatbuffer, if it is there already.
    """

    def __init__(self, network: IntegerNetwork, data: bytes | None = None) -> None:
        self._network = network
        self._data = flatbuffer_of(network) if data is None else data

    def run(self, x_BCHW: Array) -> Array:
        """The first output for a batch."""
        return self.run_all(x_BCHW)[0]

    def run_all(self, x_BCHW: Array) -> tuple[Array, ...]:
        """All outputs for a batch; images among them channels first."""
        tensors, network = self._network.by_name, self._network
        found = answers(self._data, quantised(x_BCHW, tensors[network.inputs[0]], layout="NCHW"))
        return tuple(
            np.ascontiguousarray(real(values, tensors[name], layout="NCHW"))
            for values, name in zip(found, network.outputs, strict=True)
        )

    def close(self) -> None:
        """Nothing is held."""
