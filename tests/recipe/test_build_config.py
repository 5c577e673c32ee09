"""Settings of a build: file, options and --set; what is wrong is named in one line, with the nearest name."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunit.cli import show
from prunit.errors import ConfigError, PrunitError, UnknownNameError
from prunit.recipe import BuildConfig, read_config
from prunit.recipe.config import setting_names, validated

TOML = """
model = "vgg16"
budgets = ["params=1/8"]
seed = 4

[train]
epochs = 7
lr = 0.05

[prune]
evaluator = "density"
pin = "stem*"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "build.toml"
    path.write_text(TOML)
    return path


def test_file_is_read_and_the_rest_keeps_its_default(file: Path) -> None:
    config = read_config(file, {})
    assert (config.model, config.data, config.budgets) == ("vgg16", "digits", ("params=1/8",))
    assert (config.train.epochs, config.train.lr, config.train.momentum) == (7, 0.05, 0.9)
    assert (config.prune.evaluator, config.prune.pin, config.prune.rectifier) == ("density", ("stem*",), "auto")


def test_options_go_before_the_file_and_set_before_options(file: Path) -> None:
    options = {"model": "resnet56", "train.epochs": 8, "prune.score": "snip"}
    config = read_config(file, options, ["train.epochs=9", "prune.score=none", "train.schedule=step"])
    assert (config.model, config.train.epochs, config.train.lr) == ("resnet56", 9, 0.05)
    assert config.prune.score is None
    assert config.train.schedule == "step"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train.lr=1e-2", 0.01),
        ("train.augment=false", False),
        ("train.flip=false", False),
        ("train.flip=auto", "auto"),
        ("train.clip=1", 1.0),
        ("train.device=cuda:1", "cuda:1"),
        ("subset=None", None),
        ("probe.seconds=0.5", 0.5),
        ('budgets=["params=1/4", "macs=20M"]', ("params=1/4", "macs=20M")),
        ("budgets=params=1/4,macs=20M", ("params=1/4,macs=20M",)),
        ('prune.pin=["a", "b.*"]', ("a", "b.*")),
        ("prune.pin=fc", ("fc",)),
        ("model=path/to/net.py:build", "path/to/net.py:build"),
        (" data = my photos ", "my photos"),
        ("prune.round_to=auto", "auto"),
        ("prune.round_to= AUTO", "auto"),
        ('prune.round_to="8"', 8),
    ],
)
def test_set_reads_values_as_toml_does_and_else_as_text(text: str, value: object) -> None:
    config = read_config(None, {}, [text])
    found: object = config
    for part in text.partition("=")[0].strip().split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("prune.rectifier=none", "none"),
        ("prune.evaluator=none", "none"),
        ("prune.rectifier=None", "none"),
        ("prune.rectifier=NONE", "none"),
        ("prune.evaluator=null", "none"),
        ('prune.rectifier="none"', "none"),
        ("prune.rectifier='none'", "none"),
        ("prune.score=none", None),
        ("prune.score=null", None),
        ('prune.score="None"', None),
        ("prune.tau=none", None),
        ("prune.rounds='null'", None),
        ("train.lr=none", None),
        ("train.weight_decay=null", None),
        ("sparse.rewind=None", None),
        ("subset=none", None),
        ("image_size=null", None),
        ("data=none", "none"),
    ],
)
def test_none_is_a_choice_where_there_is_one_and_else_nothing(setting: str, value: object, tmp_path: Path) -> None:
    name, _, text = setting.partition("=")
    section, _, last = name.rpartition(".")
    written = text if text[0] in "\"'" else f'"{text}"'
    file = tmp_path / "c.toml"
    file.write_text(f"[{section}]\n{last} = {written}\n" if section else f"{last} = {written}\n")
    for config in (read_config(None, {}, [setting]), read_config(file, {})):
        found = getattr(config, section) if section else config
        assert getattr(found, last) == value


