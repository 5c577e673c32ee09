"""Engines that are none: ONNX Runtime under other names, which fail when they are told to; and routes to them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from prunit.edge import runtimes
from prunit.edge.install import cpu_features, place_of
from prunit.edge.portfolio import Latency, Portfolio, Variant
from prunit.edge.precision import Precision
from prunit.edge.routing import Measured, Route, Routes
from prunit.edge.session import Array, Session
from prunit.errors import FileError, MissingExtraError


class Other:
    """An engine called `name`; tests change what it does while it runs."""

    def __init__(self, name: str = "other", precisions: tuple[Precision, ...] = ("fp32", "int8")) -> None:
        self.name, self.precisions = name, precisions
        self.inner = runtimes.OnnxRuntime()
        self.number, self.gone = "1.0", False
        self.refuses: set[str] = set()
        """Stems of files that it cannot open."""
        self.act: Callable[[Session, Array], Array] = lambda session, x_BCHW: session.run(x_BCHW)
        self.opened: list[str] = []
        self.installed: list[str] = []

    def version(self) -> str:
        if self.gone:
            raise MissingExtraError(f"the runtime '{self.name}'", self.name, self.name)
        return self.number

    def open(self, path: Path, *, threads: int = 1) -> Session:
        self.version()
        name = path.stem if path.stem != "model" else path.parent.name.rpartition("-")[0]
        if name in self.refuses:
            raise FileError(f"cannot open '{path}' with {self.name}: no operator 'Conv'")
        self.opened.append(name)
        return OtherSession(self, self.inner.open(path, threads=threads))

    def install(self, path: Path, into: Path) -> Path:
        self.version()
        self.installed.append(path.stem)
        (into / "model.onnx").write_bytes(path.read_bytes())
        return into / "model.onnx"

    def open_installed(self, path: Path, *, threads: int = 1) -> Session:
        return self.open(path, threads=threads)


class OtherSession:
    """One of it."""

    def __init__(self, engine: Other, session: Session) -> None:
        self.engine, self.session = engine, session

    def run(self, x_BCHW: Array, /) -> Array:
        return self.engine.act(self.session, x_BCHW)

    def close(self) -> None:
        self.session.close()


def add(monkeypatch: pytest.MonkeyPatch, *engines: Other) -> None:
    """Have these engines beside those that there are, until the test ends."""
    for engine in engines:
        monkeypatch.setitem(runtimes.RUNTIMES, engine.name, engine)  # type: ignore[arg-type]


def only(monkeypatch: pytest.MonkeyPatch, *engines: Other) -> None:
    """Have these beside the default one and no others: what is chosen is what the test says, wherever it runs."""
    for name in set(runtimes.RUNTIMES) - {runtimes.DEFAULT, "reference"}:
        monkeypatch.delitem(runtimes.RUNTIMES, name)  # type: ignore[arg-type]
    add(monkeypatch, *engines)


def latency(p50_ms: float, batch: int = 1) -> Latency:
    """One that was measured without noise."""
    return Latency(batch=batch, threads=1, n=50, p50_ms=p50_ms, p90_ms=p50_ms, p99_ms=p50_ms)


def measured(engine: str, p50_ms: float, faster: float | None = None, p: float | None = None) -> Measured:
    """What came of a variant in an engine."""
    return Measured(engine=engine, latencies=(latency(p50_ms),), times_faster=faster, p=p, peak_memory_bytes=1000)


def route(variant: Variant, engine: str, p50_ms: float = 0.5) -> Route:
    """A variant's route to an engine that is twice as fast as the default one."""
    default = measured(runtimes.DEFAULT, 2 * p50_ms)
    both = (default,) if engine == default.engine else (default, measured(engine, p50_ms, 2.0, 1e-9))
    return Route(
        variant=variant.name,
        artifact_sha256=variant.artifact.sha256,
        precision=variant.precision,
        only=variant.engine,
        engine=engine,
        measured=both,
    )


def routes_in(folder: Path, engines: Mapping[str, str], *, cache: Path | None = None) -> Routes:
    """Routes of variants of the portfolio in a folder, by name, written where a device keeps them."""
    portfolio = Portfolio.read(folder)
    found = Routes(
        cpu=cpu_features(),
        engines={name: runtimes.runtime(name).version() for name in {runtimes.DEFAULT, *engines.values()}},
        threads=1,
        variants=tuple(route(portfolio.variant(name), engine) for name, engine in engines.items()),
        created="2026-07-04T12:31:44+00:00",
    )
    found.write(place_of(folder, cache))
    return found
