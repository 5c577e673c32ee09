"""Weights that are no numbers are named as that, wherever a model comes in."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import prunit
from prunit.errors import ModelError
from prunit.export import EXPORTERS
from prunit.graph.finite import check_finite, not_finite
from prunit.scores import score_channels, score_weights
from prunit.train import evaluate
from tests.recipe.building import data

NAN, INF = float("nan"), float("inf")


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()


def broken(name: str, values: list[float]) -> nn.Sequential:
    model = net()
    tensor = {**dict(model.named_parameters()), **dict(model.named_buffers())}[name]
    with torch.no_grad():
        tensor.view(-1)[: len(values)] = torch.tensor(values)
    return model


EXAMPLE = torch.zeros(1, 1, 8, 8)
BROKEN = {
    "one NaN": (lambda: broken("0.weight", [NAN]), r"'0.weight' of shape \(4, 1, 3, 3\) holds 1 NaN of 36 values;"),
    "infinite": (lambda: broken("5.bias", [INF, -INF]), r"'5.bias' of shape \(3,\) holds 2 infinite of 3 values;"),
    "both": (lambda: broken("1.weight", [NAN, INF, NAN]), "'1.weight' .* holds 2 NaN and 1 infinite of 4 values;"),
    "statistics": (lambda: broken("1.running_var", [NAN]), "'1.running_var' .* holds 1 NaN of 4 values;"),
    "half precision": (lambda: broken("0.weight", [INF]).half(), "'0.weight' .* holds 1 infinite of 36 values;"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_tensor_is_named_and_its_values_are_counted(case: str) -> None:
    make, message = BROKEN[case]
    with pytest.raises(ModelError, match=f"the weights of Sequential are not finite: {message} a training that diverg"):
        check_finite(make())


def test_how_many_more_tensors_is_said() -> None:
    nan = torch.tensor([NAN])
    assert not_finite({"a": torch.ones(2)}) == ""
    assert not_finite({"a": nan, "b": nan}).endswith("; so does one more tensor")
    assert not_finite({"a": nan, "b": nan, "c": nan}).endswith("; so do 2 more tensors")


def test_large_weights_and_masks_are_no_mistake() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight.fill_(3e38)  # their sum is infinite in single precision
    model.register_buffer("mask", torch.full((4, 4), -INF))
    check_finite(model)
    check_finite(nn.Linear(2, 2, device="meta"))


def _export(model: nn.Module) -> None:
    EXPORTERS["onnx"](model, EXAMPLE, Path("nowhere"), name="net")


USES: dict[str, Callable[[nn.Module], object]] = {
    "plan": lambda model: prunit.plan(model, EXAMPLE, budget="params=1/2"),
    "plan by magnitude": lambda model: prunit.plan(model, EXAMPLE, budget="params=1/2", score="magnitude"),
    "plan at random": lambda model: prunit.plan(model, EXAMPLE, budget="params=1/2", recipe="global", score="random"),
    "score of weights": lambda model: score_weights(model, prunit.trace(model, EXAMPLE), "synflow", [(EXAMPLE, _NONE)]),
    "score of channels": lambda model: score_channels(model, prunit.trace(model, EXAMPLE), "magnitude", []),
    "removal of zeros": lambda model: prunit.remove_zeros(model, EXAMPLE),
    "export": _export,
}
_NONE = torch.empty(0, dtype=torch.int64)


@pytest.mark.parametrize("use", USES)
def test_every_use_of_weights_says_it(use: str) -> None:
    with pytest.raises(
        ModelError, match=r"the weights of Sequential are not finite: '0\.weight' .* 2 NaN of 36 values"
    ):
        USES[use](broken("0.weight", [NAN, NAN]))


def test_a_build_says_it_before_it_touches_the_folder(tmp_path: Path) -> None:
    images, model = data(), broken("5.weight", [NAN])
    for run in (lambda: prunit.build(model, images, tmp_path / "out"), lambda: evaluate(model, images)):
        with pytest.raises(ModelError, match=r"'5\.weight' of shape .* holds 1 NaN"):
            run()
    assert not (tmp_path / "out").exists()


def test_outputs_that_are_not_finite_are_not_blamed_on_the_removal() -> None:
    class Log(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x_BCHW: Tensor) -> Tensor:
            return (self.net(x_BCHW) * 0 - 1).log()

    with pytest.raises(ModelError, match="the outputs of Log on noise are not finite, although its weights are"):
        prunit.remove_zeros(Log(), EXAMPLE)
