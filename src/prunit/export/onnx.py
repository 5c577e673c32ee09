"""ONNX: one file with a free batch dimension, batch norm folded, checked against torch in ONNX Runtime first."""

import contextlib
import logging
import re
from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunit.cut.surgery import copied
from prunit.edge.portfolio import Artifact, Output
from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, expected_key
from prunit.errors import ConfigError, MissingExtraError, ModelError
from prunit.export.images import STORED, images
from prunit.export.outputs import outputs, shapes_of
from prunit.export.proof import Figures, Trial, allowed, prove
from prunit.export.template import Template
from prunit.export.translation import INPUT, OUTPUT, Translation, finished, translated
from prunit.files import sha256_of, staged
from prunit.graph.finite import check_finite
from prunit.graph.running import tensors_in

logger = logging.getLogger(__name__)

LIMIT_BYTES: Final = 1_800_000_000
"""A protobuf file ends at 2 GB; the rest is room for the graph."""


def export_onnx(
    model: nn.Module,
    example_BCHW: Tensor,
    folder: Path,
    *,
    name: str,
    output: str = OUTPUT,
    tolerance: float = 1e-4,
    on_translated: Callable[[Translation], None] | None = None,
    template: Template | None = None,
) -> Artifact:
    """The record of NAME.onnx and NAME.selftest.npz in `folder`; the model, its modes included, stays as it was.

    Only the shape of `example_BCHW` matters. All tensors that the model returns are outputs of the file, in whatever
    they come (see `export.outputs`); `output` is what it calls one that has no name of its own and is the only one.
    Both files are the same bytes for the same model. They appear only after the ONNX file gave torch's outputs in ONNX
    Runtime on noise and on plain images, alone and in a batch, to within `tolerance` of an image's largest value of
    that output; if it does not, ModelError says on which image and by how much.
    `on_translated` gets a copy of what torch makes of the model, which an `Untrained` need not do again. With the
    `template` of the dense model that this one was cut from, the file is made from that where nothing is in doubt: the
    same file (of sizes that code computes, more may be found out beforehand), in a fraction of the time. Where
    something is, a line of the log says what.
    """
    if not re.fullmatch(r"\w[\w.=+-]*", name, re.ASCII):
        raise ConfigError(f"cannot export as '{name}': a name has letters, digits and '._-+=' only")
    shape_CHW = image_shape(example_BCHW)
    pictures = images(shape_CHW)
    with _for_inference(model) as still:
        x_BCHW = np.stack([pictures[name] for name in STORED])
        together = Trial(STORED, x_BCHW, outputs(still, x_BCHW, output=output), stored=True)
        if not all(np.isfinite(values[0]).all() for values in together.expected.values()):
            raise ModelError(
                f"cannot export: on noise of shape {x_BCHW.shape} the model returns NaN or infinite values, which "
                "nothing can be verified against"
            )
        trials = [
            Trial([name], x_CHW[None], outputs(still, x_CHW[None], output=output), stored=name in STORED)
            for name, x_CHW in pictures.items()
        ]
        every = [*trials, together]
        shapes = shapes_of([trial.expected for trial in every])
        names = list(shapes)
        translate = partial(_serialised, still, x_BCHW, names, on_translated)
        data = translate() if template is None else b""
        # Where torch itself gives NaN there is nothing that a device could be held to.
        defined = np.stack([_finite(values) for values in together.expected.values()]).all(axis=0)
        expected = {name: values[defined] for name, values in together.expected.items()}
        with (
            staged(folder / f"{name}.onnx") as model_file,
            staged(folder / f"{name}.selftest.npz") as test_file,
        ):
            with test_file.open("wb") as file:
                stored = {expected_key(i): values for i, values in enumerate(expected.values())}
                np.savez_compressed(file, allow_pickle=False, input=x_BCHW[defined], **stored)
            proven = partial(_proven, model_file, every, tolerance, still)
            if template is None or not _carried(template, still, names, name, proven):
                proven(data or translate())
            size = model_file.stat().st_size
    found = tuple(
        Output(name=name, shape=shape, tolerance=float(allowed(expected[name], tolerance).max()))
        for name, shape in shapes.items()
    )
    return Artifact(
        path=f"{name}.onnx",
        sha256=sha256_of(folder / f"{name}.onnx"),
        bytes=size,
        input_name=INPUT,
        input_shape=shape_CHW,
        output_name=found[0].name,
        outputs=found,
        self_test=f"{name}.selftest.npz",
        self_test_sha256=sha256_of(folder / f"{name}.selftest.npz"),
        tolerance=max(output.tolerance or 0.0 for output in found),
    )


