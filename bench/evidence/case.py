"""What an arm gets to work with, and what it gives back."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from bench.evidence.tasks import Data, Task
from prunit import zoo
from prunit.allocate import Budget, Target
from prunit.batches import Batch, Dataset, Split, stratified
from prunit.cut.plans import Plan
from prunit.cut.surgery import Rectify, compact, rectify
from prunit.graph import ChannelGraph, trace
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import first_reachable
from prunit.recipe.source import example_of
from prunit.zoo.mobilenetv2 import MobileNetV2
from prunit.zoo.resnet import Basic, ResNet
from prunit.zoo.vgg import STAGES_VGG16, VGG


@dataclass(frozen=True, eq=False)
class Trained:
    """The dense model after its training, and the seconds that the training took wherever it ran."""

    model: nn.Module
    seconds: float


@dataclass(frozen=True, eq=False)
class Case:
    """A task with its data and its untrained model. Arms prune on the CPU, so that everyone finds the same widths."""

    task: Task
    dataset: Dataset
    make: Callable[[], nn.Module]
    """The dense model with the initial weights of the task's seed."""
    graph: ChannelGraph
    trained: Trained | None = None
    """Only for arms that prune after training."""

    @property
    def budget(self) -> Budget:
        return Budget.parse(self.task.budget)

    @property
    def config(self) -> PruneConfig:
        """The defaults with the task's seed, by single channels: widths in steps are arms of their own."""
        return PruneConfig(seed=self.task.seed, round_to=1)

    @cached_property
    def target(self) -> Target:
        """The budget on the graph; residual streams are treated as `prunit build` does, for every arm alike."""
        return first_reachable(self.graph, self.budget, self.config)

    @cached_property
    def batches(self) -> list[Batch]:
        """Ten images of each class, for scores that need data."""
        return self.dataset.scoring_batches(per_class=self.config.per_class, batch_size=256, seed=self.task.seed)


@dataclass(frozen=True, eq=False)
class Pruned:
    """What is trained: a smaller model with its plan, or a model of dense shapes with masks that stay."""

    model: nn.Module
    plan: Plan | None = None
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    """False where a weight is to stay zero, by parameter name."""
    note: str = ""

    @property
    def hash(self) -> str:
        """16 hex digits of what was kept: the plan's own, or those of the masks or of the shapes."""
        if self.plan is not None:
            return self.plan.hash
        digest = hashlib.sha256()
        for name, tensor in self.masks.items():
            digest.update(name.encode() + np.packbits(tensor.cpu().numpy()).tobytes())
        if not self.masks:
            digest.update(str([(n, tuple(p.shape)) for n, p in self.model.named_parameters()]).encode())
        return digest.hexdigest()[:16]


def cut(case: Case, plan: Plan, how: Rectify, model: nn.Module | None = None) -> Pruned:
    """The model of a plan, cut from the dense one (or from `model`), its changed layers renewed as `how` says."""
    dense = model or case.make()
    small = compact(dense, case.graph, plan)
    rectify(small, dense, how, seed=case.task.seed)
    return Pruned(small, plan)


def case_of(task: Task, data_dir: Path | None = None) -> Case:
    """The case of a task; data are read once per process, models are made anew each time they are asked for."""
    dataset = images(task.data, data_dir)

    def make() -> nn.Module:
        return network(task.model, dataset, seed=task.seed)

    return Case(task, dataset, make, trace(make(), example_of(dataset)))


@lru_cache(maxsize=2)
def images(data: Data, data_dir: Path | None = None) -> Dataset:
    """The data set, its parts drawn with the same seed for every task."""
    found = zoo.data.load(data.name, data_dir=data_dir, subset=data.train, image_size=data.image_size)
    if data.test is None or data.test >= len(found.test):
        return found
    index = stratified(found.test.y_B, data.test, seed=0)
    return replace(found, test=Split(found.test.x_BCHW[index], found.test.y_B[index]))


def network(name: str, dataset: Dataset, *, seed: int) -> nn.Module:
    """A network of the zoo; `vgg16/4`, `mobilenetv2/2`, a part as wide; or `tiny`, residual, for the smoke test."""
    asked = {"num_classes": len(dataset.classes), "in_channels": dataset.channels}
    base, _, divisor = name.partition("/")
    if base == "vgg16" and divisor:
        stages = tuple(tuple(width // int(divisor) for width in stage) for stage in STAGES_VGG16)
        with zoo.seeded(seed):
            return VGG(stages, image_size=dataset.image_size, **asked)
    if base == "mobilenetv2" and divisor:
        with zoo.seeded(seed):
            return MobileNetV2(image_size=dataset.image_size, width=1 / int(divisor), **asked)
    if name == "tiny":
        with zoo.seeded(seed):
            return ResNet(Basic, ((16, 2), (32, 2)), stem="small", **asked)
    return zoo.load(name, image_size=dataset.image_size, seed=seed, **asked)
