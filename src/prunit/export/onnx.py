"""ONNX: one file with a free batch dimension, batch norm folded, checked against torch in ONNX Runtime first."""

import contextlib
import re
from collections.abc import Callable, Generator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from prunit.cut.surgery import copied
from prunit.edge.portfolio import Artifact
from prunit.edge.runtimes import runtime
from prunit.edge.session import Array
from prunit.errors import ConfigError, ModelError
from prunit.export.images import STORED, images
from prunit.export.proof import Figures, Trial, allowed, prove
from prunit.export.translation import INPUT, OUTPUT, Translation, finished, gist, translated
from prunit.files import sha256_of, staged
from prunit.graph.finite import check_finite

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
) -> Artifact:
    """The record of NAME.onnx and NAME.selftest.npz in `folder`; the model, its modes included, stays as it was.

    Only the shape of `example_BCHW` matters; `output` is what the file calls the model's output. Both files are the
    same bytes for the same model. They appear only after
    the ONNX file gave torch's outputs in ONNX Runtime on noise and on plain images, alone and in a batch, to within
    `tolerance` of an image's largest output; if it does not, ModelError says on which image and by how much.
    `on_translated` gets a copy of what torch makes of the model, which an `Untrained` need not do again.
    """
    if not re.fullmatch(r"\w[\w.=+-]*", name, re.ASCII):
        raise ConfigError(f"cannot export as '{name}': a name has letters, digits and '._-+=' only")
    shape_CHW = image_shape(example_BCHW)
    pictures = images(shape_CHW)
    with _for_inference(model) as still:
        x_BCHW = np.stack([pictures[name] for name in STORED])
        together = Trial(STORED, x_BCHW, outputs(still, x_BCHW), stored=True)
        if not np.isfinite(together.expected[0]).all():
            raise ModelError(
                f"cannot export: on noise of shape {x_BCHW.shape} the model returns NaN or infinite values, which "
                "nothing can be verified against"
            )
        trials = [
            Trial([name], x_CHW[None], outputs(still, x_CHW[None]), stored=name in STORED)
            for name, x_CHW in pictures.items()
        ]
        data = _serialised(still, x_BCHW, output, on_translated)
        # Where torch itself gives NaN there is nothing that a device could be held to.
        defined = np.isfinite(together.expected).reshape(len(x_BCHW), -1).all(axis=1)
        expected = together.expected[defined]
        with (
            staged(folder / f"{name}.onnx") as model_file,
            staged(folder / f"{name}.selftest.npz") as test_file,
        ):
            model_file.write_bytes(data)
            with test_file.open("wb") as file:
                np.savez_compressed(file, input=x_BCHW[defined], expected=expected)
            session = runtime("onnxruntime").open(model_file)
            try:
                prove(session, [*trials, together], tolerance, partial(_in_double, still), output=output)
            finally:
                session.close()
    return Artifact(
        path=f"{name}.onnx",
        sha256=sha256_of(folder / f"{name}.onnx"),
        bytes=len(data),
        input_name=INPUT,
        input_shape=shape_CHW,
        output_name=output,
        self_test=f"{name}.selftest.npz",
        self_test_sha256=sha256_of(folder / f"{name}.selftest.npz"),
        tolerance=float(allowed(expected, tolerance).max()),
    )


def image_shape(example_BCHW: Tensor) -> tuple[int, int, int]:
    """(C, H, W) of an example; ModelError if it is not of images."""
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


def outputs(model: nn.Module, x_BCHW: Array) -> Array:
    """The model's output as torch computes it, after the check that it is one that can be exported."""
    asked = f"cannot export: on input of shape {x_BCHW.shape} the model"
    try:
        with torch.no_grad():
            found = model(torch.from_numpy(x_BCHW))
    except Exception as error:  # whatever the user's forward raises
        raise ModelError(f"{asked} failed with {type(error).__name__}: {gist(error)}") from error
    if not isinstance(found, Tensor):
        raise ModelError(
            f"{asked} returns a {type(found).__name__}, and only one tensor can be exported: "
            "wrap it in a module that returns the logits"
        )
    if found.ndim == 0 or found.shape[0] != len(x_BCHW):
        raise ModelError(f"{asked} returns shape {tuple(found.shape)}, whose first dimension is not the batch")
    if found.dtype != torch.float32:
        raise ModelError(f"{asked} returns {found.dtype}, and only torch.float32 can be exported")
    return found.numpy()


def _in_double(model: nn.Module, x_BCHW: Array) -> Figures | None:
    """The model's output as it would be without rounding to float32, None if it cannot be had."""
    try:
        with torch.no_grad():
            found = copied(model).double()(torch.from_numpy(x_BCHW).double())
    except Exception:  # a model may be bound to float32, or not let itself be copied
        return None
    return found.numpy() if isinstance(found, Tensor) else None


def _serialised(
    model: nn.Module, x_BCHW: Array, output: str, on_translated: Callable[[Translation], None] | None
) -> bytes:
    translation = translated(model, torch.from_numpy(x_BCHW), output=output)
    if on_translated is not None:
        on_translated(translation.copy())
    return finished(translation)
