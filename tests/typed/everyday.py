"""What a user's own code looks like to a type checker; `test_typed.py` checks it, nothing runs it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import torch
from torch import Tensor, nn

import prunit
from prunit.allocate import ALLOCATORS, Budget, Constraints, Limit, Target, global_threshold
from prunit.batches import Batch
from prunit.cut.plans import Scores, Widths, choose
from prunit.cut.zeros import Removed
from prunit.edge.portfolio import Artifact, Metrics, Variant
from prunit.edge.runtimes import runtime
from prunit.edge.session import Answer, Array, Runtime, Session
from prunit.edge.switching.policy import Conditions, Option
from prunit.edge.switching.switch import Switcher
from prunit.export import EXPORTERS, export_onnx
from prunit.graph import Axis, Group
from prunit.recipe import BuildConfig, Decision, decide, ladder
from prunit.scores import SCORES, Score, score_channels
from prunit.scores.network import Network
from prunit.train import Epoch, TrainConfig, evaluate, train
from prunit.zoo import data


class Net(nn.Module):
    """A network with an attribute of its own, whose type must not get lost."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3)


def cut(model: Net, example: Tensor) -> None:
    graph = prunit.trace(model, example)
    assert_type(graph, prunit.ChannelGraph)
    assert_type(graph.groups, tuple[Group, ...])
    assert_type(graph.groups[0].size, int)
    assert_type(graph.groups[0].producers, tuple[str, ...])
    assert_type(graph.axes, tuple[Axis, ...])
    assert_type(graph.group("body"), Group)
    plan = prunit.plan(model, example, recipe="reconvene", score="synflow", budget={"params": 1 / 16}, seed=0)
    assert_type(plan, prunit.Plan)
    assert_type(plan.to_json(), str)
    assert_type(prunit.compact(model, graph, plan), nn.Module)
    assert_type(prunit.mask(model, graph, plan), nn.Module)
    assert_type(prunit.apply_plan(Net(), plan), nn.Module)
    assert_type(prunit.rectify(prunit.compact(model, graph, plan), model), tuple[str, ...])
    assert_type(prunit.cost(graph, plan), prunit.Cost)
    assert_type(prunit.cost(graph).macs, int)
    assert_type(prunit.remove_zeros(model, example), Removed)
    assert_type(prunit.__version__, str)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    prunit.cut_optimizer(optimizer, model, prunit.compact(model, graph, plan), graph, plan)


def files(model: nn.Module, plan: prunit.Plan, path: Path) -> None:
    prunit.save(model, plan, path)
    assert_type(prunit.load(path, Net), nn.Module)


def whole(folder: Path) -> None:
    portfolio = prunit.build("resnet20", "digits", folder, config={"budgets": ["macs=1/2"]})
    assert_type(portfolio, prunit.Portfolio)
    assert_type(portfolio.variants, tuple[Variant, ...])
    assert_type(portfolio.variants[0].metrics, Metrics)
    assert_type(portfolio.variants[0].metrics.accuracy, float | None)
    assert_type(prunit.Portfolio.read(folder), prunit.Portfolio)
    assert_type(ladder("resnet20", "digits", folder), prunit.Portfolio)
    prunit.sweep("resnet20", "digits", folder)
    assert_type(BuildConfig(), BuildConfig)


def pieces(model: nn.Module, graph: prunit.ChannelGraph, batches: Sequence[Batch]) -> None:
    budget = Budget.parse("params=1/16,macs=1/2")
    assert_type(budget, Budget)
    assert_type(budget.limits, tuple[Limit, ...])
    scores = score_channels(model, graph, "snip", batches)
    assert_type(scores, Scores)
    target = Target(graph, budget, Constraints())
    widths = global_threshold(target, scores)
    assert_type(widths, Widths)
    assert_type(choose(graph, scores, widths), prunit.Plan)
    assert_type(SCORES["snip"], Score)
    ALLOCATORS["uniform"](target, scores)
    decision = decide(model, graph, batches, budget, BuildConfig().prune)
    assert_type(decision, Decision)
    assert_type(decision.plan, prunit.Plan)


def own_score(
    net: Network, weights: Mapping[str, Tensor], batches: Sequence[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    return {name: weight.detach().abs() for name, weight in weights.items()}


def trained(model: nn.Module, name: str) -> None:
    dataset = data.load(name)
    assert_type(dataset, prunit.Dataset)
    assert_type(dataset.train, prunit.Split)
    assert_type(dataset.train.x_BCHW, Tensor)
    for epoch in train(model, dataset, TrainConfig(epochs=2)):
        assert_type(epoch, Epoch)
    assert_type(evaluate(model, dataset), float)
    assert_type(prunit.zoo.load("resnet20", num_classes=10), nn.Module)
    assert_type(prunit.zoo.models(), dict[str, str])
    prunit.plan(model, torch.zeros(1, 3, 8, 8), budget="macs=1/2", score=own_score)


def exported(model: nn.Module, folder: Path) -> None:
    artifact = export_onnx(model, torch.zeros(1, 3, 8, 8), folder, name="net")
    assert_type(artifact, Artifact)
    EXPORTERS["onnx"](model, torch.zeros(1, 3, 8, 8), folder, name="net")
    engine = runtime("onnxruntime")
    assert_type(engine, Runtime)
    session = engine.open(folder / artifact.path)
    assert_type(session, Session)
    assert_type(session.run(np.zeros((1, 3, 8, 8), np.float32)), Array)


def on_the_device(folder: Path) -> None:
    switcher = Switcher(folder)
    assert_type(switcher.run(np.zeros((1, 3, 8, 8), np.float32)), Answer)
    assert_type(switcher.active, str)
    switcher.close()


def own_policy(conditions: Conditions, options: Sequence[Option]) -> str:
    return min(options, key=lambda option: option.service_ms).name


def caught(settings: Mapping[str, Any]) -> str:
    try:
        TrainConfig.model_validate(settings)
    except prunit.PrunitError as error:
        return str(error)
    return ""
