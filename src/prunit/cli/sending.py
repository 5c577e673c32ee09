"""What a build, a sweep or a ladder ends with, and where its results were sent."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from prunit.cli import show
from prunit.cli.safe import safe

if TYPE_CHECKING:
    from prunit.edge.portfolio import Portfolio


def result(
    found: "Portfolio", folder: Path, address: str, *, as_json: bool, more: dict[str, Any] | None = None
) -> None:
    """The summary for people, or all of it as JSON, with `more` in front; `address` is '' where nothing was sent."""
    if as_json:
        sent = {"address": address} if address else {}
        typer.echo(json.dumps({**(more or {}), **show.portfolio_json(found, folder), **sent}, indent=2))
        return
    show.portfolio(found, folder)
    if address:
        show.console().print(
            f"sent to   {safe(address)}; prunit install {safe(address)} DIR brings it to a device", soft_wrap=True
        )
