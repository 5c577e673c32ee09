"""Training under the rounding of int8: the same model comes back, and it loses less when it is quantised."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import prunit
from prunit.batches import Dataset, Split
from prunit.cut.surgery import copied
from prunit.errors import ConfigError, DataError
from prunit.export import export_onnx
from prunit.train import TrainConfig, int8_settings, train, tuned_for_int8
from prunit.train.defaults import Fitted, fitted_to
from prunit.train.rounded import Rounded, rounded_weight
from tests.nets import random_plan
from tests.train.toys import Small, assert_same, small, stripes, tensors

SETTINGS = Fitted(epochs=1, batch_size=10, lr=0.05, device="cpu", seed=3)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Networks this small are slower with more, and on a busy machine many times so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["resnet20", "vgg11", "mobilenetv2"])
def test_a_compact_model_of_odd_widths_comes_back_as_it_was_with_other_weights(name: str) -> None:
    dense = prunit.zoo.load(name, num_classes=4, in_channels=1, image_size=8)
    data = stripes(20, tests=4)
    graph = prunit.trace(dense, torch.zeros(1, 1, 8, 8))
    model = prunit.compact(dense, graph, random_plan(graph, seed=5)).train()
    before = copied(model)
    tuned = tuned_for_int8(model, data, SETTINGS)
    assert type(tuned) is type(model)
    assert not tuned.training
    assert [(n, t.shape, t.dtype) for n, t in tuned.state_dict().items()] == [
        (n, t.shape, t.dtype) for n, t in model.state_dict().items()
    ]
    assert model.training
    assert_same(model, before)
    there, here = dict(model.named_parameters()), dict(tuned.named_parameters())
    assert [n for n in there if torch.equal(there[n], here[n])] == []
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), tuned.buffers(), strict=True))  # norms are frozen
    assert [m for m in [*model.modules(), *tuned.modules()] if m._forward_pre_hooks] == []


def test_a_seed_gives_the_same_to_the_last_bit_and_a_checkpoint_too(tmp_path: Path) -> None:
    data, settings = stripes(40), SETTINGS.model_copy(update={"epochs": 2})
    first = tuned_for_int8(small(), data, settings)
    steps: list[tuple[int, int]] = []
    saved = tmp_path / "tuning.safetensors"
    assert_same(first, tuned_for_int8(small(), data, settings, checkpoint=saved, on_step=lambda *n: steps.append(n)))
    assert steps[-1] == (8, 8)
    assert_same(first, tuned_for_int8(small(), data, settings, checkpoint=saved))  # finished: read back
    other = tuned_for_int8(small(), data, settings.model_copy(update={"seed": 4}))
    assert not torch.equal(tensors(first)["conv2.weight"], tensors(other)["conv2.weight"])


def test_settings_are_those_of_before_at_a_low_rate() -> None:
    before = SETTINGS.model_copy(update={"schedule": "step", "epochs": 30, "ema": 0.99, "distill": 0.5})
    found = int8_settings(before, epochs=2)
    assert (found.epochs, found.schedule, found.ema, found.distill) == (2, "cosine", 0.0, 0.0)
    assert (found.decay, found.smoothing) == (before.decay, before.smoothing)
    assert found.lr < before.lr / 5
    Fitted.model_validate(found.model_dump())


def test_a_model_that_int8_ruins_loses_less_after_tuning(tmp_path: Path) -> None:
    """A dead channel's weights are large: the steps of those filters are, too. Float training does not see it."""
    data = stripes(400, tests=400)
    settings = fitted_to(TrainConfig(epochs=25, batch_size=20, lr=0.1, device="cpu"), data)
    model = small()
    for _ in train(model, data, settings):
        pass
    with torch.no_grad():
        assert model.norm.weight is not None
        model.norm.weight[0], model.norm.bias[0] = 0, -1
        model.conv2.weight[:, 0] = 200
    model.eval()
    low = int8_settings(settings, epochs=3)
    control = copied(model)
    for _ in train(control, data, low):
        pass
    tuned = tuned_for_int8(model, data, low)
    before, without, after = (
        int8_loss(net, data, tmp_path / name) for name, net in (("a", model), ("b", control), ("c", tuned))
    )
    assert after < 0.7 * before
    assert after < 0.9 * without


def test_what_is_rounded_is_what_onnx_runtime_rounds(tmp_path: Path) -> None:
    data = stripes(64, tests=200)
    model = small().eval()
    with torch.no_grad():
        assert model.norm.weight is not None
        model.norm.weight[0], model.norm.bias[0] = 0, -1
        model.conv2.weight[:, 0] = 50  # so that rounding is seen
    rounded = Rounded(copied(model), data.normalise(data.train.x_BCHW)).eval()
    outputs = rounded(data.normalise(data.test.x_BCHW))
    expected = int8_outputs(model, data, tmp_path)
    off = (model(data.normalise(data.test.x_BCHW)) - expected).abs().mean()
    assert (outputs - expected).abs().mean() < 0.3 * off


