"""`integer_twin`: the network of integers of an exported float file, calibrated on images and judged on others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunit.edge.runtimes import runtime
from prunit.errors import ConfigError
from prunit.export.quantising.choosing import METHODS, answers, error_of
from prunit.export.quantising.network import Network
from prunit.export.quantising.ranges import Batches, images_of, observed, span
from prunit.export.tflite.lowering import integer_network
from prunit.mcu.micro import tflm_file
from prunit.mcu.network import IntegerNetwork
from prunit.mcu.session import IntegerSession
from prunit.mcu.unpadding import unpadded


@dataclass(frozen=True, eq=False)
class Twin:
    """A network of integers and the bytes of its file, and how they came about.

    `network` is what the file holds, for a small arena of TensorFlow Lite Micro; `lowered` is the same with all
    paddings of the float file, for the compiler of an NPU. Their answers are the same to the bit. `method` says how
    ranges were found on so many `images`; `error` is that of the worst output, as a share of how much it varies from
    image to image (`choosing.error_of`).
    """

    network: IntegerNetwork
    lowered: IntegerNetwork
    data: bytes
    method: str
    images: int
    error: float


def integer_twin(
    source: Path,
    calibration_BCHW: Batches,
    *,
    name: str,
    shape_CHW: tuple[int, int, int],
    holdout_BCHW: Batches | None = None,
    methods: Sequence[str] = METHODS,
) -> Twin:
    """Of the ways to find ranges the one whose network is least off from the float file on images held out.

    Images are normalised as the model takes them; without `holdout_BCHW` those for calibration judge too. A range is
    that of all of them at once. So their order changes nothing, where tools that move an average of each batch's ends
    give another network for another order, and ranges that no image has.

    Raises `DataError` for images that nothing can be found in, `ModelError` for what `integer_network` refuses, and
    `MissingExtraError` without the extra `mcu`.
    """
    if not methods:
        raise ConfigError(f"cannot make '{name}' without a way to find ranges: methods is empty; take minmax or mse")
    network = Network(source)
    x_BCHW = images_of(calibration_BCHW, shape_CHW, what="calibration batch")
    held_BCHW = x_BCHW if holdout_BCHW is None else images_of(holdout_BCHW, shape_CHW, what="holdout batch")
    session = runtime("onnxruntime").open(source)
    expected = answers(session, held_BCHW)
    session.close()
    nodes = {node.name for node in network.proto.graph.node}
    seen = observed(network, network.float_tensors(nodes), x_BCHW)
    twins: list[Twin] = []
    for method in methods:
        made = integer_network(network, {tensor: span(one, method) for tensor, one in seen.items()}, name=name)
        small = unpadded(made)
        data = tflm_file(small)
        found = IntegerSession(small, data, kernels="reference").run_all(held_BCHW)
        error = max(error_of(a, b) for a, b in zip(found, expected, strict=True))
        twins.append(Twin(small, made, data, method, len(x_BCHW), error))
    return min(twins, key=lambda twin: twin.error)
