"""What a build can be told, with the defaults of a user who says nothing."""

import difflib
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prunit.edge import runtimes
from prunit.edge.precision import Precision
from prunit.errors import ConfigError, UnknownNameError, unknown
from prunit.recipe.written import Budgets, Duration, Names, PadTo, Parts, Precisions, RoundTo, Seed
from prunit.shown import Shown
from prunit.train import TrainConfig
from prunit.train.config import Positive, meaning


class _Section(Shown, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class PruneConfig(_Section):
    """How a plan is made."""

    recipe: str = "reconvene"
    """Name of a recipe: see `prunit methods`."""
    score: str | None = None
    """Name of a score; None is the recipe's own (SynFlow for reconvene)."""
    evaluator: Literal["emptied", "density", "score", "none"] = "none"
    """Reading of Reconvene's Pruning Sensitivity Evaluator; see docs/cards/reconvene.md."""
    tau: float | None = Field(default=None, ge=0)
    """Sensitivity above which a layer stays whole, for the readings 'density' and 'score'; None starts at 1 and 0.5."""
    rectifier: Literal["auto", "reinit", "own", "rescale", "none", "all"] = "auto"
    """Reading of Reconvene's Resilient Layer Rectifier; auto: reinit for prunit's own networks, own for all others."""
    residual: Literal["auto", "keep", "prune"] = "auto"
    """Residual streams: never narrowed (keep), like any other layer (prune), or only where a budget is tight (auto;
    for another task than classification that is prune)."""
    rounds: int | None = Field(default=None, ge=1)
    """Rounds of an iterative score; None is the method's own number (100 for SynFlow)."""
    mode: Literal["pa", "fa", "ma", "la", "ea"] = "pa"
    """Which share decides, for the recipe 'complexity': of parameters, multiply-adds, memory, latency or energy."""
    profile: str = ""
    """File of the device for the modes 'la' and 'ea', as `prunit probe-device` writes it; '' is that of the budget."""
    draw: Literal["expected", "sampled"] = "expected"
    """Channels go at the rate of these shares, or are drawn one at a time as in the paper; of 'complexity'."""
    shares: Literal["static", "recomputed"] = "static"
    """Shares of the dense network, or of what is left as channels go; of 'complexity'."""
    memory: Literal["activations", "training", "all"] = "activations"
    """Which memory the mode 'ma' means; 'all' is that of weights and activations."""
    memory_batch: int = Field(default=1, ge=1)
    """Images in the batch for which the mode 'ma' counts memory."""
    min_share: float | None = Field(default=None, ge=0, le=1)
    """Share of its channels that every layer keeps at least; None is the recipe's own (0.02; complexity 0.1)."""
    min_width: int | None = Field(default=None, ge=1)
    """Channels that every layer keeps at least; None is the recipe's own (1; complexity 4)."""
    round_to: RoundTo = "auto"
    """Layers that are cut keep a multiple of so many output channels; 'auto' is what `engine` likes at each layer."""
    engine: str = runtimes.DEFAULT
    """The engine that will run the models, for `round_to=auto` and timing: one of `prunit.edge.runtimes.widths`."""
    measure: bool | None = None
    """Of roundings that meet a budget take the fastest, timed here, that costs no accuracy; None: only `build` does."""
    limits: Mapping[str, tuple[float, ...]] = {}
    """The least and the most that modules with names like these keep: shares up to 1, above that channels."""
    keep_first: bool = False
    """All channels stay that the first layer makes."""
    keep_last: bool = False
    """All channels stay that the last hidden layer makes."""
    pin: Names = ()
    """Name patterns of modules whose output channels all stay."""
    per_class: int = Field(default=10, ge=1)
    """Images per class that a score which needs data sees."""
    seed: Seed = 0
    """Draws of random scores and of the rectifier."""


class SparseConfig(_Section):
    """How `ladder` trains sparse models; no effect on `build`."""

    method: str = "imp"
    """`imp`, or the name of a score: then its mask at initialisation is trained, for each density anew."""
    densities: Budgets = ("1/4", "1/16", "1/64")
    """Shares of the weights that stay, one variant each."""
    fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the remaining weights that goes with each level of `imp`."""
    rewind: int | None = Field(default=None, ge=0)
    """Epochs after which weights are kept, to start each level of `imp` from; None: 3 % of the epochs, at least 1."""
    tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Filters go too whose largest weight is at most this share of their layer's largest; above 0 outputs change."""
    pad: PadTo = "auto"
    """Channels that do nothing stay where ONNX Runtime is faster with them, timed here; off; or multiples of it."""


class StartConfig(_Section):
    """What variants begin with: the weights of the model as it is, or those of a trained dense model."""

    point: Literal["auto", "init", "trained"] = "auto"
    """`init`: the model's own, cut layers drawn anew; `trained`: those of the dense variant. auto: trained if given."""
    weights: str = ""
    """File of trained weights for the model, in any of the forms that `prunit shrink` reads; '' is none."""
    key: str | None = None
    """Which weights of that file, where it holds several that fit: as the error lists them."""
    dense: Literal["auto", "train", "keep"] = "auto"
    """Train the dense model (further), or keep it as it is; auto: keep where `weights` fit with their classes."""
    score: str | None = None
    """By which score of the trained model channels stay; None is that of `prune`."""
    lr: Positive | None = None
    """Highest learning rate of variants that begin with trained weights; None is that of `train`, or as much lower as
    they are trained shorter than the dense model."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the training images of each variant that begins with trained weights; None is by `effort`."""
    rounds: int = Field(default=1, ge=1, le=20)
    """In so many rounds a trained model is cut down, with training after each: half of it after the last."""
    recalibrate: bool = False
    """Estimate the statistics of batch norms on training images before a variant that begins trained is trained."""


class EffortConfig(_Section):
    """How long variants are trained."""

    rule: Literal["equal-time", "equal-macs", "equal-epochs"] = "equal-time"
    """A variant's epochs: as many as the dense model's, or as many as cost its macs, or its time on this machine."""
    time: Duration = None
    """Time for the whole build, as 90s, 30m or 2h: epochs follow from it, train.epochs plays no part."""


class PrecisionConfig(_Section):
    """In which precisions variants are exported, and what each may lose."""

    wanted: Precisions = ("fp32",)
    """Of all variants: fp32, int8, bf16. Without fp32 a float one goes where one of fewer bits stays, but the dense."""
    by_variant: Mapping[str, Precisions] = {}
    """Those of single variants, by the variant's name: {"macs-1-4": ["int8", "fp32"]}."""
    images: int = Field(default=512, ge=1)
    """Training images that ranges of activations are taken from; as many others choose among ways to quantise."""
    max_drop: float = Field(default=0.5, ge=0)
    """Points of the main metric (0.5 is half a per cent of the images) that a precision may lose on the test images."""
    timed: bool = True
    """Times measured here say which layers stay in float, beside how far outputs are off; else no clock decides."""
    tune: int = Field(default=1, ge=0)
    """Epochs of quantisation-aware training where int8 loses more than that; 0 is none."""

    def of(self, variant: str) -> tuple[Precision, ...]:
        """The precisions of a variant."""
        return self.by_variant.get(variant, self.wanted)

    def check_variants(self, names: Collection[str]) -> None:
        """`UnknownNameError` for a variant in `by_variant` that is not made."""
        for name in self.by_variant:
            if name not in names:
                raise unknown("variant", name, names, "precision.by_variant names them.")


class PartsConfig(_Section):
    """Microcontrollers and NPUs that variants are made for, besides those that budgets name."""

    targets: Parts = ()
    """Of all variants: tflm, ethos-u55-128 and others, see `prunit.mcu.parts`."""
    images: int = Field(default=512, ge=1)
    """Training images that ranges of activations are taken from; as many others choose among ways to find them."""
    max_drop: float = Field(default=0.5, ge=0)
    """Points of the main metric that integers may lose on the test images before the weights are trained for them."""
    tune: int = Field(default=1, ge=0)
    """Epochs of quantisation-aware training where int8 loses more than that; 0 is none."""


class FleetConfig(_Section):
    """Devices that one build is for, in the place of budgets."""

    goals: Mapping[str, str] = {}
    """What a model may cost on each device, by its name: {"pi": "latency=8ms@profiles/pi.json,weights=500KB"}."""
    slack: float = Field(default=0.1, ge=0, lt=1)
    """How much less than the plan made for it alone a device may get so that fewer variants serve all: of its
    multiply-adds and of its parameters, as a share."""


class ProbeConfig(_Section):
    """How latency is measured."""

    threads: int = Field(default=1, ge=1)
    """Threads of the inference engine."""
    batch: int = Field(default=32, ge=1)
    """The batch size measured besides 1."""
    seconds: float = Field(default=5.0, gt=0)
    """About how long each batch size is measured, all variants together."""


class BuildConfig(_Section):
    """A whole build."""

    model: str = "resnet20"
    """Zoo name, `timm:NAME`, `torchvision:NAME`, `path/to/file.py:factory` or `package.module:factory`."""
    data: str = "digits"
    """Data set name, image folder, or a factory as for the model."""
    task: str = "classification"
    """What the model is for: classification, or another name of `prunit.tasks`, or `path/to/file.py:factory`."""
    skip_broken: bool = False
    """Leave out images that cannot be used, each named, in place of stopping at the first."""
    budgets: Budgets = ("params=1/4", "params=1/16")
    """One variant each, besides the dense one."""
    subset: int | None = Field(default=None, ge=1)
    """Train on this many images, drawn evenly from the classes."""
    image_size: int | None = Field(default=None, ge=1)
    """Side in pixels to which images are brought; None is the data set's own."""
    seed: Seed = 0
    """Initial weights; and everything else that is drawn, unless prune.seed or train.seed says otherwise."""
    by_variant: Mapping[str, Mapping[str, Any]] = {}
    """Settings of `prune` for single variants, by the variant's name: {"params-1-16": {"recipe": "uniform"}}."""
    prune: PruneConfig = PruneConfig()
    train: TrainConfig = TrainConfig()
    start: StartConfig = StartConfig()
    effort: EffortConfig = EffortConfig()
    sparse: SparseConfig = SparseConfig()
    precision: PrecisionConfig = PrecisionConfig()
    parts: PartsConfig = PartsConfig()
    fleet: FleetConfig = FleetConfig()
    probe: ProbeConfig = ProbeConfig()

    def prune_of(self, variant: str) -> PruneConfig:
        """The settings of `prune` for a variant; `ConfigError` or `UnknownNameError` for its own that do not fit."""
        own = self.by_variant.get(variant, {})
        return validated({"prune": {**self.prune.model_dump(), **own}}).prune if own else self.prune

    @model_validator(mode="before")
    @classmethod
    def _nothing_as_meant(cls, data: Any) -> Any:
        return _with_nones(cls, data) if isinstance(data, Mapping) else data

    @model_validator(mode="before")
    @classmethod
    def _one_seed(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "seed" not in data:
            return data
        sections = {name: data.get(name, {}) for name in ("prune", "train")}
        seeded = {name: {"seed": data["seed"], **s} for name, s in sections.items() if isinstance(s, Mapping)}
        return {**data, **seeded}


def read_config(file: Path | None, overrides: Mapping[str, Any], settings: Sequence[str] = ()) -> BuildConfig:
    """The configuration in a TOML file, with `overrides` (dotted names) and then `a.b=c` settings on top.

    Raises `ConfigError` for a value that does not fit and `UnknownNameError` for a key that does not exist.
    """
    data: dict[str, Any] = {}
    if file is not None:
        try:
            data = tomllib.loads(file.read_text())
        except OSError as error:
            raise ConfigError(f"cannot read the configuration '{file}': {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"'{file}' is not TOML: {error}") from error
    for name, value in overrides.items():
        _put(data, name, value)
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: write it as section.name=value, for example train.lr=0.05")
        _put(data, name.strip(), _value(value.strip()))
    return validated(data)


def validated(data: Mapping[str, Any]) -> BuildConfig:
    """The configuration in nested plain data, every default filled in; one `seed` serves all sections."""
    try:
        return BuildConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise _unknown_setting(name) from error
        inside = [n for n in setting_names() if n.startswith(f"{name}.")]
        if inside:
            raise ConfigError(f"setting {name}={first['input']!r}: it is a section with {', '.join(inside)}") from error
        reason = first["msg"][0].lower() + first["msg"][1:]
        raise ConfigError(f"setting {name}={first['input']!r}: {reason}") from error


def _unknown_setting(name: str) -> UnknownNameError:
    """Names the nearest setting and those of the section that was meant, or the section that has one so called."""
    section, _, last = name.rpartition(".")
    names = setting_names()
    elsewhere = [n for n in names if n.rpartition(".")[2] == last]
    if elsewhere:
        other = f"; or {meaning(last)}" if meaning(last) else ""
        return UnknownNameError(f"unknown setting '{name}': write {' or '.join(elsewhere)}{other}")
    inside = [n for n in names if n.rpartition(".")[0] == section]
    if not section:
        inside += sorted({n.split(".")[0] for n in names if "." in n})
    # Of the last part alone: what is before it makes names of one section look alike.
    parts = [n.rpartition(".")[2] for n in (*inside, *names)]
    found = difflib.get_close_matches(last.lower(), parts, n=1, cutoff=0.6)
    near = [*inside, *names][parts.index(found[0])] if found else ""
    return unknown("setting", name, inside, meant=meaning(last), near=near)


def setting_names() -> list[str]:
    """Dotted names of all settings."""
    return _names(BuildConfig)


def _names(section: type[BaseModel], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, info in section.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += _names(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


_NOTHING: Final = ("none", "null")


def _with_nones(section: type[BaseModel], data: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, where 'none' or 'null' is None if the setting may be, and None is 'none' if that is a choice.

    TOML has no word for nothing, and on a command line 'none' may be either.
    """
    result = dict(data)
    for name, value in data.items():
        info = section.model_fields.get(name)
        kind = info.annotation if info else None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            result[name] = _with_nones(kind, value) if isinstance(value, Mapping) else value
        elif value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING):
            choices = get_args(kind)
            if "none" in choices:
                result[name] = "none"
            elif type(None) in choices:
                result[name] = None
    return result


def _put(data: dict[str, Any], name: str, value: Any) -> None:
    sections, last = _way(name)
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise ConfigError(f"setting {name}: '{section}' is a value, not a section")
    data[last] = value


def _way(name: str) -> tuple[list[str], str]:
    """The sections and the last part of a dotted name; a variant's own name may have dots in it (`params-0.25`)."""
    *sections, last = name.split(".")
    if sections[:1] == ["by_variant"] and len(sections) > 1:
        sections = ["by_variant", ".".join(sections[1:]).strip("'\"")]
    return sections, last


def _value(text: str) -> Any:
    """A value as TOML would read it, or the text itself."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text