def image_shape(example_BCHW: Tensor) -> tuple[int, int, int]:
    """(C, H, W) of an example; ModelError if it is not of images."""
    if not isinstance(example_BCHW, Tensor):  # who has other inputs passes them all
        raise ModelError(
            f"cannot export on an example that is a {type(example_BCHW).__name__}: an exported model takes one tensor "
            "of images (B, C, H, W); wrap it in a module that holds the other inputs"
        )
    if example_BCHW.ndim != 4 or 0 in example_BCHW.shape:
        raise ModelError(
            f"cannot export on an example of shape {tuple(example_BCHW.shape)}: it must be images (B, C, H, W)"
        )
    _, channels, height, width = example_BCHW.shape
    return channels, height, width


@contextlib.contextmanager
def _for_inference(model: nn.Module) -> Generator[nn.Module, None, None]:
    """The model in eval mode and on the CPU: itself, with each module's mode restored, or a copy if it is elsewhere.

    Not on a GPU, because its convolutions round to TF32 and no verification against them would be sharp.
    """
    tensors = check_exportable(model)
    if any(tensor.device.type != "cpu" for tensor in tensors):
        yield copied(model).cpu().eval()
        return
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, mode in modes:
            module.training = mode


def check_exportable(model: nn.Module) -> list[Tensor]:
    """The model's tensors, after the check that one ONNX file can hold them."""
    check_finite(model)
    tensors = list(chain(model.parameters(), model.buffers()))
    odd = {str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point()} - {"float32"}
    if odd:
        raise ModelError(f"cannot export weights of type {', '.join(sorted(odd))}: pass model.float()")
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > LIMIT_BYTES:
        raise ModelError(f"cannot export {size:,} bytes of weights: one ONNX file holds at most {LIMIT_BYTES:,}")
    if any(tensor.is_meta for tensor in tensors):
        raise ModelError("cannot export a model on the meta device: it has shapes but no weights")
    return tensors


def _finite(values: Array) -> npt.NDArray[np.bool_]:
    """Which images' values are all finite."""
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))


def _in_double(model: nn.Module, x_BCHW: Array) -> tuple[Figures, ...] | None:
    """The model's outputs as they would be without rounding to float32, None if they cannot be had."""
    try:
        with torch.no_grad():
            found = copied(model).double()(torch.from_numpy(x_BCHW).double())
    except Exception:  # a model may be bound to float32, or not let itself be copied
        return None
    return tuple(tensor.numpy() for tensor in tensors_in(found))


def _proven(file: Path, trials: Sequence[Trial], tolerance: float, model: nn.Module, data: bytes) -> None:
    """Write the file; raises `ModelError` unless it gives the model's outputs."""
    file.write_bytes(data)
    session = runtime("onnxruntime").open(file)
    try:
        prove(session, trials, tolerance, partial(_in_double, model))
    finally:
        session.close()


def _carried(
    template: Template, model: nn.Module, names: Sequence[str], name: str, proven: Callable[[bytes], None]
) -> bool:
    """Whether the file was made from the template, and proven; if not, the log says why."""
    try:
        translation = template.carried_to(model)
        if list(translation.outputs) != list(names):
            raise ModelError(f"its outputs are {', '.join(names)}, the dense model's {', '.join(translation.outputs)}")
        proven(finished(translation))
    except MissingExtraError:
        raise
    except Exception as error:  # an engine that a file does not please raises what it likes
        reason = " ".join(str(error).split())[:300]
        logger.info("'%s' is translated for itself, not made from the dense model's translation: %s", name, reason)
        return False
    return True


def _serialised(
    model: nn.Module, x_BCHW: Array, names: Sequence[str], on_translated: Callable[[Translation], None] | None
) -> bytes:
    translation = translated(model, torch.from_numpy(x_BCHW), outputs=names)
    if on_translated is not None:
        on_translated(translation)
    return finished(translation.copy())  # a graph numbers its new nodes from the first one that it ever had