def test_what_methods_lists_can_be_typed() -> None:
    for name, lines in (("rectifier", show.RECTIFIER_LINES), ("evaluator", show.EVALUATOR_LINES)):
        for word in lines:
            assert getattr(read_config(None, {}, [f"prune.{name}={word}"]).prune, name) == word


@pytest.mark.parametrize("variant", ["params-1-16", "params-0.25", "macs-20.5m"])
@pytest.mark.parametrize(("word", "score"), [("none", None), ("null", None), ("None", None), ("snip", "snip")])
def test_none_for_one_variant(variant: str, word: str, score: str | None) -> None:
    for name in (f"by_variant.{variant}", f'by_variant."{variant}"'):
        config = read_config(None, {}, [f"{name}.score={word}", f"{name}.rectifier=none", "prune.rectifier=all"])
        assert list(config.by_variant) == [variant]
        own = config.prune_of(variant)
        assert (own.score, own.rectifier) == (score, "none")
        assert config.prune_of("another").rectifier == "all"
    own = validated({"by_variant": {variant: {"rectifier": None, "tau": "none"}}}).prune_of(variant)
    assert (own.rectifier, own.tau) == ("none", None)


def test_a_number_that_must_be_there_cannot_be_none() -> None:
    for setting in ("train.devices=none", "prune.residual=none", "probe.threads=null"):
        with pytest.raises(ConfigError, match="input should be"):
            read_config(None, {}, [setting])


def test_budgets_may_be_numbers_by_key() -> None:
    budgets = [{"params": 1 / 3, "macs": "20M"}, "macs=0.5", {"params": 0.123456789, "macs": 2e6}]
    assert validated({"budgets": budgets}).budgets == (
        "params=1/3,macs=20M",
        "macs=0.5",
        "params=0.123456789,macs=2000000.0",
    )
    assert validated({"budgets": {"params": "1/8"}}).budgets == ("params=1/8",)


