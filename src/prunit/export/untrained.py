"""ONNX files of untrained plans, to time them: torch translates the dense model once, and a plan's file is that
translation with the tensors of the plan's compact model in it, put through the same rewrites.

Translating takes seconds, the rest a fraction of one. A number that counts channels may stand in the translation: how
many groups a convolution has is set anew; for others a second translation, at other widths, says which tensors' sizes
they follow. Whether the file computes what the compact model does is tried on two images, each time: if not, the
compact model itself is translated. Why it can be trusted: docs/adr/027-one-translation.md.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from prunit.cut.plans import Plan
from prunit.cut.surgery import compact, copied
from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, outputs_of
from prunit.errors import MissingExtraError, ModelError
from prunit.export.images import seeded_input
from prunit.export.onnx import check_exportable, image_shape
from prunit.export.outputs import outputs
from prunit.export.proof import allowed
from prunit.export.refill import Count, counts, effective, fill, infer_shapes, set_counts, spread_plan
from prunit.export.translation import Translation, finished, translated
from prunit.graph import ChannelGraph
from prunit.graph.wrappers import unwrapped

TOLERANCE: Final = 1e-3
"""How far an output may be from torch's, as a share of its image's largest: rounding is a thousandth of that, and what
is left out or doubled is more."""
_IMAGES: Final = 2


class Untrained:
    """What makes ONNX files of the untrained plans of one dense model.

    `translation` is what `export_onnx` gave of the same model, if it was exported already. The model is copied; of the
    example only the shape matters. Tensors of one value, which a training would not leave so (biases of zeros, gains
    of one), get noise: else rewrites would drop in an untrained file what the trained one has.
    """

    def __init__(
        self, dense: nn.Module, graph: ChannelGraph, example_BCHW: Tensor, *, translation: Translation | None = None
    ) -> None:
        self.graph = graph
        self._x_BCHW = torch.from_numpy(seeded_input(_IMAGES, image_shape(example_BCHW)))
        check_exportable(unwrapped(dense))
        self._dense = copied(unwrapped(dense)).cpu().eval()
        stir(self._dense)
        self._names = list(outputs(self._dense, self._x_BCHW.numpy()))
        self._translation = translation or translated(self._dense, self._x_BCHW, outputs=self._names)
        self._counts: tuple[Count, ...] | None = ()
        """Of the numbers that follow the widths; None where a translation cannot be carried over to other widths."""
        self._looked = False

    def write_dense(self, path: Path) -> bool:
        """Write the file of the dense model; whether it is that of the translation."""
        return self._write(self._dense, path)

    def write(self, plan: Plan, path: Path) -> bool:
        """Write the file of a plan; False if its compact model had to be translated for that.

        Raises `ModelError` if that cannot be exported, or does not run.
        """
        small = compact(self._dense, self.graph, plan)
        if plan.biases:  # layers that have none in the translation
            stir(small)
            return self._write_anew(small, path)
        return self._write(small, path)

    def _write(self, model: nn.Module, path: Path) -> bool:
        if self._counts is None:  # it never fits
            return self._write_anew(model, path)
        if self._write_derived(model, path):
            return True
        if not self._looked:
            self._looked, self._counts = True, self._find_counts()
            if self._counts and self._write_derived(model, path):
                return True
        return self._write_anew(model, path)

    def _write_anew(self, model: nn.Module, path: Path) -> bool:
        path.write_bytes(finished(translated(model, self._x_BCHW, outputs=self._names)))
        return False

    def _write_derived(self, model: nn.Module, path: Path) -> bool:
        """Whether the translation gives a file that computes what the model does; it is written then."""
        candidate, tensors = self._translation.copy(), effective(model)
        try:
            fill(candidate.network, model, tensors)
            set_counts(candidate.network, self._counts or (), tensors)
            infer_shapes(candidate.network)
            path.write_bytes(finished(candidate, check=False))
        except (ModelError, ValueError):
            return False
        return self._same(path, model)

    def _same(self, path: Path, model: nn.Module) -> bool:
        try:
            wanted = tuple(outputs(model, self._x_BCHW.numpy()).values())
            session = runtime("onnxruntime").open(path)
            try:
                outcome = outputs_of(session, self._x_BCHW.numpy())
            finally:
                session.close()
        except MissingExtraError:
            raise
        except Exception:  # what engine and model raise where shapes do not fit share no base class
            return False
        return len(outcome) == len(wanted) and all(map(_alike, outcome, wanted))

    def _find_counts(self) -> tuple[Count, ...] | None:
        """The numbers of the translation that follow widths, found by translating one more model."""
        probe = compact(self._dense, self.graph, spread_plan(self.graph))
        tensors, filled = effective(probe), self._translation.copy()
        try:
            other = translated(probe, self._x_BCHW, outputs=self._names)
        except ModelError:
            return None
        fill(filled.network, probe, tensors)
        return counts(filled.network, other.network, effective(self._dense), tensors)


def _alike(found: Array, expected: Array) -> bool:
    if found.shape != expected.shape or not np.isfinite(expected).all():  # of NaN nothing can be said
        return False
    difference = np.abs(found.astype(np.float64) - expected).reshape(len(expected), -1).max(axis=1)
    return bool((difference <= allowed(expected, TOLERANCE)).all())


def stir(model: nn.Module) -> None:
    """Add noise, in place, to parameters and batch statistics that hold one value: a tenth of it, or 0.02 for zero."""
    generator = torch.Generator().manual_seed(0)
    statistics = [t for m in model.modules() if isinstance(m, _NormBase) for t in (m.running_mean, m.running_var)]
    with torch.no_grad():
        for tensor in (*model.parameters(), *statistics):
            if tensor is None or not tensor.is_floating_point() or not tensor.numel():
                continue
            first = float(tensor.flatten()[0])
            if bool((tensor == first).all()):
                noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) * 2 - 1
                tensor.add_(noise * (0.1 * abs(first) or 0.02))
