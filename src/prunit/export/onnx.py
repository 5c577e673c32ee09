"""ONNX: one file with a free batch dimension, batch norm folded, checked against torch in ONNX Runtime first."""

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Generator, Iterable
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
from prunit.files import sha256_of, staged
from prunit.graph.finite import check_finite

OPSET: Final = 18
"""Fixed, so that the same model gives the same file under a newer torch; every engine of note reads it."""
INPUT: Final = "input"
OUTPUT: Final = "logits"
LIMIT_BYTES: Final = 1_800_000_000
"""A protobuf file ends at 2 GB; the rest is room for the graph."""
_TESTED: Final = 3
"""Images in the self-test."""


def export_onnx(
    model: nn.Module, example_BCHW: Tensor, folder: Path, *, name: str, tolerance: float = 1e-4
) -> Artifact:
    """The record of NAME.onnx and NAME.selftest.npz in `folder`; the model, its modes included, stays as it was.

    Only the shape of `example_BCHW` matters. Both files are the same bytes for the same model. They appear only after
    the ONNX file gave torch's outputs in ONNX Runtime on seeded input, at batch 1 and 3, to within `tolerance` of the
    largest output; if it does not, ModelError says by how much.
    """
    if not re.fullmatch(r"\w[\w.=+-]*", name, re.ASCII):
        raise ConfigError(f"cannot export as '{name}': a name has letters, digits and '._-+=' only")
    shape_CHW = _image_shape(example_BCHW)
    x_BCHW = seeded_input(_TESTED, shape_CHW)
    with _for_inference(model) as still:
        expected = _outputs(still, x_BCHW)
        expected_of_1 = _outputs(still, x_BCHW[:1])
        data = _serialised(still, x_BCHW)
    # Below a millionth of a unit, differences are rounding, whatever the scale of the output.
    allowed = max(tolerance * float(np.abs(expected).max()), 1e-6)
    with (
        staged(folder / f"{name}.onnx") as model_file,
        staged(folder / f"{name}.selftest.npz") as test_file,
    ):
        model_file.write_bytes(data)
        with test_file.open("wb") as file:
            np.savez_compressed(file, input=x_BCHW, expected=expected)
        _check_outputs(model_file, x_BCHW, (expected_of_1, expected), allowed)
    return Artifact(
        path=f"{name}.onnx",
        sha256=sha256_of(folder / f"{name}.onnx"),
        bytes=len(data),
        input_name=INPUT,
        input_shape=shape_CHW,
        output_name=OUTPUT,
        self_test=f"{name}.selftest.npz",
        self_test_sha256=sha256_of(folder / f"{name}.selftest.npz"),
        tolerance=allowed,
    )


def seeded_input(n: int, shape_CHW: tuple[int, int, int], *, seed: int = 0) -> Array:
    """`n` noise images between -2 and 2, about as spread as normalised pixels, always the same.

    They are multiples of 1/32, which zlib packs into a quarter of the bytes of full float32 noise.
    """
    steps = np.random.default_rng(seed).integers(-64, 65, (n, *shape_CHW))
    return (steps / 32).astype(np.float32)


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
        yield copy.deepcopy(model).cpu().eval()
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
    if not found.isfinite().all():
        raise ModelError(f"{asked} returns NaN or infinite values, which nothing can be verified against")
    return found.numpy()


def _serialised(model: nn.Module, x_BCHW: Array) -> bytes:
    """The bytes of the ONNX file, without what names this machine's folders, after the ONNX checker passed them."""
    try:
        import onnx.checker
        import onnxscript  # noqa: F401  # pyright: ignore[reportUnusedImport]  # torch imports it midway
    except ImportError as error:
        raise MissingExtraError("ONNX export", str(error.name), "train") from error
    try:
        with _quiet(), torch.no_grad():
            proto = _proto(model, torch.from_numpy(x_BCHW))
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # torch.export, the translator and the checker share no base class
        raise ModelError(f"cannot export {type(model).__name__} to ONNX: {_gist(error)}") from error
    _strip(proto)
    return proto.SerializeToString(deterministic=True)


def _proto(model: nn.Module, x_BCHW: Tensor) -> Any:
    """The onnx.ModelProto of the model, optimised by the exporter, which folds batch norm into convolutions.

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
    )
    assert exported is not None  # with dynamo=True it is an ONNXProgram
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


def _check_outputs(file: Path, x_BCHW: Array, expected: tuple[Array, ...], allowed: float) -> None:
    """Raises ModelError where the file's outputs in ONNX Runtime are further than `allowed` from `expected`."""
    session = runtime("onnxruntime").open(file)
    try:
        for wanted in expected:
            batch = len(wanted)
            found = session.run(x_BCHW[:batch])
            if found.shape != wanted.shape:
                raise ModelError(
                    f"the exported file disagrees with the model: at batch {batch} '{OUTPUT}' has shape "
                    f"{found.shape} instead of {wanted.shape}; nothing was written"
                )
            difference = np.abs(found.astype(np.float64) - wanted)
            worst = tuple(int(i) for i in np.unravel_index(np.argmax(difference), difference.shape))
            if not difference[worst] <= allowed:  # argmax finds a NaN first, and a NaN is no pass
                raise ModelError(
                    f"the exported file disagrees with the model: at batch {batch} '{OUTPUT}'{list(worst)} is "
                    f"{found[worst]:.6g} instead of {wanted[worst]:.6g}, off by {difference[worst]:.3g} where "
                    f"{allowed:.3g} is allowed; nothing was written"
                )
    finally:
        session.close()


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