@pytest.mark.parametrize("build", [validated, BuildConfig.model_validate])
def test_one_seed_serves_all_sections_unless_one_has_its_own(build: Callable[[Any], BuildConfig]) -> None:
    config = build({"seed": 5, "prune": {"seed": 6, "tau": 2.0}})
    assert (config.seed, config.prune.seed, config.train.seed) == (5, 6, 5)
    assert config.prune.tau == 2.0
    assert validated({}).train.seed == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trian.lr=1", "unknown setting 'trian'; did you mean 'train'"),
        ("seeed=1", "unknown setting 'seeed'; did you mean 'seed'"),
        ("prune.tauu=1", "unknown setting 'prune.tauu'; did you mean 'prune.tau'"),
        ("train.epoch=1", "unknown training setting 'epoch'; did you mean 'epochs'"),
        ("probe.thread=1", "unknown setting 'probe.thread'; did you mean 'probe.threads'"),
        ("lr=0.1", "unknown setting 'lr': write train.lr"),
        ("prune.lr=0.1", "unknown setting 'prune.lr': write train.lr"),
        ("=3", "unknown setting ''"),
        ("train.optimiser=adamw", "training setting 'optimiser': write train.optimizer=sgd or adamw. Known: "),
        ("optimizer=adam", "setting 'optimizer': write train.optimizer$"),
        ("prune.optimiser=adam", "setting 'prune.optimiser': write train.optimizer=sgd or adamw.* Known: prune.draw"),
        ("train.nesterov=true", "setting 'nesterov': write train.momentum"),
        ("train.scheduler=cosine", "setting 'scheduler': write train.schedule=onecycle, step or cosine"),
        ("train.grad_clip=1", "setting 'grad_clip': write train.clip"),
        ("ema_decay=0.99", "setting 'ema_decay': write train.ema"),
        ("train.mixup_alpha=0.2", "setting 'mixup_alpha': write train.mixup"),
        ("train.color_jitter=0.4", "setting 'color_jitter': write train.jitter"),
        ("train.fliplr=0.5", "setting 'fliplr': write train.flip=true or false"),
        ("train.class_weights=true", "setting 'class_weights': write train.balance=weights or sampler"),
        ("cutmix=1", "setting 'cutmix': write train.cutmix$"),
        ("train.learning_rate=1", "training setting 'learning_rate': write train.lr"),
        ("prune.sparsity=0.5", "write budgets, for example"),
        ("sparsity=0.5", "unknown setting 'sparsity': write budgets"),
        (
            "prune.method=snip",
            "unknown setting 'prune.method': write sparse.method; or write prune.recipe, and prune.score",
        ),
        ("prune.criterion=snip", "write prune.recipe, and prune.score"),
        ("prune.epoch=3", "unknown setting 'prune.epoch'; did you mean 'train.epochs'"),
        ("dataset=digits", "unknown setting 'dataset': write data"),
        ("probe.zzz=1", "unknown setting 'probe.zzz'. Known: probe.batch, probe.seconds, probe.threads"),
    ],
)
def test_unknown_setting_names_the_nearest_or_where_it_belongs(setting: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        read_config(None, {}, [setting])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epochs=many", "'epochs' = 'many': input should be a valid integer"),
        ("train.epochs=0", "'epochs' = 0: input should be greater than or equal to 1"),
        ("train.schedule=linear", "'schedule' = 'linear': input should be 'onecycle', 'step' or 'cosine'"),
        ("train.optimizer=adam", "'optimizer' = 'adam': input should be 'sgd' or 'adamw'"),
        ("train.device=gpu", "'device' = 'gpu': use auto, cpu, cuda or cuda:N"),
        ("prune.evaluator=dens", "prune.evaluator='dens': input should be 'emptied', 'density', 'score' or 'none'"),
        ("prune.min_share=2", "prune.min_share=2: input should be less than or equal to 1"),
        ("subset=0", "subset=0: input should be greater than or equal to 1"),
        ("seed=-1", "seed=-1: input should be greater than or equal to 0"),
        ("seed=99999999999999999999", "seed=9+: input should be less than"),
        ("budgets=3", r"budgets.0=3: input should be a valid string"),
        ("probe=3", "probe=3: it is a section with probe.threads, probe.batch, probe.seconds"),
        ("model.width=3", "model={'width': 3}: input should be a valid string"),
        ("train.lr.x=3", "'lr' = {'x': 3}: input should be a valid number"),
        ("train.lr", "--set train.lr: write it as section.name=value"),
    ],
)
def test_value_that_does_not_fit_is_named_with_its_setting(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(None, {}, [setting])
    assert "\n" not in str(caught.value)


def test_setting_below_a_value_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"setting model\.width: 'model' is a value, not a section"):
        read_config(file, {}, ["model.width=3"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model = ", "'.*bad.toml' is not TOML: "),
        (b"\xff\xfe", "'.*bad.toml' is not TOML: "),
        (b"[train]\nepoch = 3\n", "unknown training setting 'epoch'"),
        (b"train = 3\n", "train=3: it is a section with train.epochs"),
        (b"[prune.tau]\nx = 1\n", "prune.tau={'x': 1}: "),
    ],
)
def test_bad_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(PrunitError, match=message) as caught:
        read_config(path, {})
    assert "\n" not in str(caught.value)


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration '.*none\.toml': No such file"):
        read_config(tmp_path / "none.toml", {})
    with pytest.raises(ConfigError, match=r"cannot read the configuration '.*': Is a directory"):
        read_config(tmp_path, {})


def test_the_example_file_holds_every_setting_with_its_default() -> None:
    path = Path(__file__).parents[2] / "examples" / "build.toml"
    assert read_config(path, {}) == BuildConfig()
    named, section = set(), ""
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]") + "."
        elif " = " in line:
            named.add(section + line.removeprefix("# ").partition(" = ")[0])
    assert named == set(setting_names())


def test_settings_are_read_without_torch() -> None:
    code = "import sys; from prunit.recipe import read_config; read_config(None, {}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
