"""`prunit serve` and `prunit top`: the server, and what it is doing. Neither needs torch."""

import json
import time
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from prunit.cli.options import EngineName, Threads
from prunit.errors import ConfigError, DeviceError

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A portfolio folder, with latencies measured here.")]


def serve(
    folder: Folder,
    host: Annotated[str, typer.Option(help="Address; the default is for this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    slo_ms: Annotated[float, typer.Option("--slo-ms", help="Milliseconds from a request to its answer.")] = 20.0,
    policy: Annotated[str, typer.Option(help="As for simulate.")] = "queue",
    memory: Annotated[str | None, typer.Option(help="What open variants may take: 200MB. (default: all fit)")] = None,
    threads: Threads = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port and the mapped weights.")] = 1,
    cpus: Annotated[str | None, typer.Option(help="CPUs to run on: 0,2-3. (default: all)")] = None,
    queue: Annotated[int, typer.Option(min=1, help="Requests that wait at most; more get 429.")] = 256,
    max_batch: Annotated[int, typer.Option(min=1, help="Images that are answered together at most.")] = 16,
    max_body: Annotated[str, typer.Option(help="Largest body of a request.")] = "16MB",
    max_connections: Annotated[int, typer.Option(min=1, help="Connections at once; more get 503.")] = 512,
    read_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a request to come.")] = 10.0,
    cache: Annotated[Path | None, typer.Option(help="Where variants are installed, if not in DIR.")] = None,
    engine: EngineName = None,
    token_file: Annotated[Path | None, typer.Option(help="Holds the token for changes; else $PRUNIT_TOKEN.")] = None,
    token_for_all: Annotated[bool, typer.Option("--token-for-all", help="Inference needs the token as well.")] = False,
    access_log: Annotated[bool, typer.Option("--access-log", help="A line for every request.")] = False,
) -> None:
    """Serve a portfolio over HTTP (Open Inference Protocol), switching by itself; the page is at /."""
    from prunit.edge.serve.settings import Settings, cpus_of_text, read_token
    from prunit.units import bytes_of_text

    settings = Settings(
        folder=folder,
        host=host,
        port=port,
        target_ms=slo_ms,
        policy=policy,
        memory_bytes=bytes_of_text(memory) if memory else None,
        threads=threads,
        workers=workers,
        cpus=cpus_of_text(cpus) if cpus else (),
        queue=queue,
        max_batch=max_batch,
        max_body_bytes=bytes_of_text(max_body),
        max_connections=max_connections,
        read_timeout_s=read_timeout,
        cache=cache,
        engine=engine,
        token=read_token(token_file),
        token_for_all=token_for_all,
        access_log=access_log,
    )
    from prunit.edge.portfolio import Portfolio

    Portfolio.read(folder)  # what is wrong with it is told before the server is imported, which takes longer
    from prunit.edge.serve.server import serve as run

    run(settings)


def top(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of a server.")] = "http://127.0.0.1:8000",
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    token_file: Annotated[Path | None, typer.Option(help="Holds the server's token; else $PRUNIT_TOKEN.")] = None,
) -> None:
    """Watch a server in the terminal: the active variant, requests, latencies, switches. Ctrl-C ends it."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"'{url}' is no address of a server: http://127.0.0.1:8000")
    from prunit.edge.serve.settings import read_token

    token = read_token(token_file)
    from rich.live import Live

    from prunit.cli import show
    from prunit.cli.watching import screen

    first, console = screen(_status(url, token)), show.console()
    if once:
        console.print(first)
        return
    with Live(first, console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            time.sleep(every)
            live.update(screen(_status(url, token)), refresh=True)


def _status(url: str, token: str | None) -> dict[str, Any]:
    import urllib.error  # with what it brings, as much as the rest of the command line
    import urllib.request

    request = urllib.request.Request(url.rstrip("/") + "/v1/status")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            found: Any = json.load(answer)
    except urllib.error.HTTPError as error:
        raise DeviceError(
            f"the server at {url} answers {error.code}: {error.read(300).decode(errors='replace')}"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DeviceError(f"no server answers at {url} ({reason}); `prunit serve DIR` starts one") from None
    if not isinstance(found, dict) or "variants" not in found:
        raise DeviceError(f"what answers at {url} is no prunit server")
    return cast("dict[str, Any]", found)
