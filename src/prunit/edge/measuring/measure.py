"""Measure all variants of a portfolio on this machine: the same on the workstation and on the device."""

import logging
from collections.abc import Callable
from pathlib import Path

from prunit.edge import runtimes
from prunit.edge.measuring.probe import ProbeSettings, device, peak_memory, probe
from prunit.edge.portfolio import Portfolio, Variant
from prunit.edge.routing import version_here
from prunit.edge.session import Session, self_test
from prunit.errors import PrunitError

Tell = Callable[[str, str, int, int], None]
"""Called with the variant ('all' for all together), the stage ('memory' or 'probe'), and units done and in all."""


def measure(portfolio: Portfolio, folder: Path, settings: ProbeSettings, *, tell: Tell | None = None) -> Portfolio:
    """The portfolio with this machine's latencies, peak memory and name in it; `folder` holds its files.

    Variants run in the default engine, those that run in one engine alone in that. Latencies of all variants come from
    one run in which they take turns; memory from a process for each. A variant whose own engine is not here has no
    figures afterwards, as those of another device are none of this one, and a warning says why. Raises `PortfolioError`
    if a variant does not give its stored output here: it is not to be used.
    """
    tell = tell or (lambda variant, stage, done, total: None)
    able = _able(portfolio)
    files = {v.name: folder / v.artifact.path for v in able}
    engines = {v.name: v.engine or runtimes.DEFAULT for v in able}
    shapes = {v.name: v.artifact.input_shape for v in portfolio.variants}
    memory: dict[str, int] = {}
    for i, (name, file) in enumerate(files.items()):
        tell(name, "memory", i, len(files))
        memory[name] = peak_memory(file, shapes[name], runtime=engines[name], threads=settings.threads)
    sessions: dict[str, Session] = {}
    try:
        for v in able:
            sessions[v.name] = runtimes.runtime(engines[v.name]).open(files[v.name], threads=settings.threads)
            self_test(sessions[v.name], v.artifact, folder)
        latencies = probe(sessions, shapes, settings, on_run=lambda done, total: tell("all", "probe", done, total))
    finally:
        for session in sessions.values():
            session.close()
    variants = tuple(
        v.model_copy(
            update={
                "metrics": v.metrics.model_copy(
                    update={"latencies": latencies.get(v.name, ()), "peak_memory_bytes": memory.get(v.name)}
                )
            }
        )
        for v in portfolio.variants
    )
    return portfolio.model_copy(update={"variants": variants, "device": device()})


def _able(portfolio: Portfolio) -> list[Variant]:
    """The variants whose engine is here; raises what is wrong with it where there is none."""
    absent: dict[str, PrunitError] = {}
    for engine in {v.engine for v in portfolio.variants if v.engine}:
        version = version_here(engine)
        if isinstance(version, PrunitError):
            absent[engine] = version
    able = [v for v in portfolio.variants if v.engine not in absent]
    if absent and not able:
        raise next(iter(absent.values()))
    for engine, why in sorted(absent.items()):
        names = ", ".join(v.name for v in portfolio.variants if v.engine == engine)
        logging.getLogger(__name__).warning("not measured: %s: %s", names, why)
    return able
