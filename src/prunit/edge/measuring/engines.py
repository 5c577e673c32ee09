"""Measure every variant in every engine that may run it, and choose its route: what `prunit bench --engines` does."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from prunit.edge import runtimes
from prunit.edge.comparing.rounds import compared
from prunit.edge.install import cpu_features, ready
from prunit.edge.measuring.measure import Tell
from prunit.edge.measuring.probe import ProbeSettings, device, latency_of, peak_memory, turns
from prunit.edge.portfolio import Portfolio, Variant
from prunit.edge.routing import Measured, Route, Routes, chosen, engines_for, version_here
from prunit.edge.session import Session, engine, self_test
from prunit.errors import DeviceError, PrunitError

_SHARE: Final = 0.5
"""Of the memory that is available, what sessions that are open at once may take."""
_PASSES: Final = 3
"""So often all groups have their turn where not all sessions fit: what the machine does meanwhile hits all of them."""


@dataclass
class _Pair:
    """A variant in an engine."""

    variant: Variant
    engine: str
    difference: float | None = None
    """That of its self-test."""
    memory: int | None = None
    why_not: str = ""
    times_ns: dict[int, list[int]] = field(default_factory=dict[int, list[int]])

    @property
    def key(self) -> str:
        return f"{self.engine}\0{self.variant.name}"

    def open(self, folder: Path, threads: int) -> Session:
        return ready(self.variant, folder, runtime=self.engine, threads=threads, test=False)[0]

    def bytes(self, batch: int) -> int:
        """What it takes while it is open, roughly."""
        metrics = self.variant.metrics
        return (self.memory or metrics.open_bytes) + (batch - 1) * metrics.activation_bytes


def measure_engines(
    portfolio: Portfolio,
    folder: Path,
    settings: ProbeSettings,
    engines: Sequence[str],
    *,
    tell: Tell | None = None,
    memory_bytes: int | None = None,
) -> tuple[Portfolio, Routes]:
    """The portfolio with the figures of each variant's default engine, and the route of each with those of all.

    All pairs of a variant and an engine take turns in one run. Where they do not fit into `memory_bytes` together
    (None: half of what is available), those of the same widths do, and all such groups in turn, several times. A pair
    that cannot run is told with its reason and does not stop the others.
    """
    tell = tell or (lambda variant, stage, done, total: None)
    versions, absent = _versions(dict.fromkeys([*engines, *(v.engine for v in portfolio.variants if v.engine)]))
    pairs = [_Pair(v, name) for v in portfolio.variants for name in engines_for(v, engines)]
    for i, pair in enumerate(pairs):
        tell(pair.variant.name, "memory", i, len(pairs))
        pair.why_not = absent.get(pair.engine, "") or _tried(pair, folder, settings.threads)
    able = [pair for pair in pairs if not pair.why_not]
    groups = _groups(able, portfolio, max(settings.batches), _available() if memory_bytes is None else memory_bytes)
    _measure(groups, folder, settings, tell)
    routes = tuple(
        _route(v, [p for p in pairs if p.variant is v], settings.threads, _no_engine(v, engines, absent))
        for v in portfolio.variants
    )
    found = Routes(
        cpu=cpu_features(),
        engines=versions,
        threads=settings.threads,
        variants=routes,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    variants = tuple(map(_with_default, portfolio.variants, routes))
    told = device() if runtimes.DEFAULT in versions else portfolio.device
    return portfolio.model_copy(update={"variants": variants, "device": told}), found


def _versions(names: Sequence[str] | Mapping[str, None]) -> tuple[dict[str, str], dict[str, str]]:
    """Of the engines that are there, and why the others are not."""
    there, absent = dict[str, str](), dict[str, str]()
    for name in names:
        version = version_here(name)
        if isinstance(version, PrunitError):
            absent[name] = str(version)
        else:
            there[name] = version
    return there, absent


def _tried(pair: _Pair, folder: Path, threads: int) -> str:
    """Why a pair cannot run, '' if it can; its self-test and its memory are noted."""
    try:
        session = pair.open(folder, threads)
        try:
            pair.difference = self_test(session, pair.variant.artifact, folder)
        finally:
            session.close()
    except PrunitError as error:
        return str(error)
    except Exception as error:  # an engine's own may be of any kind
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    artifact = pair.variant.artifact
    try:
        file = folder / artifact.path
        pair.memory = peak_memory(file, artifact.input_shape, runtime=pair.engine, threads=threads)
    except DeviceError:  # then policies count with the weights
        pair.memory = None
    return ""


def _available() -> int:
    return int(_SHARE * engine("psutil", extra="edge").virtual_memory().available)


def _groups(able: Sequence[_Pair], portfolio: Portfolio, batch: int, memory_bytes: int) -> list[list[_Pair]]:
    """The pairs that are open at once: all if they fit, else those of a float variant and its twins of fewer bits."""
    if sum(pair.bytes(batch) for pair in able) <= memory_bytes:
        return [list(able)] if able else []
    families: dict[str, list[_Pair]] = {}
    for pair in able:
        families.setdefault(twin_of(pair.variant), []).append(pair)
    return list(families.values())


def twin_of(variant: Variant) -> str:
    """The name of the float variant of the same widths, its own one if it is that."""
    return variant.lowered.twin if variant.lowered else variant.name


def _measure(groups: Sequence[Sequence[_Pair]], folder: Path, settings: ProbeSettings, tell: Tell) -> None:
    passes = 1 if len(groups) <= 1 else _PASSES
    part = replace(
        settings,
        min_runs=math.ceil(settings.min_runs / passes),
        max_runs=math.ceil(settings.max_runs / passes),
        seconds=settings.seconds / passes,
        limit_seconds=settings.limit_seconds / passes,
    )
    total = passes * len(groups)
    for turn, group in enumerate(each for _ in range(passes) for each in groups):
        sessions: dict[str, Session] = {}
        shapes = {pair.key: pair.variant.artifact.input_shape for pair in group}

        def on_run(done: int, of: int, turn: int = turn) -> None:
            tell("all", "probe", turn * of + done, total * of)

        try:
            for pair in group:
                sessions[pair.key] = pair.open(folder, settings.threads)
            for batch, times in turns(sessions, shapes, part, on_run=on_run).items():
                for pair in group:
                    pair.times_ns.setdefault(batch, []).extend(times[pair.key])
        finally:
            for session in sessions.values():
                session.close()


def _no_engine(variant: Variant, engines: Sequence[str], absent: Mapping[str, str]) -> Measured:
    """What is told of a variant that none of the engines may run."""
    alone, asked = variant.engine or f"engines of {variant.precision}", ", ".join(engines)
    why = absent.get(variant.engine) or f"it runs in {alone} alone, and asked for were {asked}: --engines all"
    return Measured(engine=variant.engine or "none", why_not=why)


def _route(variant: Variant, pairs: Sequence[_Pair], threads: int, no_engine: Measured) -> Route:
    default = next((p for p in pairs if p.engine == runtimes.DEFAULT and p.times_ns), None)
    measured = list(_measured(pairs, default, threads)) or [no_engine]
    return Route(
        variant=variant.name,
        artifact_sha256=variant.artifact.sha256,
        precision=variant.precision,
        only=variant.engine,
        engine=chosen(measured),
        measured=tuple(measured),
    )


def _measured(pairs: Sequence[_Pair], default: _Pair | None, threads: int) -> Iterator[Measured]:
    for pair in pairs:
        against = (
            compared(pair.times_ns[1], default.times_ns[1]) if default not in (None, pair) and pair.times_ns else None
        )
        yield Measured(
            engine=pair.engine,
            latencies=tuple(latency_of(times, batch, threads) for batch, times in pair.times_ns.items()),
            peak_memory_bytes=pair.memory,
            self_test=pair.difference,
            times_faster=against.times_faster if against else None,
            p=against.p if against else None,
            why_not=pair.why_not,
        )


def _with_default(variant: Variant, route: Route) -> Variant:
    """With the figures of the engine that it runs in where nobody has measured another one."""
    found = route.of(variant.engine or runtimes.DEFAULT)
    if found is None:
        return variant
    peak = found.peak_memory_bytes or variant.metrics.peak_memory_bytes
    metrics = variant.metrics.model_copy(update={"latencies": found.latencies, "peak_memory_bytes": peak})
    return variant.model_copy(update={"metrics": metrics})
