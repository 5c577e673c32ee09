"""Which engines the contracts are checked with here, and how near their outputs must come to torch's."""

from contextlib import suppress

import numpy as np
import pytest

from prunit.edge.runtimes import RUNTIMES, precisions_of
from prunit.edge.session import Array, Runtime
from prunit.errors import DeviceError, MissingExtraError

NAMES = sorted(RUNTIMES)


def engine_here(name: str) -> Runtime:
    """The runtime; skips the test, with a word, where its package is not installed or the CPU has not its precision."""
    try:
        RUNTIMES[name].version()
    except (MissingExtraError, DeviceError) as error:
        pytest.skip(str(error))
    return RUNTIMES[name]


def exact(runtime: Runtime) -> bool:
    """Whether it computes in float32 what a file says."""
    return "fp32" in precisions_of(runtime)


def exact_engines_here() -> list[Runtime]:
    """Those of the installed engines that compute in float32."""
    found: list[Runtime] = []
    for runtime in filter(exact, RUNTIMES.values()):
        with suppress(MissingExtraError):
            runtime.version()
            found.append(runtime)
    return found


def assert_near(runtime: Runtime, found: Array, wanted: Array) -> None:
    """Equal as float32 goes; of an engine that rounds to 8 bits, within a few steps of the largest output."""
    assert found.dtype == np.float32
    if exact(runtime):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=0.05 * float(np.abs(wanted).max()))
