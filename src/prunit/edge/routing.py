"""Which engine a variant runs in on this device: measured here (`prunit bench --engines all --save`), and kept here.

The manifest travels, so it says nothing of it: routes lie where the installed form does. They hold for the CPU, the
versions of the engines and the model files that were measured; whatever does not fit any more is passed over with a
note, and the default engine goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from prunit.edge import runtimes
from prunit.edge.comparing.rounds import Rounds
from prunit.edge.install import cpu_features
from prunit.edge.portfolio import Latency, Portfolio, Variant
from prunit.edge.precision import Precision
from prunit.edge.problems import first_problem
from prunit.edge.records import Record, Sha256
from prunit.edge.session import Runtime
from prunit.errors import ConfigError, DeviceError, PrunitError, unknown
from prunit.files import write_atomically

AUTO: Final = "auto"
"""As an engine's name: each variant in that of its route."""
ROUTES: Final = "routes.json"
AGAIN: Final = "prunit bench DIR --engines all --save measures again"
_TO_COMPARE_WITH: Final = ("reference",)
"""Engines that nobody serves with: `all` leaves them out."""
Key = tuple[str, Precision, str]
"""What tells one variant's route from another's: the same file may be computed in two precisions. Not the name, which
may be another one where it is served."""


class Measured(Record):
    """What came of a variant in one engine; `why_not` it could not, '' if it could.

    `self_test` is the largest difference of its outputs to the stored ones. `times_faster` than the default engine it
    is, the median over rounds at batch 1 in which both took turns, and `p` the sign test's: None for the default one,
    and where that cannot run the variant.
    """

    engine: str
    latencies: tuple[Latency, ...] = ()
    peak_memory_bytes: NonNegativeInt | None = None
    self_test: NonNegativeFloat | None = None
    times_faster: PositiveFloat | None = None
    p: NonNegativeFloat | None = None
    why_not: str = ""

    def latency_ms(self, *, batch: int = 1) -> float | None:
        """The median at a batch size, None if it was not measured."""
        return next((latency.p50_ms for latency in self.latencies if latency.batch == batch), None)


class Route(Record):
    """A variant in all engines that it was tried in; it runs in `engine`, '' where none could run it."""

    variant: str
    artifact_sha256: Sha256
    precision: Precision
    only: str = ""
    engine: str
    measured: tuple[Measured, ...]

    @property
    def key(self) -> Key:
        """Of the variant."""
        return self.artifact_sha256, self.precision, self.only

    def of(self, engine: str) -> Measured | None:
        """What was measured in an engine; None if it was not tried or could not run the variant."""
        return next((each for each in self.measured if each.engine == engine and not each.why_not), None)


class Routes(Record):
    """What `prunit bench --engines … --save` leaves on a device; `engines` are the versions that were there."""

    format: Literal["prunit-routes"] = "prunit-routes"
    version: Literal[1] = 1
    cpu: str
    engines: Mapping[str, str]
    threads: PositiveInt
    variants: tuple[Route, ...]
    created: str

    def write(self, place: Path) -> Path:
        """The file's path, after it took the place of an older one in one step."""
        write_atomically(place / ROUTES, self.model_dump_json(indent=1) + "\n")
        return place / ROUTES


def key_of(variant: Variant) -> Key:
    """What a variant's route is found by."""
    return variant.artifact.sha256, variant.precision, variant.engine


