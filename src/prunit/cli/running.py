"""`prunit install`, `prunit simulate` and `prunit replay`: a portfolio on a device. None of them needs torch."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from prunit.cli.options import AsJson, CacheDir, EngineName, Threads
from prunit.errors import ConfigError, DeviceError, MissingExtraError, PortfolioError, UnknownNameError, harmless

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A portfolio folder.")]
Trace = Annotated[
    Path,
    typer.Option("--trace", help="Requests per second, a number a line, or a CSV of time stamps; .gz, .bz2, .tar."),
]
PolicyNames = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        help="accurate, queue, saver, fixed:VARIANT, schedule:8=small,20=dense. Can be repeated. (default: all)",
    ),
]
Target = Annotated[float, typer.Option("--target", help="Milliseconds from a request's arrival to its answer.")]
Scale = Annotated[float, typer.Option(help="Times the trace's rates.")]
Start = Annotated[int, typer.Option(help="Second of the trace to begin with.")]
Seconds = Annotated[int | None, typer.Option(help="Seconds of the trace.")]
Bandwidth = Annotated[
    Path | None,
    typer.Option("--bandwidth", help="A recorded link over which requests come: kbit/s a line, or a CSV with kbps."),
]
RequestKb = Annotated[float, typer.Option("--request-kb", help="Kilobytes that the link carries for each request.")]


def install(
    source: Annotated[str, typer.Argument(metavar="DIR", help="A portfolio folder, or an address: s3://bucket/NAME.")],
    into: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Where to bring the portfolio first, from an address or another folder."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a portfolio for a fleet: the variants alone that serve this device."),
    ] = None,
    cache: CacheDir = None,
    engine: EngineName = None,
    as_json: AsJson = False,
) -> None:
    """Bring the variants into the form that this device opens fastest; done by itself on first use otherwise.

    Each in the engine that was measured to be its best here, see prunit bench --engines. A portfolio at an address is
    brought here first, whole or not at all; an older one in that folder is replaced then. One in a folder is copied
    to another one, if a second folder is named. With --device what is brought or copied is that device's alone.
    """
    folder = _brought(source, into, device)
    from prunit.cli.progress import Bars
    from prunit.edge.install import Installed, place_of
    from prunit.edge.install import install as run
    from prunit.edge.portfolio import Portfolio
    from prunit.edge.routing import router
    from prunit.edge.served import of_variants, variants_for
    from prunit.edge.switching.opening import by_engine

    portfolio = Portfolio.read(folder)
    names = None if device is None else variants_for(portfolio, folder, device)
    place = place_of(folder, cache)
    here = router(place, engine)
    wanted = portfolio if names is None else of_variants(portfolio, names)
    if len(wanted.variants) < len(portfolio.variants):
        raise ConfigError(
            f"'{folder}' holds variants for other devices too, and all of them would be served: name a folder for"
            f" those of '{device}': prunit install {folder} DIR --device {device}"
        )
    engines, found, failed = by_engine(here, wanted), dict[str, Installed](), dict[str, str]()
    with Bars() as bars:
        for turn, (name, (runtime, variants)) in enumerate(engines.items()):

            def tell(variant: str, done: int, total: int, turn: int = turn) -> None:
                bars.tell(variant, "install", turn * total + done, len(engines) * total)

            try:
                found[name] = run(portfolio, folder, runtime=runtime, cache=cache, only=variants, on_variant=tell)
            except (MissingExtraError, UnknownNameError, DeviceError) as error:
                if len(engines) == 1:
                    raise
                failed |= dict.fromkeys(variants, str(error))
                continue
            failed |= {variant: why for variant, why in found[name].failed.items() if variant in variants}
    if not found:
        raise DeviceError(next(iter(failed.values()), f"the portfolio in '{folder}' has no variant"))
    if as_json:
        first, *others = (each.model_dump(mode="json") for each in found.values())
        typer.echo(json.dumps({**first, "others": others}, indent=2))
        return
    for note in filter(None, (*here.notes, here.unmeasured(wanted))):
        typer.echo(harmless(f"note: {note}"))
    if device is not None:
        typer.echo(harmless(f"for {device}: {', '.join(names or ())}"))
    for name, (_, variants) in engines.items():
        typer.echo(f"{sum(v not in failed for v in variants)} of {len(variants)} variants installed for {name}")
    for variant, reason in failed.items():
        typer.echo(harmless(f"{variant} stays as it is: {reason}"))
    typer.echo(harmless(f"in {place}"))


def _brought(source: str, into: Path | None, device: str | None) -> Path:
    """The folder of a portfolio, after all of it was brought there, or what the device needs."""
    from prunit.remote import is_address, shown

    if not is_address(source):
        return Path(source) if into is None else _copied(Path(source), into, device)
    if into is None:
        raise ConfigError(f"name the folder to bring it to: prunit install {shown(source)} DIR")
    from prunit.cli.progress import Bars
    from prunit.edge.publishing import fetch

    with Bars() as bars:
        fetch(
            source, into, device=device, on_file=lambda name, done, total: bars.tell("all", "fetch", done, total, name)
        )
    return into


def _copied(folder: Path, into: Path, device: str | None) -> Path:
    from prunit.edge.handing import copied_to
    from prunit.edge.portfolio import Portfolio
    from prunit.edge.served import variants_for

    portfolio = Portfolio.read(folder)
    copied_to(into, portfolio, folder, None if device is None else variants_for(portfolio, folder, device), device)
    return into


def simulate(
    folder: Folder,
    trace: Trace,
    policy: PolicyNames = None,
    target: Target = 50.0,
    scale: Scale = 1.0,
    start: Start = 0,
    seconds: Seconds = 86_400,
    bandwidth: Bandwidth = None,
    request_kb: RequestKb = 30.0,
    opening: Annotated[float, typer.Option(help="Milliseconds that opening a variant takes; 0: all are open.")] = 0.0,
    cache: CacheDir = None,
    engine: EngineName = None,
    as_json: AsJson = False,
) -> None:
    """What each policy would deliver on a trace of requests, from the measured times: a day in seconds."""
    from prunit.edge.install import place_of
    from prunit.edge.portfolio import Portfolio
    from prunit.edge.routing import router
    from prunit.edge.switching.policy import options_of
    from prunit.edge.switching.policy import policy as policy_of
    from prunit.edge.switching.simulate import Simulation, services_of

    here, portfolio = router(place_of(folder, cache), engine), Portfolio.read(folder)
    for note in filter(None, (*here.notes, here.unmeasured(portfolio))):
        typer.echo(harmless(f"note: {note}"), err=True)
    portfolio = here.overlaid(portfolio)
    options, services = options_of(portfolio), services_of(portfolio)
    names = policy or [*(f"fixed:{o.name}" for o in options), "accurate", "queue", "delivered", "saver"]
    policies = {name: policy_of(name) for name in names}
    sent_s = _sent(trace, scale, start, seconds)
    simulation = Simulation(options, services, target, open_ms=opening, link=_link(bandwidth, request_kb))
    found = {name: simulation.run(each, sent_s) for name, each in policies.items()}
    found["oracle"] = simulation.oracle(sent_s)
    if as_json:
        typer.echo(json.dumps({name: asdict(each) for name, each in found.items()}, indent=2))
        return
    from prunit.cli import show

    show.outcomes(found, target, portfolio.task.metric)


def replay(
    folder: Folder,
    trace: Trace,
    policy: Annotated[str, typer.Option("--policy", help="As for simulate.")] = "queue",
    target: Target = 50.0,
    scale: Scale = 1.0,
    start: Start = 0,
    seconds: Seconds = 30,
    threads: Threads = 1,
    bandwidth: Bandwidth = None,
    request_kb: RequestKb = 30.0,
    resident: Annotated[int | None, typer.Option(min=1, help="Variants that stay open at most. (default: all)")] = None,
    cache: CacheDir = None,
    engine: EngineName = None,
    as_json: AsJson = False,
) -> None:
    """Play a trace of requests in real time against the variants, and compare with what is simulated."""
    from prunit.edge.switching.policy import options_of
    from prunit.edge.switching.policy import policy as policy_of
    from prunit.edge.switching.replay import replay as run
    from prunit.edge.switching.simulate import Simulation, services_of
    from prunit.edge.switching.switch import Switcher

    chosen = policy_of(policy)
    with Switcher(folder, runtime=engine, threads=threads, resident=resident, cache=cache) as switcher:
        options, services = options_of(switcher.portfolio), services_of(switcher.portfolio)
        metric = switcher.portfolio.task.metric
        sent_s, link = _sent(trace, scale, start, seconds), _link(bandwidth, request_kb)
        switcher.preload()
        found = run(switcher, chosen, sent_s, options, target_ms=target, link=link)
    simulated = Simulation(options, services, target, link=link).run(chosen, sent_s)
    if as_json:
        told: dict[str, Any] = {"replayed": asdict(found), "simulated": asdict(simulated)}
        typer.echo(json.dumps(told, indent=2))
        return
    from prunit.cli import show

    show.outcomes({"replayed": found.outcome, "simulated": simulated}, target, metric)
    show.replayed(found)
    if found.lost:
        raise PortfolioError(f"{found.lost} of {len(sent_s)} requests got no answer: {found.switch_errors[:1]}")


def _sent(trace: Path, scale: float, start: int, seconds: int | None) -> Any:
    from prunit.edge.switching.traces import arrivals_of, rates_of

    if scale <= 0:
        raise ConfigError(f"--scale {scale:g}: it must be more than 0")
    rates = rates_of(trace)
    part = rates[start : None if seconds is None else start + seconds]
    if not len(part):
        raise ConfigError(f"--start {start}: the trace '{trace}' has {len(rates)} seconds")
    sent_s = arrivals_of(part * scale)
    if not len(sent_s):
        raise ConfigError(f"the trace '{trace}' holds no request in these {len(part)} seconds: raise --scale")
    return sent_s


def _link(bandwidth: Path | None, request_kb: float) -> Any:
    from prunit.edge.switching.link import Link
    from prunit.edge.switching.traces import bandwidth_of

    if bandwidth is None:
        return None
    if request_kb <= 0:
        raise ConfigError(f"--request-kb {request_kb:g}: it must be more than 0")
    return Link(bandwidth_of(bandwidth).tolist(), round(1000 * request_kb))
