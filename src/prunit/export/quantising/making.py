"""`quantised`: a variant's int8 twin, as a file with a self-test."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from prunit.edge.portfolio import Artifact, Output
from prunit.edge.precision import Lowered
from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, expected_key, stored_test
from prunit.errors import ConfigError, ModelError
from prunit.export.quantising.choosing import METHODS, Tried, answers, best, float_sets, measured, timed
from prunit.export.quantising.network import Network
from prunit.export.quantising.ranges import Batches, images_of, observed
from prunit.export.quantising.tolerances import int8_tolerance
from prunit.files import inside, sha256_of, staged


@dataclass(frozen=True)
class QuantSettings:
    """How an int8 file is made.

    `methods` of finding ranges are compared (`ranges.span`). `float_layers` leaves just these layers float, by name,
    instead of what is found best. With `timed=False` no clock decides: the same images give the same file. Candidates
    take turns for `seconds` each. `enough` and `worse` say which are not clearly worse (`choosing.best`): up to errors
    of 0.03 no test showed a loss of accuracy. `reduced` makes weights of 7 bits (see `quantised`). `seed`, with which
    the images were drawn, is written down.
    """

    methods: tuple[str, ...] = METHODS
    float_layers: tuple[str, ...] | None = None
    timed: bool = True
    seconds: float = 0.5
    enough: float = 0.03
    worse: float = 1.25
    reduced: bool = False
    seed: int = 0


DEFAULTS: Final = QuantSettings()


def quantised(
    artifact: Artifact,
    folder: Path,
    calibration_BCHW: Batches,
    *,
    name: str,
    settings: QuantSettings = DEFAULTS,
    holdout_BCHW: Batches | None = None,
    on_tried: Callable[[Tried], None] | None = None,
) -> tuple[Artifact, Lowered]:
    """The record of NAME.onnx and NAME.selftest.npz in `folder`, the int8 twin of `artifact`, and how it came about.

    Weights become int8, with a scale for each channel; what flows between layers becomes uint8 within the range that it
    had on the images for calibration. Both kinds of images are training images, normalised as the model takes them;
    candidates are judged on those held out, or on the others where there are none. Inputs and outputs keep their names
    and the number of images stays free; linear layers answer in float.

    Chosen is first the way to find ranges whose error is least, then which layers stay float: of candidates that are
    not clearly worse than the most accurate the fastest on this machine. So accuracy comes first. What it costs in the
    task's own metric only test images say; who calls this compares with the twin there, and keeps the file or not.

    x86 processors without VNNI add pairs of products in 16 bits, where large ones are cut off, and answer otherwise
    than this machine did. ONNX Runtime advises weights of 7 bits there: `reduced=True`; no pair is too large then.
    Such a device finds out by the self-test, as far as the stored images show it.

    `on_tried` gets each candidate. DataError for images that nothing can be found in; ModelError where the model has no
    layers with weights, or computes NaN.
    """
    if not re.fullmatch(r"\w[\w.=+-]*", name, re.ASCII):
        raise ConfigError(f"cannot quantise as '{name}': a name has letters, digits and '._-+=' only")
    source = inside(folder, artifact.path)
    if source == folder / f"{name}.onnx":
        raise ConfigError(f"cannot quantise '{name}' in its own place: the float file would be gone; name it otherwise")
    network = Network(source)
    if not network.layers:
        raise ModelError(
            f"cannot quantise '{artifact.path}': it has no convolution or linear layer with constant weights, so there "
            "is nothing that int8 could make smaller or faster"
        )
    x_BCHW = images_of(calibration_BCHW, artifact.input_shape, what="calibration batch")
    held_BCHW = x_BCHW
    if holdout_BCHW is not None:
        held_BCHW = images_of(holdout_BCHW, artifact.input_shape, what="holdout batch")
    chosen = _chosen(network, source, artifact, x_BCHW, held_BCHW, settings, on_tried)
    made = _written(chosen.data, artifact, folder, name)
    return made, Lowered(
        twin=Path(artifact.path).stem,
        method=chosen.method,
        images=len(x_BCHW),
        seed=settings.seed,
        library=f"onnxruntime {runtime('onnxruntime').version()}",
        float_layers=chosen.float_layers,
    )


def _chosen(
    network: Network,
    source: Path,
    artifact: Artifact,
    x_BCHW: Array,
    held_BCHW: Array,
    settings: QuantSettings,
    on_tried: Callable[[Tried], None] | None,
) -> Tried:
    """Of the candidates the best: first the way to find ranges, with every layer int8, then which layers stay float."""
    sets = float_sets(network.layers, settings.float_layers)
    if not sets or len(sets[0]) == len(network.layers):
        raise ModelError(f"cannot quantise '{artifact.path}': all of its {len(network.layers)} layers stay float")
    session = runtime("onnxruntime").open(source)
    expected = answers(session, held_BCHW)
    session.close()
    tensors = network.float_tensors(network.integer_nodes(network.layers))
    seen = observed(network, tensors, x_BCHW)
    tried = [
        measured(network, seen, method, sets[0], held_BCHW, expected, reduced=settings.reduced)
        for method in settings.methods
    ]
    method = min(tried, key=lambda one: one.error).method
    candidates = [one for one in tried if one.method == method]
    candidates += [
        measured(network, seen, method, stay, held_BCHW, expected, reduced=settings.reduced) for stay in sets[1:]
    ]
    if settings.timed and len(candidates) > 1:
        candidates = timed(candidates, artifact.input_shape, seconds=settings.seconds)
    for one in [*(one for one in tried if one.method != method), *candidates]:
        if on_tried:
            on_tried(one)
    return best(candidates, enough=settings.enough, worse=settings.worse)


def _written(data: bytes, artifact: Artifact, folder: Path, name: str) -> Artifact:
    x_BCHW, _ = stored_test(inside(folder, artifact.self_test), artifact)
    with staged(folder / f"{name}.onnx") as model_file, staged(folder / f"{name}.selftest.npz") as test_file:
        model_file.write_bytes(data)
        session = runtime("onnxruntime").open(model_file)
        expected = answers(session, x_BCHW, batch=len(x_BCHW))
        session.close()
        with test_file.open("wb") as file:
            outputs = {expected_key(i): values for i, values in enumerate(expected)}
            np.savez_compressed(file, allow_pickle=False, input=x_BCHW, **outputs)
    outputs = tuple(
        Output(name=output.name, shape=output.shape, tolerance=int8_tolerance(values))
        for output, values in zip(artifact.outputs, expected, strict=True)
    )
    return artifact.model_copy(
        update={
            "path": f"{name}.onnx",
            "sha256": sha256_of(folder / f"{name}.onnx"),
            "bytes": len(data),
            "outputs": outputs,
            "self_test": f"{name}.selftest.npz",
            "self_test_sha256": sha256_of(folder / f"{name}.selftest.npz"),
            "tolerance": max(output.tolerance or 0.0 for output in outputs),
        }
    )