def engines_named(text: str) -> tuple[str, ...]:
    """The engines in a text, separated by commas, or `all`; the default one first, with which others are compared.

    Raises `UnknownNameError`, and `ConfigError` where there is no name.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"engines '{text}': there is no name in it; known: {', '.join([*runtimes.RUNTIMES, 'all'])}")
    for name in names:
        if name != "all" and name not in runtimes.RUNTIMES:
            raise unknown("engine", name, [*runtimes.RUNTIMES, "all"])
    every = [name for name in runtimes.RUNTIMES if name not in _TO_COMPARE_WITH] if "all" in names else []
    return tuple(dict.fromkeys([runtimes.DEFAULT, *every, *(name for name in names if name != "all")]))


def engines_for(variant: Variant, names: Sequence[str]) -> list[str]:
    """Those of some engines that may run a variant: its own one alone, else those that compute in its precision."""
    if variant.engine:
        return [name for name in names if name == variant.engine]
    return [name for name in names if variant.precision in runtimes.precisions_of(runtimes.runtime(name))]


def chosen(measured: Sequence[Measured]) -> str:
    """The engine of a variant: the fastest at batch 1, '' if none can run it.

    The default one stays where it can run the variant and no other is faster beyond chance and the noise of two
    measurements: what is known best, and needs no further package, is not left for nothing.
    """
    able = [each for each in measured if not each.why_not and each.latencies]
    if any(each.engine == runtimes.DEFAULT for each in able):
        able = [each for each in able if each.engine == runtimes.DEFAULT or _surely_faster(each)]
    return min(able, key=lambda each: each.latency_ms() or 0.0).engine if able else ""


def _surely_faster(each: Measured) -> bool:
    if each.times_faster is None or each.p is None or each.times_faster <= 1:
        return False
    return Rounds(each.times_faster, each.p).measurable


def read(place: Path) -> tuple[Routes | None, str]:
    """The routes of a device's place, and why they cannot be used, '' if they can or there are none."""
    path = place / ROUTES
    try:
        found = Routes.model_validate_json(path.read_text(encoding="utf-8"), strict=True)
    except FileNotFoundError:
        return None, ""
    except ValidationError as error:
        return None, f"'{path}' holds no routes ({first_problem(error, Routes)}); {AGAIN}"
    except (OSError, ValueError) as error:
        return None, f"cannot read '{path}': {error}; {AGAIN}"
    if found.cpu != cpu_features():
        return None, f"the routes in '{path}' were measured on another CPU; {AGAIN}"
    return found, ""


@dataclass(frozen=True)
class Router:
    """The routes that hold on this device now, for any variant; `notes` say what was passed over.

    `forced` is the engine for all variants but those that run in another one alone. What is in `fallen` was let down by
    its engine and goes on in the default one.
    """

    routes: Mapping[Key, Route] = field(default_factory=dict[Key, Route])
    fresh: frozenset[str] = frozenset()
    """Engines whose figures hold."""
    stale: bool = False
    """The default engine is another version than it was when the others were compared with it."""
    forced: str | Runtime | None = None
    fallen: frozenset[Key] = frozenset()
    threads: int | None = None
    """With which the routes were measured."""
    notes: tuple[str, ...] = ()

    def order(self, variant: Variant) -> tuple[str | Runtime, ...]:
        """The engines to try for a variant, the one that it is to run in first."""
        if variant.engine:
            return (variant.engine,)
        if self.forced is not None:
            return (self.forced,)
        base = _base(variant)
        first = self._routed(variant) or base
        return (first,) if first == base else (first, base)

    def engine(self, variant: Variant) -> str:
        """The name of the engine that a variant is to run in."""
        first = self.order(variant)[0]
        return first if isinstance(first, str) else first.name

    def falling(self, variant: Variant) -> "Router":
        """The same, after a variant's engine let it down."""
        return replace(self, fallen=self.fallen | {key_of(variant)})

    def standing(self, variant: Variant) -> "Router":
        """The same, with another try for a variant in the engine of its route."""
        return replace(self, fallen=self.fallen - {key_of(variant)})

    def overlaid(self, portfolio: Portfolio) -> Portfolio:
        """The portfolio as this device runs it: the figures of each variant are those of its engine here.

        Whoever chooses among variants by how fast they are has to go by this one, not by the manifest.
        """
        variants = tuple(map(self.measured, portfolio.variants))
        return portfolio.model_copy(update={"variants": variants})

    def measured(self, variant: Variant) -> Variant:
        """A variant with the figures of its engine here, as far as they are known; else as it is."""
        route, engine = self.routes.get(key_of(variant)), self.engine(variant)
        found = route.of(engine) if route and engine in self.fresh else None
        if found is None or not found.latencies:
            return variant
        peak = found.peak_memory_bytes or variant.metrics.peak_memory_bytes
        metrics = variant.metrics.model_copy(update={"latencies": found.latencies, "peak_memory_bytes": peak})
        return variant.model_copy(update={"metrics": metrics})

    def unmeasured(self, portfolio: Portfolio) -> str:
        """Which variants of a portfolio no route knows, in a sentence; '' where all are known, or none is."""
        names = [v.name for v in portfolio.variants if key_of(v) not in self.routes]
        if not self.routes or not names:
            return ""
        return f"not measured in the engines of this device, or of another file: {', '.join(names)}; {AGAIN}"

    def _routed(self, variant: Variant) -> str:
        """The engine of its route, '' where none holds."""
        route = self.routes.get(key_of(variant))
        if route is None or key_of(variant) in self.fallen or route.engine not in self.fresh:
            return ""
        return "" if self.stale and route.of(runtimes.DEFAULT) is not None else route.engine