def test_weights_have_255_values_around_zero_and_gradients_pass() -> None:
    weight = torch.randn(5, 3, 3, 3, requires_grad=True)
    for dim in (0, 1):
        found = rounded_weight(weight, dim)
        steps = weight.detach().abs().amax([d for d in range(4) if d != dim], keepdim=True) / 127
        assert torch.allclose(found, (weight / steps).round() * steps, atol=1e-6)
        (gradient,) = torch.autograd.grad(found.sum(), weight)
        assert torch.equal(gradient, torch.ones_like(weight))
    assert torch.equal(rounded_weight(torch.zeros(2, 3), 0), torch.zeros(2, 3))


class _Aside(nn.Module):
    """Sums in place, a product of matrices, a mask of infinities, and a head that only training has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(1, 3, 1), nn.ConvTranspose2d(3, 6, 2, groups=3, stride=2)
        self.aside, self.head = nn.Conv2d(3, 3, 1), nn.Linear(6, 4)
        self.register_buffer("masked", torch.zeros(1, 1, 8, 8).index_fill(3, torch.tensor([7]), -torch.inf))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.conv(x_BCHW)
        if self.training:
            y_BCHW = y_BCHW + self.aside(y_BCHW).tanh()
        y_BCHW += y_BCHW.relu()
        y_BCHW = (y_BCHW + self.masked).softmax(3) @ y_BCHW
        return self.head(self.up(y_BCHW).mean((2, 3)))


def test_other_functions_are_rounded_too_and_what_cannot_be_stays() -> None:
    model = _Aside()
    tuned = tuned_for_int8(model, stripes(40), SETTINGS)
    assert type(tuned) is _Aside
    assert all(tensor.isfinite().all() for tensor in tuned.parameters())
    assert not torch.equal(tuned.up.weight, model.up.weight)


def test_with_distillation_the_teacher_is_the_model_itself() -> None:
    data, taught = stripes(40), SETTINGS.model_copy(update={"distill": 0.9})
    alone = tuned_for_int8(small(), data, SETTINGS)
    assert not torch.equal(tensors(alone)["fc.weight"], tensors(tuned_for_int8(small(), data, taught))["fc.weight"])


def test_it_can_be_sent_to_another_process() -> None:
    data = stripes(20)
    x_BCHW = data.normalise(data.test.x_BCHW)
    rounded = Rounded(small(), x_BCHW).eval()
    sent = pickle.loads(pickle.dumps(rounded))
    assert_same(rounded, sent)
    assert torch.equal(rounded(x_BCHW), sent(x_BCHW))
    assert any(name.startswith("range_") for name in tensors(sent))


def test_no_images_and_impossible_settings_are_errors_of_prunit() -> None:
    data = stripes(20)
    none = Dataset("none", Split(data.train.x_BCHW[:0], data.train.y_B[:0]), data.test, ("a", "b"), (0.3,), (0.2,))
    with pytest.raises(DataError, match="no train images"):
        tuned_for_int8(small(), none, SETTINGS)
    with pytest.raises(ConfigError, match="precision"):
        train(small(), data, SETTINGS.model_copy(update={"precision": "16-mixed"})).__next__()
    tuned_for_int8(small(), data, SETTINGS.model_copy(update={"precision": "16-mixed"}))  # float32 all the same


class _Reader(CalibrationDataReader):
    def __init__(self, x_BCHW: Tensor, name: str) -> None:
        self.batches = iter([{name: x_BCHW.numpy()}])

    def get_next(self) -> Any:
        return next(self.batches, None)


def int8_outputs(model: Small | nn.Module, data: Dataset, folder: Path) -> Tensor:
    """Scores of the test images, (B, K), by ONNX Runtime after static quantisation."""
    folder.mkdir(exist_ok=True)
    x_BCHW = data.normalise(data.test.x_BCHW)
    artifact = export_onnx(model, x_BCHW[:1], folder, name="float")
    file = str(folder / artifact.path)
    (given,) = ort.InferenceSession(file, providers=["CPUExecutionProvider"]).get_inputs()
    quantize_static(
        *(file, str(folder / "int8.onnx"), _Reader(data.normalise(data.train.x_BCHW[:256]), given.name)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    session = ort.InferenceSession(str(folder / "int8.onnx"), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {given.name: x_BCHW.numpy()})[0])


def int8_loss(model: nn.Module, data: Dataset, folder: Path) -> float:
    return float(cross_entropy(int8_outputs(model, data, folder), data.test.y_B))
