"""The dense model's translation as a template: files of its trained variants, without torch translating each.

Translating takes most of an export's time. Two models of the same code differ in the shapes of their tensors and in the
numbers that follow those. Which numbers these are a second translation says, of the model at other widths, once
(`refill.counts`). A variant gets a file from the template where nothing is in doubt: it runs the same operators with
the same numbers, its tensors were cut where those of the second model were, and every number that follows widths has
one value by all explanations. Else `ModelError` says what is in doubt, and the variant is translated itself. Why it can
be trusted: docs/adr/045-variants-from-one-translation.md.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from prunit.cut.surgery import compact, copied
from prunit.edge.session import Array
from prunit.errors import ModelError
from prunit.export.images import seeded_input
from prunit.export.refill import Count, counts, effective, fill, infer_shapes, set_counts, spread_plan
from prunit.export.steps import Steps, steps_of
from prunit.export.translation import Translation, quiet, strip, translated
from prunit.files import write_atomically
from prunit.graph import ChannelGraph
from prunit.graph.wrappers import unwrapped
from prunit.version import VERSION

Shape = tuple[int, ...]

_KEY: Final = "prunit.template"
_PACKAGES: Final = ("torch", "onnxscript", "onnx-ir", "onnx")
_IMAGES: Final = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Template:
    """A translation of the dense model without the values of its tensors, and what it takes to fill it at other widths.

    shapes     of the dense model's tensors and of those of the second model, by name
    counts     the numbers that follow the widths
    steps      what the dense model does with `images`; `following` are positions of numbers that follow the widths
    """

    translation: Translation
    shapes: Mapping[str, tuple[Shape, Shape]]
    counts: tuple[Count, ...]
    steps: Steps
    following: tuple[int, ...]

    @staticmethod
    def of(dense: nn.Module, graph: ChannelGraph, translation: Translation) -> "Template":
        """The template of a model from its translation; both are left as they were.

        Translates the model once more, cut to other widths. Raises `ModelError` where no template can be had: more than
        numbers of channels follows the widths.
        """
        dense = copied(unwrapped(dense)).cpu().eval()
        shape_CHW = _image_shape(translation)
        x_BCHW = _images(shape_CHW)
        probe = compact(dense, graph, spread_plan(graph))
        tensors, others = effective(dense), effective(probe)
        filled = translation.copy()
        fill(filled.network, probe, others)
        other = translated(probe, torch.from_numpy(x_BCHW), outputs=translation.outputs)
        found = counts(filled.network, other.network, tensors, others)
        steps = _steps(dense, x_BCHW)
        following = steps.following(_steps(probe, x_BCHW))
        if found is None or following is None:
            raise ModelError("what its code does depends on numbers of channels by more than their multiples")
        shapes = {name: (tuple(tensor.shape), tuple(others[name].shape)) for name, tensor in tensors.items()}
        hollow = translation.copy()
        _empty(hollow.network, tensors)
        return Template(hollow, shapes, found, steps, following)

    def carried_to(self, model: nn.Module) -> Translation:
        """The translation of a variant, on the CPU in evaluation mode; `ModelError` says what is in doubt, if it is."""
        tensors = effective(model)
        self._check(tensors)
        following = self.steps.following(_steps(model, _images(_image_shape(self.translation))))
        if following is None or not set(following) <= set(self.following):
            raise ModelError("at its widths the model's code does something else than the dense model's")
        candidate = self.translation.copy()
        fill(candidate.network, model, tensors)
        try:
            set_counts(candidate.network, self.counts, tensors, certain=True)
        except ValueError as error:
            raise ModelError(f"a number in its graph is in doubt: {error}") from error
        infer_shapes(candidate.network)
        return candidate

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        """`ModelError` unless these are the dense model's tensors, cut where it is known what follows."""
        if different := sorted(tensors.keys() ^ self.shapes.keys()):
            raise ModelError(f"it has other tensors than the dense model: {', '.join(different[:3])}")
        for name, (dense, probe) in self.shapes.items():
            shape = tensors[name].shape
            if len(shape) != len(dense):
                raise ModelError(f"'{name}' has {len(shape)} dimensions and {len(dense)} in the dense model")
            for size, before, tried in zip(shape, dense, probe, strict=True):
                if size != before and tried == before:
                    raise ModelError(f"'{name}' has shape {tuple(shape)}, cut where nobody looked what follows from it")
                if size == 1 < before:  # of one channel, code and exporters leave out dimensions
                    raise ModelError(f"'{name}' has a single channel left where the dense model has {before}")

    def to_bytes(self) -> bytes:
        """As a file: an ONNX graph whose weights are empty, with the rest in its metadata."""
        import onnx_ir

        with quiet():
            proto = onnx_ir.to_proto(self.translation.network)
        strip(proto)
        said = {
            "versions": _versions(),
            "of": self.translation.of,
            "outputs": self.translation.outputs,
            "shapes": self.shapes,
            "counts": [_written(count) for count in self.counts],
            "lines": self.steps.lines,
            "numbers": self.steps.numbers,
            "following": self.following,
        }
        entry = proto.metadata_props.add()
        entry.key, entry.value = _KEY, json.dumps(said)
        return bytes(proto.SerializeToString())

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_atomically(path, self.to_bytes())

    @staticmethod
    def read(path: Path) -> "Template | None":
        """The template in a file; None where there is none, or one that this prunit or torch would make otherwise."""
        try:
            data = path.read_bytes()
        except OSError:
            return None
        try:
            return Template.from_bytes(data)
        except Exception as error:  # protobuf, onnx_ir and json share no base class
            logger.warning("'%s' is damaged and not used: %s", path, " ".join(str(error).split())[:200])
            return None

    @staticmethod
    def from_bytes(data: bytes) -> "Template | None":
        """What `to_bytes` wrote; None if other versions did."""
        import onnx
        import onnx_ir

        proto = onnx.ModelProto.FromString(data)
        said = json.loads(next(entry.value for entry in proto.metadata_props if entry.key == _KEY))
        if said["versions"] != _versions():
            return None
        del proto.metadata_props[:]
        with quiet():
            network = onnx_ir.from_proto(proto)
        return Template(
            Translation(network, said["of"], tuple(said["outputs"])),
            {name: (tuple(dense), tuple(probe)) for name, (dense, probe) in said["shapes"].items()},
            tuple(_read(entry) for entry in said["counts"]),
            Steps(tuple(said["lines"]), tuple(said["numbers"])),
            tuple(said["following"]),
        )


