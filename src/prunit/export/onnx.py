"""ONNX: one file with a free batch dimension, batch norm folded, checked against torch in ONNX Runtime first."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Generator, Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from prunit.edge.portfolio import Artifact
from prunit.edge.runtimes import runtime
from prunit.edge.session import Array
from prunit.errors import ConfigError, MissingExtraError, ModelError
from prunit.export.images import STORED, images
from prunit.export.passes import simplify
from prunit.export.proof import Figures, Trial, allowed, prove
from prunit.files import sha256_of, staged
from prunit.graph.computed import computed_weights, given
from prunit.graph.finite import check_finite
from prunit.surgery import copied

OPSET: Final = 18
"""Fixed, so that the same model gives the same file under a newer torch; every engine of note reads it."""
INPUT: Final = "input"
OUTPUT: Final = "logits"
LIMIT_BYTES: Final = 1_800_000_000
"""A protobuf file ends at 2 GB; the rest is room for the graph."""


def export_onnx(
    model: nn.Module, example_BCHW: Tensor, folder: Path, *, name: str, tolerance: float = 1e-4
) -> Artifact:
    """The record of NAME.onnx and NAME.selftest.npz in `folder`; the model, its modes included, stays as it was.

    Only the shape of `example_BCHW` matters. Both files are the same bytes for the same model. They appear only after
    the ONNX file gave torch's outputs in ONNX Runtime on noise and on plain images, alone and in a batch, to within
    `tolerance` of an image's largest output; if it does not, ModelError says on which image and by how much.
    """
    if not re.fullmatch(r"\w[\w.=+-]*", name, re.ASCII):
        raise ConfigError(f"cannot export as '{name}': a name has letters, digits and '._-+=' only")
    shape_CHW = _image_shape(example_BCHW)
    pictures = images(shape_CHW)
    with _for_inference(model) as still:
        x_BCHW = np.stack([pictures[name] for name in STORED])
        together = Trial(STORED, x_BCHW, _outputs(still, x_BCHW), stored=True)
        if not np.isfinite(together.expected[0]).all():
            raise ModelError(
                f"cannot export: on noise of shape {x_BCHW.shape} the model returns NaN or infinite values, which "
                "nothing can be verified against"
            )
        trials = [
            Trial([name], x_CHW[None], _outputs(still, x_CHW[None]), stored=name in STORED)
            for name, x_CHW in pictures.items()
        ]
        data = _serialised(still, x_BCHW)
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
                prove(session, [*trials, together], tolerance, partial(_in_double, still), output=OUTPUT)
            finally:
                session.close()
    return Artifact(
        path=f"{name}.onnx",
        sha256=sha256_of(folder / f"{name}.onnx"),
        bytes=len(data),
        input_name=INPUT,
        input_shape=shape_CHW,
        output_name=OUTPUT,
        self_test=f"{name}.selftest.npz",
        self_test_sha256=sha256_of(folder / f"{name}.selftest.npz"),
        tolerance=float(allowed(expected, tolerance).max()),
    )


def _image_shape(example_BCHW: Tensor) -> tuple[int, int, int]:
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
    if any(tensor.device.type != "cpu" for tensor in tensors):
        yield copied(model).cpu().eval()
        return
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, mode in modes:
            module.training = mode


def _outputs(model: nn.Module, x_BCHW: Array) -> Array:
    """The model's output as torch computes it, after the check that it is one that can be exported."""
    asked = f"cannot export: on input of shape {x_BCHW.shape} the model"
    try:
        with torch.no_grad():
            found = model(torch.from_numpy(x_BCHW))
    except Exception as error:  # whatever the user's forward raises
        raise ModelError(f"{asked} failed with {type(error).__name__}: {_gist(error)}") from error
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


def _serialised(model: nn.Module, x_BCHW: Array) -> bytes:
    """The bytes of the ONNX file, without what names this machine's folders, after the ONNX checker passed them."""
    try:
        import onnx.checker
        import onnxscript  # noqa: F401  # pyright: ignore[reportUnusedImport]  # torch imports it midway
    except ImportError as error:
        raise MissingExtraError("ONNX export", str(error.name), "train") from error
    try:
        # Constants: torch.export refuses hooks that set a weight, and an engine need not compute it anew each time.
        constants = given((item, item.value()) for item in computed_weights(model))
        with _quiet(), torch.no_grad(), constants:
            proto = _proto(model, torch.from_numpy(x_BCHW))
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # torch.export, the translator and the checker share no base class
        raise ModelError(f"cannot export {type(model).__name__} to ONNX: {_gist(error)}") from error
    _strip(proto)
    return proto.SerializeToString(deterministic=True)


def _proto(model: nn.Module, x_BCHW: Tensor) -> Any:
    """The onnx.ModelProto of the model, simplified by the rewrites that are trusted, batch norm folded.

    The program is captured here and not by torch.onnx, which on failure tries again in other, slower ways.
    """
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(model, (x_BCHW,), dynamic_shapes=shapes, strict=False)
    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=OPSET,
        dynamic_shapes=shapes,  # here they only carry the name of the dimension into the file
        external_data=False,
        verbose=False,
        optimize=False,  # the exporter's own choice of rewrites drops small numbers
    )
    assert exported is not None  # with dynamo=True it is an ONNXProgram
    simplify(exported.model)
    return exported.model_proto


def _strip(proto: Any) -> None:
    """Removes stack traces and other notes of the exporter: they hold folders of this machine and weigh more than
    the weights of a tiny network. Intermediate shapes go too, since engines infer them.
    """
    del proto.metadata_props[:]
    proto.doc_string = ""
    for function in proto.functions:
        del function.metadata_props[:]
        _strip_nodes(function.node)
    _strip_graph(proto.graph)


def _strip_graph(graph: Any) -> None:
    del graph.metadata_props[:]
    del graph.value_info[:]
    graph.doc_string = ""
    for value in chain(graph.input, graph.output, graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[Any]) -> None:
    for node in nodes:
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            for graph in chain(attribute.graphs, [attribute.g] if attribute.HasField("g") else []):
                _strip_graph(graph)


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """Keeps the exporter's own chatter off the screen; what it means for the user arrives as an exception."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            # torch 2.10 to 2.13 copy a class of theirs that they deprecated themselves.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _gist(error: Exception) -> str:
    """What an error of torch's exporter says, in one line of at most 300 characters, without its advice.

    The translator puts the cause under the heading 'Exception summary'.
    """
    text = str(error)
    if "specialized it to be a constant" in text:
        return "its forward works for one batch size only; use x.shape[0] or flatten(1) in place of a fixed number"
    text = text.partition("## Exception summary")[2] or text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
