"""`prunit ladder` and `prunit shrink`: sparse models that become small ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from prunit.cli.checking import check_ladder, check_sent, check_shrink, check_writable, listed
from prunit.cli.options import (
    AsJson,
    ConfigFile,
    CpusPerTrial,
    DataDir,
    DataName,
    Device,
    Download,
    GpusPerTrial,
    ImageSize,
    Jobs,
    MaxDrop,
    Model,
    OnRayAt,
    Options,
    Places,
    Precisions,
    Seed,
    Settings,
    Subset,
    TaskName,
    Work,
    config_of,
    dataset_of,
)
from prunit.errors import ConfigError

Pad = Annotated[
    str | None,
    typer.Option(
        "--pad",
        help="auto: channels that do nothing stay where ONNX Runtime is faster with them, timed here, with the same"
        " outputs; off; or multiples of so many channels. (default: auto; of shrink without --export off)",
    ),
]


def ladder(
    model: Model = None,
    data: DataName = None,
    task: TaskName = None,
    density: Annotated[
        list[str] | None,
        typer.Option(
            "--density", help="Share of the weights that stays, one variant each. (default: 1/4, 1/16 and 1/64)"
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="imp (iterative magnitude pruning with rewinding), or a score. (default: imp)"),
    ] = None,
    out: Annotated[str, typer.Option(help="Folder of the portfolio, or an address: s3://bucket/NAME.")] = "portfolio",
    work: Work = None,
    data_dir: DataDir = None,
    download: Download = False,
    pad: Pad = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each training. (default: 30)")] = None,
    seed: Seed = None,
    device: Device = None,
    subset: Subset = None,
    image_size: ImageSize = None,
    precision: Precisions = None,
    max_drop: MaxDrop = None,
    jobs: Jobs = None,
    ray: OnRayAt = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    config: ConfigFile = None,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a ladder that was stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train sparse models, remove their zeros, export and measure: write a portfolio, the dense model included."""
    options = Options(*(model, data, None, None, None, None, seed, device, image_size, None, subset, epochs), task=task)
    options = options._replace(precision=precision, max_drop=max_drop)
    own = {"sparse.densities": tuple(density or ()), "sparse.method": method, "sparse.pad": pad}
    chosen = config_of(options, config, settings, {name: value for name, value in own.items() if value})
    places = Places(jobs, ray, cpus_per_trial, gpus_per_trial)
    from prunit.recipe.outs import Out

    into = Out.of(out, work)
    check_ladder(chosen, into, resume=resume, places=places)
    listing = listed(chosen, data_dir, download)
    from prunit.cli import sending
    from prunit.cli.progress import Bars

    with Bars() as bars:
        bars.wait("loading PyTorch")
        from prunit.recipe import ladder as run

        bars.wait(f"reading {chosen.data}")
        dataset = dataset_of(chosen, data_dir, download, listing)
        portfolio = run(
            *(chosen.model, dataset, out), config=chosen, resume=resume, on_step=bars, jobs=places.opened(), work=work
        )
    sending.result(portfolio, into.folder, into.shown_address, as_json=as_json)


def shrink(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for build.")],
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="Weights of the dense shapes with zeros: .safetensors, .pt, .ckpt."),
    ],
    out: Annotated[
        str, typer.Option(help="The file to write, or its address: s3://bucket/small.safetensors.")
    ] = "small.safetensors",
    key: Annotated[
        str | None,
        typer.Option("--weights-key", help="Which weights, where the checkpoint has several: state_dict_ema, student."),
    ] = None,
    shape: Annotated[str, typer.Option("--input", help="Image shape C×H×W where no data is given.")] = "3x32x32",
    classes: Annotated[int, typer.Option(help="Classes where no data is given.")] = 10,
    tolerance: Annotated[
        float, typer.Option(help="Filters go too whose weights are up to this share of their layer's largest one.")
    ] = 0.0,
    export: Annotated[bool, typer.Option("--export", help="Also write an .onnx file beside it.")] = False,
    pad: Pad = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Measure the accuracy before and after on this data set.")
    ] = None,
    data_dir: DataDir = None,
    download: Download = False,
    image_size: ImageSize = None,
    as_json: AsJson = False,
) -> None:
    """Remove the zeros of a sparse model: a smaller one with the same outputs, constants folded in."""
    if not 0 <= tolerance < 1:
        raise ConfigError(f"--tolerance {tolerance:g}: it must be at least 0 and below 1")
    from prunit.recipe.outs import OutFile

    into = OutFile.of(out)
    if into.file.suffix != ".safetensors":
        example = into.file.with_suffix(".safetensors").name
        raise ConfigError(f"--out {into.told(into.file.name)}: name a .safetensors file, for example {example}")
    if not into.address:
        check_writable(into.file, "small.safetensors")
    options = Options(*(model, data, None, None, None, None, None, None, image_size, None))
    # Widths matter to the engine: without a file for it nothing is timed.
    own = {"sparse.pad": pad or ("auto" if export else "off")}
    chosen = config_of(options, None, None, own)
    check_shrink(chosen, checkpoint, shape=None if data else (shape, classes))
    check_sent(into)
    listing = listed(chosen, data_dir, download) if data else None
    from prunit.cli import show
    from prunit.cli.progress import Bars

    with Bars() as bars, into.written() as file:
        bars.wait("loading PyTorch")
        from prunit.cli.shrinking import shrunk

        dataset = dataset_of(chosen, data_dir, download, listing) if data else None
        found = shrunk(
            *(model, checkpoint, file, dataset, (shape, classes)),
            key=key,
            tolerance=tolerance,
            export=export,
            pad=chosen.sparse.pad,
            bars=bars,
        )
    found = replace(found, files=tuple(map(into.told, found.files)))
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2))
    else:
        show.shrunk(found)