def router(place: Path, runtime: str | Runtime | None = None) -> Router:
    """The router of a device's place; with a `runtime` (neither None nor `auto`) that one for all.

    Reads the routes, and asks the engines that they name for their versions. Raises `UnknownNameError` for a runtime
    that does not exist.
    """
    if isinstance(runtime, str) and runtime != AUTO:
        runtimes.runtime(runtime)
    forced = None if runtime in (None, AUTO) else runtime
    routes, problem = read(place)
    if routes is None:
        return Router(forced=forced, notes=(problem,) if problem else ())
    named = (
        (forced if isinstance(forced, str) else forced.name,)
        if forced
        else (r.engine for r in routes.variants if r.engine)
    )
    fresh, notes, stale = set[str](), list[str](), False
    for name in dict.fromkeys([runtimes.DEFAULT, *named]):
        now, before = version_here(name), routes.engines.get(name)
        if now == before:
            fresh.add(name)
        elif isinstance(now, PrunitError) and name != runtimes.DEFAULT:
            notes += _without(name, routes, str(now))
        elif isinstance(now, str) and before:
            stale = stale or name == runtimes.DEFAULT
            notes.append(f"{name} is {now} and was {before} when routes were measured; {AGAIN}")
    found = {route.key: route for route in routes.variants}
    told = () if forced else tuple(notes)
    return Router(found, frozenset(fresh), stale, forced, threads=routes.threads, notes=told)


def _without(engine: str, routes: Routes, why: str) -> list[str]:
    """What becomes of those that were to run in an engine that is not there: some run in no other one."""
    concerned = [route for route in routes.variants if route.engine == engine]
    alone = ", ".join(route.variant for route in concerned if route.only)
    others = any(not route.only for route in concerned) or not concerned
    notes = [f"what was to run in {engine} goes on in {runtimes.DEFAULT}: {why}"] if others else []
    return [*notes, f"what runs in {engine} alone cannot run here ({alone}): {why}"] if alone else notes


def version_here(name: str) -> str | PrunitError:
    """An engine's version, or why it is not there."""
    try:
        return runtimes.runtime(name).version()
    except PrunitError as error:
        return error
    except Exception as error:  # a package that breaks while it is imported may throw anything
        return DeviceError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _base(variant: Variant) -> str:
    """The engine of a variant without a route: the default one, where that computes in its precision."""
    able = (name for name in runtimes.RUNTIMES if variant.precision in runtimes.precisions_of(runtimes.RUNTIMES[name]))
    fits = variant.precision in runtimes.precisions_of(runtimes.runtime())
    return runtimes.DEFAULT if fits else next(able, runtimes.DEFAULT)
