"""`prunit layers` and `prunit probe-device`: what a device has to measure, and the measuring."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunit.cli.checking import built_for, check_writable
from prunit.cli.options import AsJson, Fleet, Threads
from prunit.cli.safe import harmless

if TYPE_CHECKING:
    from prunit.edge.measuring.profile import DeviceProfile, LayerList


def layers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for build.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("layers.json"),
    shape: Annotated[str, typer.Option("--input", help="Image shape C×H×W.")] = "3x32x32",
    classes: Annotated[int, typer.Option(help="Classes.")] = 10,
) -> None:
    """Write down a model's layers, for a device to measure with probe-device."""
    check_writable(out, "layers.json")
    built_for(model, shape, classes)
    found = layers_of_model(model, shape, classes)
    found.write(out)
    typer.echo(harmless(f"{len(found.layers)} layers of {found.model}: {out}"))
    typer.echo(harmless(f"next, on the device: prunit probe-device {out}"))


def probe_device(
    files: Annotated[list[Path], typer.Argument(metavar="LAYERS…", help="Files that prunit layers wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="The profile to write; of a fleet the folder.", show_default="profile.json")
    ] = None,
    threads: Threads = 1,
    fleet: Fleet = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Of a fleet: measure again what is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure what layers take on this device at many widths, for budgets such as latency=5ms@profile.json.

    Needs no torch. Takes some seconds for each kind of layer. With --fleet the devices of a list measure, each reached
    by ssh, all at the same time; PROFILES/NAME.json is what comes of each.
    """
    if fleet is not None:
        from prunit.cli.fleets import probe_all

        raise typer.Exit(probe_all(files, fleet, out or Path("profiles"), threads, fresh=fresh, as_json=as_json))
    out = out or Path("profile.json")
    check_writable(out, "profile.json")
    from prunit.cli import show

    profile = probe(files, out, threads)
    if as_json:
        typer.echo(profile.model_dump_json(indent=1))
    else:
        show.profile(profile, out)


def layers_of_model(name: str, shape: str, classes: int) -> "LayerList":
    """The layers of a model by name, for images of this shape (C×H×W)."""
    from prunit.cli.progress import Bars

    with Bars() as bars:
        bars.wait("loading PyTorch")
        from prunit.cli.planning import model_and_image
        from prunit.edge.measuring.profile import LayerList
        from prunit.graph import trace
        from prunit.prices.meters import layers_of

        model, image = model_and_image(name, shape, classes)
        bars.tell(name, "check", 0, 0)
        return LayerList(model=f"{name}, {shape}", layers=tuple(layers_of(trace(model, image))))


def probe(files: Sequence[Path], out: Path, threads: int) -> "DeviceProfile":
    """The profile of this device for the layers in these files; it is written to `out`."""
    from prunit.cli.progress import Bars
    from prunit.edge.measuring.probe_layers import LayerProbe, probe_layers
    from prunit.edge.measuring.profile import LayerList

    shapes = LayerList.read_all(files).layers
    with Bars() as bars:
        profile = probe_layers(
            shapes, LayerProbe(threads=threads), on_point=lambda done, total: bars.tell("device", "probe", done, total)
        )
    profile.write(out)
    return profile
