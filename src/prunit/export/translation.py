"""The two halves of an ONNX export: torch's program translated, with every layer's tensors as they are in the model;
then the rewrites, after which some are folded into others. The first half takes nine tenths of the time.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor, nn

from prunit.errors import MissingExtraError, ModelError
from prunit.export.passes import simplify
from prunit.graph.computed import Computed, computed_weights, given
from prunit.graph.running import tensors_in

OPSET: Final = 18
"""Fixed, so that the same model gives the same file under a newer torch; every engine of note reads it."""
INPUT: Final = "input"
OUTPUT: Final = "logits"


@dataclass(frozen=True, eq=False)
class Translation:
    """A model as ONNX, before any rewrite: an `onnx_ir.Model` whose initializers go by the names of the tensors.

    What a layer computes has a name too: `name_of_value`. `of` is the model's class, for messages; `outputs` are what
    its outputs are to be called.
    """

    network: Any
    of: str
    outputs: tuple[str, ...]

    def copy(self) -> "Translation":
        """Another that may be rewritten; the tensors are the same ones."""
        network = self.network
        if hasattr(network, "clone"):
            return replace(self, network=network.clone())
        import onnx_ir

        return replace(self, network=onnx_ir.from_proto(onnx_ir.to_proto(network)))  # onnx_ir before 0.1.14


def translated(model: nn.Module, x_BCHW: Tensor, *, outputs: Sequence[str] = (OUTPUT,)) -> Translation:
    """The model, in the mode that it is in, as torch translates it; the number of images stays free.

    `outputs` are the names of the tensors that it returns, in the order of `tensors_in`.

    The program is captured here and not by torch.onnx, which on failure tries again in other, slower ways.
    """
    _check_installed()
    if len(x_BCHW) == 1:  # of one, torch takes the number for a constant
        x_BCHW = torch.cat([x_BCHW, x_BCHW])
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    try:
        # Constants: torch.export refuses hooks that set a weight, and an engine need not compute it anew each time.
        constants = given((item, item.value()) for item in computed_weights(model))
        with quiet(), torch.no_grad(), constants, _returning_a_tuple(model):
            program = torch.export.export(model, (x_BCHW,), dynamic_shapes=shapes, strict=False)
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=list(outputs),
                opset_version=OPSET,
                dynamic_shapes=shapes,  # here they only carry the name of the dimension into the file
                external_data=False,
                verbose=False,
                optimize=False,  # the exporter's own choice of rewrites drops small numbers
            )
    except Exception as error:  # torch.export and the translator share no base class
        raise _refused(type(model).__name__, error) from error
    assert exported is not None  # with dynamo=True it is an ONNXProgram
    return Translation(exported.model, type(model).__name__, tuple(outputs))


@contextlib.contextmanager
def _returning_a_tuple(model: nn.Module) -> Generator[None, None, None]:
    """Meanwhile the model returns a tuple of its tensors: torch.export knows few of the containers that models use."""

    def flat(module: nn.Module, args: Any, found: Any) -> Any:
        return found if isinstance(found, Tensor) else tuple(tensors_in(found))

    handle = model.register_forward_hook(flat)
    try:
        yield
    finally:
        handle.remove()


def name_of_value(item: Computed) -> str:
    """The initializer that holds what a layer computes."""
    return item.prefix + ("weight" if item.parts is not None else item.name)


def finished(translation: Translation, *, check: bool = True) -> bytes:
    """The bytes of the ONNX file: rewritten in place by the rules that are trusted, batch norm folded; passed by the
    ONNX checker, unless it is tried out anyway; without what names this machine's folders.
    """
    import onnx.checker
    import onnx_ir

    try:
        with quiet(), torch.no_grad():
            simplify(translation.network)
            _call_outputs(translation.network, translation.outputs)
            proto = onnx_ir.to_proto(translation.network)
        if check:
            onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # the passes and the checker share no base class
        raise _refused(translation.of, error) from error
    strip(proto)
    return proto.SerializeToString(deterministic=True)


def _call_outputs(network: Any, names: Sequence[str]) -> None:
    """Give the outputs their names again: of a tensor that a model returns twice, the rewrites keep one."""
    values = list(network.graph.outputs)
    if [value.name for value in values] == list(names):
        return
    for number, value in enumerate(values):  # first out of each other's way
        value.name = f"__output_{number}"
    for value, name in zip(values, names, strict=True):
        value.name = name


def _check_installed() -> None:
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import onnxscript  # noqa: F401  # pyright: ignore[reportUnusedImport]  # torch imports it midway
    except ImportError as error:
        raise MissingExtraError("ONNX export", str(error.name), "train") from error


def _refused(name: str, error: Exception) -> ModelError:
    return ModelError(f"cannot export {name} to ONNX: {gist(error)}")


def strip(proto: Any) -> None:
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
def quiet() -> Generator[None, None, None]:
    """Keeps the exporter's own chatter off the screen; what it means for the user arrives as an exception."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            # torch 2.10 to 2.13 copy a class of theirs that they deprecated themselves.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def gist(error: Exception) -> str:
    """What an error of torch's exporter says, in one line of at most 300 characters, without its advice.

    The translator puts the cause under the heading 'Exception summary'.
    """
    text = str(error)
    if "specialized it to be a constant" in text:
        return "its forward works for one batch size only; use x.shape[0] or flatten(1) in place of a fixed number"
    text = text.partition("## Exception summary")[2] or text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
