"""`prunit bench`: the variants of a portfolio measured on this device, in one engine or in all. Needs no torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunit.cli.options import AsJson, CacheDir, Threads
from prunit.cli.safe import safe
from prunit.errors import ConfigError, PortfolioError, harmless
from prunit.report import numbers

if TYPE_CHECKING:
    from prunit.edge.measuring.probe import ProbeSettings
    from prunit.edge.portfolio import Portfolio
    from prunit.edge.routing import Measured, Route, Routes


def bench(
    folder: Annotated[Path, typer.Argument(help="A portfolio folder.")],
    engines: Annotated[
        str | None,
        typer.Option(
            "--engines",
            help="Measure in several engines and choose one for each variant: all, or names with commas; ONNX Runtime"
            " is always among them. (default: it alone)",
        ),
    ] = None,
    threads: Threads = 1,
    batch: Annotated[int, typer.Option(min=1, help="The batch size measured besides 1.")] = 32,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each batch size is measured.")] = 5.0,
    save: Annotated[
        bool,
        typer.Option(
            "--save", help="Write the figures into portfolio.json and report.html, and keep the choices of --engines."
        ),
    ] = False,
    cache: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    """Measure all variants of a portfolio on this device, taking turns in one run. Needs no torch."""
    from prunit.edge.measuring.probe import ProbeSettings
    from prunit.edge.portfolio import Portfolio
    from prunit.edge.routing import engines_named

    if cache is not None and engines is None:
        raise ConfigError("--cache is where the choices of --engines are kept: give that too")
    names = engines_named(engines) if engines is not None else None
    portfolio = Portfolio.read(folder)
    problems = portfolio.verify(folder)
    if problems:
        raise PortfolioError(f"'{folder}' is damaged: {problems[0]}")
    settings = ProbeSettings(batches=tuple(dict.fromkeys((1, batch))), threads=threads, seconds=seconds)
    if names is None:
        _in_one(portfolio, folder, settings, save=save, as_json=as_json)
    else:
        _in_several(portfolio, folder, settings, names, save=save, cache=cache, as_json=as_json)


def _in_one(portfolio: "Portfolio", folder: Path, settings: "ProbeSettings", *, save: bool, as_json: bool) -> None:
    from prunit.cli import show
    from prunit.cli.progress import Bars
    from prunit.edge.install import place_of
    from prunit.edge.measuring.measure import measure
    from prunit.edge.routing import read

    with Bars() as bars:
        measured = measure(portfolio, folder, settings, tell=bars.tell)
    stale = _saved(measured, folder) if save else None
    show.result(measured, folder, as_json=as_json, built=False)
    if stale:
        typer.echo(harmless(f"report.html still shows the figures of before: {stale}"), err=True)
    routes, _ = read(place_of(folder))
    if save and routes is not None:
        told = f"this device goes on by what was measured in several engines on {routes.created[:10]}"
        typer.echo(harmless(f"{told}: prunit bench {folder} --engines all --save measures that again"), err=True)


def _in_several(
    portfolio: "Portfolio",
    folder: Path,
    settings: "ProbeSettings",
    engines: Sequence[str],
    *,
    save: bool,
    cache: Path | None,
    as_json: bool,
) -> None:
    from prunit.cli.progress import Bars
    from prunit.edge.install import place_of
    from prunit.edge.measuring.engines import measure_engines

    with Bars() as bars:
        measured, routes = measure_engines(portfolio, folder, settings, engines, tell=bars.tell)
    stale, file = None, None
    if save:  # the routes first: a server takes both when it sees another manifest
        file = routes.write(place_of(folder, cache))
        stale = _saved(measured, folder)
    dominated = _dominated(measured, routes)
    if as_json:
        told = {"folder": str(folder), "saved": str(file) if file else None, "dominated": dominated}
        typer.echo(json.dumps({**told, **routes.model_dump(mode="json")}, indent=2))
    else:
        _show(measured, routes, dominated, settings)
        again = f"prunit bench {folder} --engines {','.join(engines)} --save"
        kept = f"install, serve, simulate and evaluate go by it: {file}"
        typer.echo(harmless(kept if file else f"nothing is stored; {again} has this device go by it"))
    if stale:
        typer.echo(harmless(f"report.html still shows the figures of before: {stale}"), err=True)


def _saved(measured: "Portfolio", folder: Path) -> str | None:
    """The manifest and the report are written; why the report could not be, if so."""
    from prunit.report import rewrite_report

    measured.write(folder)
    return rewrite_report(measured, folder)


def _dominated(measured: "Portfolio", routes: "Routes") -> dict[str, str]:
    """Variants that another one beats in accuracy and in the latency of their engines here, with its name."""
    points: dict[str, tuple[float, float]] = {}
    for route in routes.variants:
        found, accuracy = route.of(route.engine), measured.variant(route.variant).metrics.accuracy
        ms = found.latency_ms() if found else None
        if ms is not None and accuracy is not None:
            points[route.variant] = (ms, accuracy)
    dominated: dict[str, str] = {}
    for name, (ms, accuracy) in points.items():
        better = [
            other
            for other, (other_ms, other_accuracy) in points.items()
            if other_ms <= ms and other_accuracy >= accuracy and (other_ms, other_accuracy) != (ms, accuracy)
        ]
        if better:
            dominated[name] = max(better, key=lambda other: (points[other][1], -points[other][0]))
    return dominated


def _show(measured: "Portfolio", routes: "Routes", dominated: Mapping[str, str], settings: "ProbeSettings") -> None:
    from rich import box
    from rich.table import Table

    from prunit.cli import show

    out = show.console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("variant", "precision", "engine"):
        table.add_column(column, overflow="fold")
    for batch in settings.batches:
        table.add_column(f"batch {batch}\np50 ms", justify="right", no_wrap=True)
    table.add_column("than fp32 in\nONNX Runtime", justify="right")
    table.add_column("")
    shown = ["dense", *(route.variant for route in routes.variants if route.variant not in dominated)]
    for route in routes.variants:
        able = sorted((m for m in route.measured if not m.why_not), key=lambda m: m.latency_ms() or 0.0)
        if route.variant not in shown:
            able = [m for m in able if m.engine == route.engine]
        for i, one in enumerate(able):
            chosen = one.engine == route.engine
            word = "chosen" if chosen and route.variant in shown else ""
            if route.variant in dominated and chosen:
                word = f"not better than {dominated[route.variant]}"
            cells = [
                safe(route.variant) if not i else "",
                safe(route.precision) if not i else "",
                safe(one.engine),
                *(_ms(one.latency_ms(batch=batch)) for batch in settings.batches),
                _ratio(one, _float_twin(measured, routes, route)),
                safe(word),
            ]
            style = "bold" if word == "chosen" else "dim" if route.variant not in shown else ""
            table.add_row(*cells, style=style)
    out.print(table)
    for line in _could_not(routes):
        out.print(safe(line), soft_wrap=True)
    if measured.device is not None:
        known = ", ".join(f"{name} {version}" for name, version in routes.engines.items())
        told = f"measured on {measured.device.name}; {known}; {routes.threads} thread{'s' * (routes.threads > 1)}"
        out.print(f"[dim]{safe(told)}[/]")


def _float_twin(measured: "Portfolio", routes: "Routes", route: "Route") -> "Measured | None":
    """What was measured of the same widths in fp32 in ONNX Runtime."""
    from prunit.edge import runtimes

    lowered = measured.variant(route.variant).lowered
    twin = lowered.twin if lowered else route.variant
    found = next((each for each in routes.variants if each.variant == twin and each.precision == "fp32"), None)
    return found.of(runtimes.DEFAULT) if found else None


def _ratio(one: "Measured", twin: "Measured | None") -> str:
    """How many times faster at batch 1."""
    mine, theirs = one.latency_ms(), twin.latency_ms() if twin else None
    if not mine or not theirs:
        return "–"
    if one is twin:
        return "1×"
    return numbers.times(theirs / mine, less="faster", more="slower").replace(numbers.SPACE, " ")


def _ms(value: float | None) -> str:
    return "–" if value is None else numbers.significant(value).replace(numbers.SPACE, " ")


def _could_not(routes: "Routes") -> list[str]:
    """A line for each engine and reason, with the variants that it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for route in routes.variants:
        for one in route.measured:
            if one.why_not:
                found.setdefault((one.engine, one.why_not), []).append(route.variant)
    return [
        f"not in {engine}: {why}" + ("" if len(names) == len(routes.variants) else f" ({', '.join(names)})")
        for (engine, why), names in found.items()
    ]
