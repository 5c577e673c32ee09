"""What commands have in common: their arguments and options, and the configuration and data set that these mean."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from prunit.errors import ConfigError

if TYPE_CHECKING:
    from prunit.batches import Dataset
    from prunit.edge.reading import Listing
    from prunit.recipe import BuildConfig
    from prunit.recipe.places.pieces import Executor

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A name of `prunit models`, timm:NAME, torchvision:NAME, FILE.py:FACTORY or PACKAGE:FACTORY."
        " (default: resnet20)",
    ),
]
DataName = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="digits, cifar10, cifar100, fashion-mnist, tiny-imagenet, a folder, FILE.py:FACTORY. (default: digits)",
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="What the model is for: classification, multilabel, regression, segmentation, detection, or"
        " FILE.py:FACTORY. (default: classification)",
    ),
]
SkipBroken = Annotated[bool, typer.Option("--skip-broken", help="Leave out images that cannot be used, each named.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where data sets lie. (default: $PRUNIT_DATA, else ./data)")
]
Download = Annotated[bool, typer.Option("--download", help="Fetch the data set if it is not there.")]
Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        help="The most a variant may cost: params=1/16, macs=20M, ram=64KB; faster=2x or latency=5ms, timed here, or"
        " latency=5ms@profile.json of a device; arena=64KB@tflm, cycles=1M@ethos-u55-128. One variant each."
        " (default: params=1/4 and params=1/16)",
    ),
]
RecipeName = Annotated[str | None, typer.Option("--recipe", help="A name of `prunit methods`. (default: reconvene)")]
ModeName = Annotated[
    str | None,
    typer.Option(
        "--mode",
        help="pa, fa, ma, la, ea: the recipe 'complexity' by shares of parameters, macs, memory, latency, energy.",
    ),
]
ScoreName = Annotated[str | None, typer.Option("--score", help="A name of `prunit methods`. (default: the recipe's)")]
RoundTo = Annotated[
    str | None,
    typer.Option(
        "--round-to",
        help="Layers that are cut keep a multiple of so many channels: 8, 16; 1 for models that are stored and never"
        " run. (default: auto, what the engine is fast with)",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Initial weights, data order, random scores. (default: 0)")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. (default: auto)")]
ImageSize = Annotated[int | None, typer.Option("--image-size", help="Bring images to this side in pixels.")]
Subset = Annotated[int | None, typer.Option(help="Train on N images, evenly from all classes.")]
Fleet = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A TOML file of devices: tables [[device]] with name and host.")
]
FleetFor = Annotated[
    Path | None,
    typer.Option(
        "--fleet",
        metavar="FILE",
        help="Devices with a budget each, a TOML file: the fewest variants that serve all, in place of --budget.",
    ),
]
Profiles = Annotated[
    Path | None,
    typer.Option(
        "--profiles", metavar="DIR", help="Their profiles, as probe-device --fleet writes them. (default: profiles)"
    ),
]
Slack = Annotated[
    float | None,
    typer.Option(
        "--slack",
        metavar="SHARE",
        help="How much less than a plan of its own a device of the fleet may get, 0 to 1. (default: 0.1)",
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the inference engine.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file with any settings.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting as a.b=c, for example train.lr=0.05. Can be repeated.")
]
Rule = Annotated[
    str | None,
    typer.Option(
        "--train",
        metavar="RULE",
        help="How long variants train: equal-time (as long as the dense model, measured here), equal-macs or"
        " equal-epochs. (default: equal-time)",
    ),
]
Time = Annotated[
    str | None, typer.Option("--time", help="Time for the whole build, as 90s, 30m or 2h: epochs follow from it.")
]
Begin = Annotated[
    str | None,
    typer.Option(
        "--start",
        metavar="POINT",
        help="What variants begin with: init (cut layers drawn anew) or trained (the dense variant's weights)."
        " (default: init; trained with --weights)",
    ),
]
TrainedWeights = Annotated[
    str | None,
    typer.Option("--weights", metavar="FILE", help="Trained weights of the model: a checkpoint of any tool."),
]
WeightsKey = Annotated[
    str | None, typer.Option("--weights-key", help="Which weights, where the file holds several that fit.")
]
DenseModel = Annotated[
    str | None,
    typer.Option(
        "--dense",
        metavar="WHAT",
        help="train the dense model, or keep it as it is. (default: keep where --weights fit, else train)",
    ),
]
FineTune = Annotated[
    int | None,
    typer.Option(
        "--fine-tune",
        metavar="EPOCHS",
        min=1,
        help="Epochs of variants that begin with trained weights. (default: by --train)",
    ),
]
Rounds = Annotated[
    int | None, typer.Option("--rounds", min=1, help="Cut a trained model in so many rounds, training after each.")
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar="LIST",
        help="Precisions that variants are exported in: int8,fp32 for example; bf16 too. Of a single variant:"
        " macs-1-4=int8. (default: fp32)",
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop", min=0, help="Points that int8 or bf16 may lose to float, else it is left out. (default: 0.5)"
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="PARTS",
        help="Microcontrollers and NPUs that variants are made for, besides those of budgets: tflm, ethos-u55-128, …",
    ),
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="One engine for all variants that are not made for another. (default: as prunit bench --engines measured)",
    ),
]
Work = Annotated[
    Path | None,
    typer.Option(
        "--work",
        help="Where to work for an address (--out s3://…), and go on with --resume. (default: prunit-builds/ADDRESS)",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        metavar="N",
        min=1,
        help="Train so many variants at the same time, in processes of this machine that share out its threads."
        " (default: 1; with --ray as many as fit)",
    ),
]
OnRayAt = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Train on Ray: local (this machine), auto (the cluster it belongs to), or HOST:PORT, whose nodes all see"
        " the folder.",
    ),
]
CpusPerTrial = Annotated[
    int | None,
    typer.Option("--cpus-per-trial", metavar="N", min=1, help="CPUs of a training on Ray, and threads. (default: 1)"),
]
GpusPerTrial = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-trial", metavar="N", min=0, help="GPUs of a training on Ray; 0.25: four share one. (default: 0)"
    ),
]
CacheDir = Annotated[
    Path | None, typer.Option("--cache", help="Where this device keeps what is its own, if not in DIR/.installed.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]


class Places(NamedTuple):
    """Where variants are trained, as options say it; None where they are not given."""

    jobs: int | None = None
    ray: str | None = None
    cpus: int | None = None
    gpus: float | None = None

    def opened(self) -> "int | Executor":
        """What `jobs` of a build is."""
        if self.ray is None:
            return self.jobs or 1
        from prunit.recipe import OnRay

        return OnRay(self.ray, jobs=self.jobs, cpus=self.cpus or 1, gpus=self.gpus or 0.0)


HERE: Final = Places()
"""One after the other, in this process."""


class Options(NamedTuple):
    """What is set by arguments and options, None where they are not given."""

    model: str | None
    data: str | None
    budgets: list[str] | None
    recipe: str | None
    mode: str | None
    score: str | None
    seed: int | None
    device: str | None
    image_size: int | None
    round_to: str | None
    subset: int | None = None
    epochs: int | None = None
    rule: str | None = None
    time: str | None = None
    point: str | None = None
    weights: str | None = None
    key: str | None = None
    dense: str | None = None
    rounds: int | None = None
    fine_tune: int | None = None
    task: str | None = None
    skip_broken: bool | None = None
    precision: list[str] | None = None
    max_drop: float | None = None
    targets: list[str] | None = None


def for_fleet(fleet: Path | None, profiles: Path | None, slack: float | None) -> dict[str, Any]:
    """The settings that these options of a fleet mean; raises what is wrong with its list."""
    if fleet is None:
        for option, value in (("--profiles", profiles), ("--slack", slack)):
            if value is not None:
                raise ConfigError(f"{option} {value} is of a fleet: say --fleet FILE, a list of devices with budgets")
        return {}
    from prunit.recipe.fleets.goals import goals_of

    goals = goals_of(fleet, profiles or Path("profiles"))
    return {"fleet.goals": goals} | ({} if slack is None else {"fleet.slack": slack})


def config_of(
    options: Options, file: Path | None, settings: list[str] | None, own: Mapping[str, Any] | None = None
) -> "BuildConfig":
    """The configuration of a file, with options and then settings on top."""
    from prunit.recipe import read_config

    if options.mode and options.recipe not in (None, "complexity"):
        raise ConfigError(f"--mode {options.mode} is of the recipe 'complexity', got --recipe {options.recipe}")
    if options.mode:
        options = options._replace(recipe="complexity")
    if options.time and options.epochs:
        raise ConfigError(f"--time {options.time} says how long to train, and --epochs {options.epochs} too: give one")
    sections = {
        "prune": ("recipe", "mode", "score", "round_to"),
        "train": ("epochs", "device"),
        "effort": ("rule", "time"),
        "start": ("point", "weights", "key", "dense", "rounds"),
    }
    names = {name: f"{section}.{name}" for section, those in sections.items() for name in those}
    names["fine_tune"] = "start.epochs"  # `epochs` is the option of the section above
    names["max_drop"] = "precision.max_drop"
    given: dict[str, Any] = {
        names.get(name, name): value for name, value in options._asdict().items() if value is not None and value != []
    }
    if "targets" in given:
        given["parts.targets"] = ",".join(given.pop("targets"))
    given |= _precisions(given.pop("precision", ()))
    return read_config(file, given | dict(own or {}), settings or ())


def _precisions(texts: list[str]) -> dict[str, Any]:
    """`int8,fp32` for all variants and `NAME=int8` for one, as settings."""
    for_all = [text for text in texts if "=" not in text]
    single = dict(text.rsplit("=", 1) for text in texts if "=" in text)
    given: dict[str, Any] = {"precision.wanted": ",".join(for_all)} if for_all else {}
    return given | ({"precision.by_variant": single} if single else {})


def dataset_of(
    config: "BuildConfig", data_dir: Path | None, download: bool, listing: "Listing | None" = None
) -> "Dataset":
    """The data set that a configuration names; `listing` is what was listed of its folder already.

    A device that is not there is refused before.
    """
    from prunit import zoo
    from prunit.recipe.source import task_of
    from prunit.train import device_named

    device_named(config.train.device)
    return zoo.data.load(
        config.data,
        data_dir=data_dir,
        download=download,
        subset=config.subset,
        image_size=config.image_size,
        task=task_of(config.task),
        skip_broken=config.skip_broken,
        listing=listing,
    )
