"""`prunit probe-device --fleet`: a line for each device, as soon as it is done."""

import json
from collections.abc import Sequence
from pathlib import Path

import typer

from prunit.cli.safe import harmless
from prunit.edge.measuring.fleet import Probed, probe_fleet, read_fleet
from prunit.edge.measuring.profile import LayerList
from prunit.errors import ConfigError, FileError


def probe_all(files: Sequence[Path], fleet: Path, folder: Path, threads: int, *, fresh: bool, as_json: bool) -> int:
    """The exit status: 0 if there is a profile of every device in the folder now."""
    if threads != 1:
        raise ConfigError(f"--threads {threads} with --fleet: set threads of each device in '{fleet}'")
    if folder.is_file():
        raise FileError(f"--out {folder}: it is a file; of a fleet it is the folder of the profiles")
    devices = read_fleet(fleet)
    layers = LayerList.read_all(files)
    typer.echo(harmless(f"{len(devices)} devices measure {len(layers.layers)} layers, into {folder}"), err=True)
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