def _versions() -> dict[str, str]:
    """By what a translation is made: another release may make another one."""
    return {"prunit": VERSION, **{name: version(name) for name in _PACKAGES}}


def _image_shape(translation: Translation) -> tuple[int, int, int]:
    _, channels, height, width = translation.network.graph.inputs[0].shape
    return int(channels), int(height), int(width)


def _images(shape_CHW: tuple[int, int, int]) -> Array:
    return seeded_input(_IMAGES, shape_CHW)


def _steps(model: nn.Module, x_BCHW: Array) -> Steps:
    try:
        return steps_of(model, x_BCHW)
    except Exception as error:  # what a model raises where something else looks on
        raise ModelError(f"its operators cannot be listed: {' '.join(str(error).split())[:200]}") from error


def _empty(network: Any, tensors: Mapping[str, Tensor]) -> None:
    """Let go of the values of these initializers: each gets none of the same type."""
    import onnx_ir

    for name, value in network.graph.initializers.items():
        if name in tensors:
            value.const_value = onnx_ir.tensor(np.zeros(0, value.const_value.dtype.numpy()), name=name)


def _written(count: Count) -> list[Any]:
    others = [[tensor, dim, str(factor)] for tensor, dim, factor in count.others]
    return [*count.place, count.index, count.tensor, count.dim, str(count.factor), others]


def _read(entry: Sequence[Any]) -> Count:
    position, name, index, tensor, dim, factor, others = entry
    alike = tuple((t, d, Fraction(f)) for t, d, f in others)
    return Count((position, name), index, tensor, dim, Fraction(factor), alike)
