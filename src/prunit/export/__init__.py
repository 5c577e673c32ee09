"""Model files for devices: one exporter per format, each verified against torch before it writes anything."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from torch import Tensor, nn

from prunit.edge.portfolio import Artifact
from prunit.errors import unknown
from prunit.export.onnx import export_onnx

__all__ = ["EXPORTERS", "Exporter", "export_onnx", "exporter"]


class Exporter(Protocol):
    """Writes a model into a folder, as a file an engine opens, with its self-test."""

    def __call__(
        self,
        model: nn.Module,
        example_BCHW: Tensor,
        folder: Path,
        *,
        name: str,
        output: str = "logits",
        tolerance: float = 1e-4,
    ) -> Artifact:
        """The record of the files written; `output` is what the file calls the model's output.

        `tolerance` is how far an output may be from torch's, as a share of the largest output; the artifact holds it
        in absolute terms.
        """
        ...


EXPORTERS: Final[Mapping[str, Exporter]] = {
    "onnx": export_onnx,
}


def exporter(format: str | Exporter = "onnx") -> Exporter:
    """The exporter of `format`; an exporter is returned as it is."""
    if not isinstance(format, str):
        return format
    if format not in EXPORTERS:
        raise unknown("export format", format, EXPORTERS)
    return EXPORTERS[format]
