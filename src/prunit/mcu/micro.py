"""The file of a network as a microcontroller gets it: in as small an arena as may be, the same answers to the bit."""

from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.network import IntegerNetwork
from prunit.mcu.parts import Part
from prunit.mcu.placing import offsets_of
from prunit.mcu.unpadding import unpadded


def tflm_file(network: IntegerNetwork) -> bytes:
    """The flatbuffer of a network, best an `unpadded` one, with the places of its tensors in an arena.

    Not for Vela: it pads for nothing, and copies such places from the file that it is given to the one that it makes,
    where they belong to tensors that are not there any more (Vela 5.2.0).
    """
    return flatbuffer_of(network, offsets=offsets_of(network))


def file_for(network: IntegerNetwork, on: Part) -> bytes:
    """The flatbuffer of a network for a part: what TensorFlow Lite Micro runs, or what Vela compiles."""
    return tflm_file(unpadded(network)) if on.kind == "tflm" else flatbuffer_of(network)
