"""The inference engines, by name. A new one is a file here and a line in RUNTIMES."""

from collections.abc import Mapping
from typing import Final

from prunit.edge.precision import Precision
from prunit.edge.runtimes.onnxruntime import OnnxRuntime
from prunit.edge.runtimes.openvino import OpenVino
from prunit.edge.runtimes.reference import Reference
from prunit.edge.session import Runtime
from prunit.errors import unknown

__all__ = ["DEFAULT", "RUNTIMES", "OnnxRuntime", "OpenVino", "Reference", "precisions_of", "runtime"]

DEFAULT: Final = "onnxruntime"
RUNTIMES: Final[Mapping[str, Runtime]] = {
    "onnxruntime": OnnxRuntime(),
    "openvino": OpenVino("openvino", "f32", ("fp32", "int8")),
    "openvino-bf16": OpenVino("openvino-bf16", "bf16", ("bf16",)),
    "reference": Reference(),
}


def runtime(name: str | Runtime = DEFAULT) -> Runtime:
    """The runtime called `name`; a runtime is returned as it is."""
    if not isinstance(name, str):
        return name
    if name not in RUNTIMES:
        raise unknown("runtime", name, RUNTIMES)
    return RUNTIMES[name]


def precisions_of(runtime: Runtime) -> tuple[Precision, ...]:
    """The precisions of variants that an engine runs; one that does not say: those that the file alone decides."""
    return getattr(runtime, "precisions", ("fp32", "int8"))
