"""Answers of a network of integers on this machine, by LiteRT: for thousands of images, where a simulation is too slow.

TensorFlow Lite Micro answers as the reference kernels do, bit for bit, but for FULLY_CONNECTED (56 of 24,000 outputs; a
convolution of one position in its place differs nowhere). LiteRT's own kernels without delegates ("optimised") do where
outputs are 0 or more; where they have both signs they round in another way, which adds up from layer to layer to a step
or two (`findings/steps-that-add-up.sh`). XNNPACK's, which LiteRT takes by default, differ everywhere.

Milliseconds an image, one thread of an x86 server, ResNet-20 at 32x32: 13 by the reference kernels, 1.2 by the
optimised ones, 0.3 by XNNPACK's. 10,000 images are a matter of 12 s.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from prunit.edge.session import engine
from prunit.errors import ConfigError, DataError, ModelError, harmless

Kernels = Literal["optimised", "reference", "xnnpack"]

_RESOLVERS: Final[Mapping[Kernels, str]] = {
    "optimised": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
    "xnnpack": "BUILTIN",
}


def answers(
    data: bytes, x_int8_NHWC: npt.NDArray[np.int8], *, kernels: Kernels = "optimised", threads: int = 1
) -> tuple[npt.NDArray[Any], ...]:
    """The outputs for N images, one image at a time as on a device; each network output as an array of N.

    A batch gives the same answers and no speed. Raises `DataError` for images of another shape or type than the network
    takes, `ModelError` for a network that LiteRT refuses, `MissingExtraError` without the extra `mcu`.
    """
    if threads < 1:
        raise ConfigError(f"cannot compute with {threads} threads: at least 1 is needed")
    litert: Any = engine("ai_edge_litert.interpreter", extra="mcu")
    resolver = getattr(litert.OpResolverType, _RESOLVERS[kernels])
    try:
        opened = litert.Interpreter(model_content=data, experimental_op_resolver_type=resolver, num_threads=threads)
        opened.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"LiteRT refuses the network: {harmless(str(error).strip().splitlines()[0])}") from None
    taken = opened.get_input_details()
    if len(taken) != 1:
        raise ModelError(f"a network of one input is needed; this one has {len(taken)}")
    shape, kind = tuple(int(size) for size in taken[0]["shape"]), np.dtype(taken[0]["dtype"])
    if (1, *x_int8_NHWC.shape[1:]) != shape or x_int8_NHWC.dtype != kind:
        raise DataError(f"the network takes {kind} {shape}, got {x_int8_NHWC.dtype} {x_int8_NHWC.shape}")
    places = [(int(each["index"]), tuple(each["shape"]), each["dtype"]) for each in opened.get_output_details()]
    found = [np.empty((len(x_int8_NHWC), *size[1:]), kind) for _, size, kind in places]
    for index, image in enumerate(x_int8_NHWC):
        opened.set_tensor(taken[0]["index"], image[None])
        opened.invoke()
        for output, (place, _, _) in zip(found, places, strict=True):
            output[index] = opened.get_tensor(place)[0]
    return tuple(found)
