"""The declared grids. A protocol is a list of grids, the most telling first: a run that is stopped has done those."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from typing import Final

from bench.evidence.arms import ARMS, BASELINES, DEFAULT, HOUR, OURS
from bench.evidence.tasks import DENSE, Data, Search, Task
from prunit.errors import ConfigError, unknown
from prunit.train import TrainConfig


@dataclass(frozen=True)
class Grid:
    """Every arm with every model, budget and seed; `arms` are names or patterns of names."""

    models: tuple[str, ...]
    budgets: tuple[str, ...]
    arms: tuple[str, ...] = ("*",)
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Protocol:
    """Grids on one data set under one recipe each, and what searches and probes may spend."""

    name: str
    about: str
    data: Data
    grids: tuple[tuple[TrainConfig, Grid], ...]
    search: Search = field(default_factory=Search)
    probe_s: float = 1.0
    choosing: tuple[int, ...] = ()
    """Seeds that the default was chosen on: what is claimed of it is tested on the others."""

    def tasks(self) -> list[Task]:
        """All cells, each once: the dense model of every model and seed, and each arm at the budgets that it knows."""
        return list(dict.fromkeys(self._tasks()))

    def _tasks(self) -> Iterator[Task]:
        for train, grid in self.grids:
            arms = matching(grid.arms)
            # Seed by seed: what is there of a run that was stopped can be compared in pairs. What needs a trained
            # model comes last: by then another job has trained it.
            arms.sort(key=lambda arm: ARMS[arm].after_training)
            for seed, model in product(grid.seeds, grid.models):
                for arm, budget in [("dense", DENSE), *product(arms, grid.budgets)]:
                    if (arm == "dense") == (budget == DENSE) and ARMS[arm].takes(budget):
                        yield Task(self.name, model, self.data, arm, budget, seed, train, self.search, self.probe_s)


def matching(patterns: tuple[str, ...]) -> list[str]:
    """The arms that a pattern fits; `UnknownNameError` for a pattern that fits none."""
    for pattern in patterns:
        if not any(fnmatchcase(arm, pattern) for arm in ARMS):
            raise unknown("arm", pattern, ARMS)
    return [arm for arm in ARMS if any(fnmatchcase(arm, pattern) for pattern in patterns)]


def protocol(name: str) -> Protocol:
    """The protocol of that name."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def chosen(tasks: list[Task], patterns: str) -> list[Task]:
    """The tasks whose arm or key one of the patterns (joined by commas) fits; `ConfigError` if there are none."""
    wanted = [pattern.strip().removesuffix(".json") for pattern in patterns.split(",")]
    found = [
        task
        for task in tasks
        if any(fnmatchcase(name, p) for p in wanted for name in (task.arm, task.key, task.key.partition("/")[2]))
    ]
    if not found:
        arms = ", ".join(dict.fromkeys(task.arm for task in tasks))
        raise ConfigError(
            f"--only {patterns} fits none of {len(tasks)} cells; the arms are {arms}; cells look like {tasks[-1].key}"
        )
    return found


_CONTENDERS: Final = (*OURS, *BASELINES)
"""What is tested on seeds that nothing was chosen on."""
_ANCHORS: Final = (*_CONTENDERS, "counterpart", "mask-synflow")
"""The arms that the headline claims are about."""
_MASKS: Final = ("mask-*",)
_BY_LATENCY: Final = ("complexity-la", "complexity-fa", "uniform")
_IN_PARTS: Final = (DEFAULT, "uniform", "equal-time", "trained-start", "trained-start-equal-time")
_SMOKE: Final = TrainConfig(epochs=1, batch_size=64)
_CPU: Final = TrainConfig(epochs=8, batch_size=128)
_GPU: Final = TrainConfig(epochs=40, batch_size=128)
_CPU32: Final = TrainConfig(epochs=12, batch_size=128, precision="bf16-mixed")
"""Where a CPU has instructions for bfloat16 they halve the time; elsewhere they are emulated, slowly."""
_AUTHORS: Final = TrainConfig.full(epochs=160)
"""The recipe behind the SynFlow authors' table."""
# At 16 pixels an image costs a quarter to an eighth: more of them rank arms better than larger ones do.
_FIFTH: Final = Data("cifar10", train=10_000, test=3_000, image_size=16)
_PROFILE: Final = "examples/profiles/amd-epyc-onnxruntime-1.31.1-16px.json"
"""Relative to the root of the repository, which is where the benchmarks run."""
_LADDER: Final = tuple(f"params=1/{2**k}" for k in range(1, 9))

PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "smoke": Protocol(
        "smoke",
        "the machinery: every arm once on scikit-learn's digits; its accuracies mean nothing",
        Data("digits", train=256, test=128),
        (
            (_SMOKE, Grid(("tiny",), ("params=1/4",), seeds=(0,))),
            (_SMOKE, Grid(("tiny",), ("macs=1/4", "density=1/8"), ("mask-synflow", "uniform"), seeds=(0, 1))),
        ),
        Search(candidates=2, epochs=1, proxies=4),
        probe_s=0.05,
    ),
    "cpu": Protocol(
        "cpu",
        "all arms on a fifth of CIFAR-10 at half its resolution, to rank them on two cores, in parts",
        _FIFTH,
        (
            (_CPU, Grid(("resnet20", "vgg16/4"), ("params=1/8", "macs=1/4"))),
            (_CPU, Grid(("resnet20", "vgg16/4"), ("params=1/8", "macs=1/4"), _CONTENDERS, seeds=(3, 4, 5, 6))),
            (_CPU, Grid(("resnet20", "vgg16/4"), ("macs=1/4", "params=1/8"), HOUR, seeds=(3, 4, 5, 6))),
        ),
        Search(candidates=4, epochs=2, proxies=32),
        probe_s=0.5,
        choosing=(0, 1, 2),
    ),
    "cpu32": Protocol(
        "cpu32",
        "all of CIFAR-10 at its own resolution, in bfloat16: what two cores do in parts, over days",
        Data("cifar10"),
        tuple(
            (_CPU32, Grid((model,), budgets, _IN_PARTS, seeds=(seed,)))
            for model in ("resnet20", "vgg16/2", "mobilenetv2/2")
            for budgets in (("macs=1/2", "macs=1/4"), ("macs=1/8",))
            for seed in (0, 1, 2)
        ),
        probe_s=1.0,
    ),
    "vgg16": Protocol(
        "vgg16",
        "VGG-16 at its full width on the images of `cpu`: the headline as far as two cores get in an hour or two",
        _FIFTH,
        (
            (_CPU, Grid(("vgg16",), ("params=1/16.21",), _ANCHORS)),
            (_CPU, Grid(("vgg16",), ("params=1/16.21,macs=1/5",), (DEFAULT,))),
            (_CPU, Grid(("vgg16",), ("params=1/20", "macs=1/6"), _CONTENDERS)),
        ),
        probe_s=1.0,
    ),
    "mobilenetv2": Protocol(
        "mobilenetv2",
        "MobileNetV2 on the images of `cpu`: the reductions that are claimed for the modes of complexity, and a width"
        " multiplier at the same budget",
        _FIFTH,
        (
            (
                _CPU,
                Grid(
                    ("mobilenetv2",),
                    ("params=30%", "macs=50%", "ram=50%"),
                    ("complexity-*", "uniform", "width-multiplier"),
                ),
            ),
            # What widths in steps cost where nearly every convolution is depthwise or pointwise.
            (_CPU, Grid(("mobilenetv2",), ("macs=1/4",), (DEFAULT, "reconvene-per-cost"))),
        ),
        probe_s=1.0,
    ),
    "latency": Protocol(
        "latency",
        "the images of `cpu`, widths that take equally long in the profile of a device: shares of latency against"
        " shares of multiply-adds",
        _FIFTH,
        # ResNet-20 spends too much of its time outside of its convolutions to become twice as fast at a useful width.
        (
            (_CPU, Grid(("resnet20",), (f"latency=2/3@{_PROFILE}",), _BY_LATENCY, seeds=(0, 1, 2, 3, 4))),
            (_CPU, Grid(("vgg16/2",), (f"latency=1/3@{_PROFILE}",), _BY_LATENCY, seeds=(0, 1, 2, 3, 4))),
        ),
        probe_s=1.0,
    ),
    "gpu": Protocol(
        "gpu",
        "all of CIFAR-10",
        Data("cifar10"),
        (
            (_GPU, Grid(("vgg16",), ("params=1/16.21", "params=1/20", "macs=1/6"), _ANCHORS)),
            (_GPU, Grid(("vgg16", "resnet18"), ("params=1/16", "macs=1/8"), ("*",))),
            (_AUTHORS, Grid(("vgg16", "resnet18"), ("density=1/10", "density=1/31.6", "density=1/100"), _MASKS)),
            (_GPU, Grid(("vgg16", "resnet18", "resnet50", "mobilenetv2"), _LADDER, _ANCHORS)),
            (_GPU, Grid(("resnet50", "mobilenetv2"), ("params=1/16", "macs=1/8"), ("*",))),
        ),
        Search(candidates=8, epochs=5, proxies=256),
        probe_s=2.0,
    ),
    "tiny": Protocol(
        "tiny",
        "twenty classes of Tiny ImageNet",
        Data("tiny-imagenet"),
        ((_GPU, Grid(("resnet18", "resnet50"), ("params=1/8", "macs=1/4"), (*_ANCHORS, "reconvene-*", "*-trained"))),),
        Search(candidates=8, epochs=5, proxies=256),
        probe_s=2.0,
    ),
}
