"""`prunit probe-device --fleet`: a line for each device, as soon as it is done. `--fleet` of plan and build: who is
served by what."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from prunit.cli.checking import check_fleet_plan, listed
from prunit.cli.options import dataset_of
from prunit.cli.safe import harmless, safe
from prunit.edge.measuring.fleet import Probed, probe_fleet, read_fleet
from prunit.edge.measuring.profile import LayerList
from prunit.edge.served import Fleet
from prunit.errors import ConfigError, FileError

if TYPE_CHECKING:
    from rich.console import Console

    from prunit.recipe import BuildConfig


def probe_all(files: Sequence[Path], fleet: Path, folder: Path, threads: int, *, fresh: bool, as_json: bool) -> int:
    """The exit status: 0 if there is a profile of every device in the folder now."""
    if threads != 1:
        raise ConfigError(f"--threads {threads} with --fleet: set threads of each device in '{fleet}'")
    if folder.is_file():
        raise FileError(f"--out {folder}: it is a file; of a fleet it is the folder of the profiles")
    devices = read_fleet(fleet)
    layers = LayerList.read_all(files)
    typer.echo(
        harmless(
            f"{sum(not device.like for device in devices)} devices measure {len(layers.layers)} layers, into {folder}"
        ),
        err=True,
    )
    found = probe_fleet(devices, layers, folder, fresh=fresh, on_device=lambda one: typer.echo(_line(one), err=True))
    if as_json:
        told = [{"name": f.device.name, "file": str(f.file), "new": f.new, "problem": f.problem} for f in found]
        typer.echo(json.dumps(told, indent=1))
    failed = [each for each in found if each.problem]
    if len(failed) < len(found):
        first = next(each.file for each in found if not each.problem)
        typer.echo(harmless(f"next: prunit plan MODEL --budget latency=1/2@{first}"), err=True)
    return 1 if failed else 0


def _line(probed: Probed) -> str:
    if probed.problem:
        return harmless(f"{probed.device.name}: {probed.problem}")
    return harmless(f"{probed.device.name}: {probed.file}" + ("" if probed.new else " (was there already)"))


def plan_all(
    config: "BuildConfig",
    data: str | None,
    data_dir: Path | None,
    download: bool,
    shape: tuple[str, int],
    out: Path | None,
    *,
    measure: bool,
    as_json: bool,
) -> int:
    """Show which plans would serve the fleet of a configuration; the exit status is 1 if a device is left out.

    With `out` the plans are written there, NAME.plan.json each, and the table as fleet.json.
    """
    if measure:
        raise ConfigError("--measure times plans on this machine; those of a fleet go by the profiles of its devices")
    check_fleet_plan(config, shape=None if data else shape)
    if out is not None and out.exists() and not out.is_dir():
        raise FileError(f"--out {out}: it is a file; for a fleet it is the folder of the plans")
    listing = listed(config, data_dir, download) if data else None
    from prunit.cli import show
    from prunit.cli.progress import Bars
    from prunit.files import write_atomically
    from prunit.later import loading

    with Bars() as bars:
        bars.wait("loading PyTorch")
        with loading():
            from prunit.cli.planning import decide_fleet
        if data:
            bars.wait(f"reading {config.data}")
        dataset = dataset_of(config, data_dir, download, listing) if data else None
        planned = decide_fleet(config, dataset, shape=shape, bars=bars)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"--out {out}: {error.strerror or error}; choose another folder") from error
        for name, decision in planned.decisions.items():
            write_atomically(out / f"{name}.plan.json", decision.plan.to_json())
        planned.fleet.write(out)
    if as_json:
        typer.echo(planned.fleet.model_dump_json(indent=2))
    else:
        console = show.console()
        table(planned.fleet, console)
        console.print(f"{planned.seconds:.2f} s" + (f"; written to {safe(str(out))}" if out else ""), soft_wrap=True)
    return 1 if planned.fleet.unserved else 0


def shown(folder: Path, out: "Console", *, told: bool = False) -> None:
    """The table of a portfolio that was built for a fleet; nothing of another one. See `table`."""
    from prunit.report.served import fleet_of

    fleet = fleet_of(folder)
    if fleet is not None:
        table(fleet, out, told=told)


def table(fleet: Fleet, out: "Console", *, told: bool = False) -> None:
    """The devices, and the variant that serves each; why one has none, unless that was `told` before."""
    from rich import box
    from rich.table import Table

    from prunit.report.served import HEADS, headline_of, notes_of, rows_of

    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for n, head in enumerate(HEADS):
        found.add_column(head, justify="left" if n < 3 else "right", overflow="fold")
    for row in rows_of(fleet):
        found.add_row(*map(safe, row))
    out.print(found)
    first, *unserved = notes_of(fleet)
    out.print(f"{safe(headline_of(fleet))}. [dim]{safe(first)}[/]")
    for note in () if told else unserved:
        out.print(f"[yellow]{safe(note)}[/]", soft_wrap=True)


def served_all(folder: Path) -> int:
    """The exit status of a build for a fleet: 1 if no variant serves one of its devices."""
    fleet = Fleet.read(folder)
    return 1 if fleet is None or fleet.unserved else 0
