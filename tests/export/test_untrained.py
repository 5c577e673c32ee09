from fractions import Fraction
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from prunit.cut.plans import Plan
from prunit.cut.surgery import compact, copied
from prunit.errors import ModelError
from prunit.export import export_onnx
from prunit.export.refill import Count, set_counts
from prunit.export.translation import translated
from prunit.export.untrained import Untrained, spread_plan, stir
from prunit.graph import trace
from tests.export.structures import structure
from tests.export.toynets import build, example
from tests.nets import random_plan


class OfNumbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.a(x)
        return x, x.argmax(1)


def stirred(model: nn.Module) -> nn.Module:
    model = copied(model).eval()
    stir(model)
    return model


@pytest.mark.parametrize(
    ("broken", "instead"),
    [
        ("counts", lambda *_: None),  # the translations differ in more than numbers of channels
        ("set_counts", lambda *_: None),  # a number is left as it was: the file does not run
        ("fill", lambda *_: None),  # it runs, and computes what the dense model does
    ],
)
def test_what_cannot_be_carried_over_is_translated_for_itself(
    broken: str, instead: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stirred(build("plain"))
    graph, probes = trace(model, example()), list[Plan]()
    untrained = Untrained(model, graph, example())
    monkeypatch.setattr("prunit.export.untrained.spread_plan", lambda of: probes.append(spread_plan(of)) or probes[-1])
    monkeypatch.setattr(f"prunit.export.untrained.{broken}", instead)
    for seed in range(2):
        plan = random_plan(graph, seed=seed, least=2)
        assert not untrained.write(plan, tmp_path / "untrained.onnx")
        export_onnx(compact(model, graph, plan), example(), tmp_path, name="real")
        assert structure(tmp_path / "untrained.onnx") == structure(tmp_path / "real.onnx")
    assert len(probes) == 1  # whether it can be is asked once


def test_a_layer_that_gets_a_bias_is_translated_for_itself(tmp_path: Path) -> None:
    model = build("concat").eval()
    graph = trace(model, example())
    plain = random_plan(graph)
    plan = Plan(plain.keep, plain.dense, biases=("left.0",))
    untrained = Untrained(model, graph, example())
    assert untrained.write(plain, tmp_path / "plain.onnx")
    assert not untrained.write(plan, tmp_path / "bias.onnx")


def test_weights_that_layers_compute_are_carried_over(tmp_path: Path) -> None:
    net = nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(3, 8, 3)),
        nn.ReLU(),
        torch.nn.utils.spectral_norm(nn.Conv2d(8, 6, 3)),
        nn.Flatten(),
        nn.Linear(96, 4),
    ).eval()
    graph = trace(net, example())
    assert Untrained(net, graph, example()).write(random_plan(graph), tmp_path / "net.onnx")


def test_the_dense_file_is_that_of_an_export(tmp_path: Path) -> None:
    model = stirred(build("residual"))
    assert Untrained(model, trace(model, example()), example()).write_dense(tmp_path / "untrained.onnx")
    export_onnx(model, example(), tmp_path, name="real")
    assert structure(tmp_path / "untrained.onnx") == structure(tmp_path / "real.onnx")


def test_biases_of_zeros_stay_in_the_file_as_a_training_would_leave_them(tmp_path: Path) -> None:
    model = build("no_batch_norm").eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    graph = trace(model, example())
    Untrained(model, graph, example()).write(random_plan(graph), tmp_path / "untrained.onnx")
    (convolution,) = [n for n in onnx.load(tmp_path / "untrained.onnx").graph.node if n.op_type == "Conv"]
    assert len(convolution.input) == 3
    assert not dict(model.named_parameters())["0.bias"].any()  # the model itself is left alone


def test_stirring_changes_what_holds_one_value_and_little() -> None:
    norm = nn.BatchNorm2d(50)
    norm.weight.data = torch.arange(50.0)
    stir(norm)
    assert torch.equal(norm.weight, torch.arange(50.0))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    for tensor, value, most in ((norm.bias, 0, 0.02), (norm.running_mean, 0, 0.02), (norm.running_var, 1, 0.1)):
        assert len(tensor.unique()) > 40
        assert 0 < (tensor - value).abs().max() <= most
    assert norm.num_batches_tracked == 0


def test_the_plan_to_learn_from_has_different_widths() -> None:
    graph = trace(nn.Sequential(*(nn.Conv2d(3 if i == 0 else 12, 12, 1) for i in range(6))), example())
    widths = spread_plan(graph).widths
    free = [widths[group.name] for group in graph.groups if not group.pinned]
    assert len(set(free)) == len(free) == 5
    assert min(free) >= 6


def test_a_number_that_would_be_a_fraction_is_refused() -> None:
    model = build("plain").eval()
    translation = translated(model, torch.zeros(1, 3, 8, 8))
    position = next(i for i, node in enumerate(translation.network.graph) if node.op_type == "Conv")
    tensors = dict(model.named_parameters())
    half = Count((position, "group"), 0, "0.0.weight", 0, Fraction(1, 2))
    with pytest.raises(ValueError, match=r"'group' is 1/2 of 0.0.weight: 37/2 is no whole number"):
        set_counts(translation.network, (half,), tensors)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (OfNumbers(), "output 'output_1' has type torch.int64, and only torch.float32 can be exported"),
        (build("plain").double(), "weights of type float64"),
        (build("plain").to("meta"), "meta"),
    ],
)
def test_models_that_no_file_can_hold(model: nn.Module, message: str) -> None:
    graph = trace(build("plain"), example())
    with pytest.raises(ModelError, match=message):
        Untrained(model, graph, example())


def test_an_example_that_is_no_image() -> None:
    graph = trace(build("plain"), example())
    with pytest.raises(ModelError, match=r"\(3, 8, 8\): it must be images"):
        Untrained(build("plain"), graph, torch.zeros(3, 8, 8))
