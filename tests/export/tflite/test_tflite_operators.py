"""Each operator alone: LiteRT and TensorFlow Lite Micro give the same integers, near the float answers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.export.int8nets import noise
from tests.export.tflite.tflite_engines import any_int8, exported, litert, lowered, micro, off

SHAPE_CHW = (3, 8, 8)


class Of(nn.Module):
    """What a function makes of images and some layers."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.function(x_BCHW, *self.layers)


def conv(inputs: int = 3, outputs: int = 5, size: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups)


def then(*layers: nn.Module) -> nn.Sequential:
    """The layers behind a convolution."""
    return nn.Sequential(conv(), *layers)


def prelu() -> nn.PReLU:
    layer = nn.PReLU(5)
    layer.weight.data.uniform_(0.0, 0.5)
    return layer


def norm() -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(3)
    for tensor, least in ((layer.running_mean, -1.0), (layer.running_var, 0.5), (layer.weight.data, 0.5)):
        assert tensor is not None
        tensor.uniform_(least, 2)
    return layer


def image_mean(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.mean((2, 3), keepdim=True)


FACTORS = torch.tensor([1.0, 2, 3, -4, 0.1]).view(1, 5, 1, 1)
CASES: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "same": (lambda: nn.Sequential(conv(), nn.ReLU()), {"CONV_2D"}),
    "valid": (lambda: nn.Conv2d(3, 5, 3), {"CONV_2D"}),
    "strides on an even size": (lambda: nn.Sequential(conv(stride=2), nn.ReLU6()), {"CONV_2D", "PAD"}),
    "dilation": (lambda: nn.Conv2d(3, 5, 3, padding=2, dilation=2), {"CONV_2D"}),
    "oblong": (lambda: nn.Conv2d(3, 4, (3, 1), (2, 1), padding=(1, 0)), {"CONV_2D", "PAD"}),
    "without bias": (lambda: nn.Conv2d(3, 4, 1, bias=False), {"CONV_2D"}),
    "depthwise": (lambda: nn.Sequential(conv(3, 3, groups=3), nn.ReLU6()), {"DEPTHWISE_CONV_2D"}),
    "depthwise, strides": (lambda: conv(3, 3, stride=2, groups=3), {"DEPTHWISE_CONV_2D", "PAD"}),
    "depthwise, twice": (lambda: conv(3, 6, groups=3), {"DEPTHWISE_CONV_2D"}),
    "groups": (lambda: nn.Sequential(conv(3, 6), conv(6, 8, groups=2)), {"CONV_2D"}),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 2, stride=2), nn.ReLU()), {"TRANSPOSE_CONV"}),
    "transposed, overlapping": (lambda: nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1), {"TRANSPOSE_CONV"}),
    "transposed, odd": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, bias=False), {"TRANSPOSE_CONV"}),
    "mean": (lambda: Of(lambda x, a: a(x).mean((2, 3)), conv()), {"CONV_2D", "MEAN", "RESHAPE"}),
    "mean, kept": (lambda: Of(lambda x, a: image_mean(a(x)), conv()), {"CONV_2D", "MEAN"}),
    "pool of the image": (lambda: then(nn.AvgPool2d(8)), {"CONV_2D", "MEAN"}),
    "average": (lambda: then(nn.AvgPool2d(2)), {"AVERAGE_POOL_2D", "CONV_2D"}),
    "average, padded": (lambda: then(nn.AvgPool2d(3, 1, 1)), {"AVERAGE_POOL_2D", "CONV_2D", "PAD"}),
    "average, uncounted": (
        lambda: then(nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
        {"AVERAGE_POOL_2D", "CONV_2D"},
    ),
    "largest": (lambda: then(nn.MaxPool2d(2)), {"CONV_2D", "MAX_POOL_2D"}),
    "largest, padded": (lambda: then(nn.MaxPool2d(3, 2, 1)), {"CONV_2D", "MAX_POOL_2D", "PADV2"}),
    "largest, of a ReLU": (lambda: then(nn.ReLU(), nn.MaxPool2d(3, 2, 1)), {"CONV_2D", "MAX_POOL_2D", "PAD"}),
    "largest, ceil": (lambda: then(nn.MaxPool2d(3, 2, ceil_mode=True)), {"CONV_2D", "MAX_POOL_2D"}),
    "sum": (lambda: Of(lambda x, a, b: torch.relu(a(x) + b(x)), conv(), conv()), {"ADD", "CONV_2D"}),
    "difference": (lambda: Of(lambda x, a, b: a(x) - b(x), conv(), conv()), {"CONV_2D", "SUB"}),
    "product": (lambda: Of(lambda x, a, b: a(x) * b(x), conv(), conv()), {"CONV_2D", "MUL"}),
    "sum with a mean": (lambda: Of(lambda x, a: a(x) + image_mean(a(x)), conv()), {"ADD", "CONV_2D", "MEAN"}),
    "squeeze-excite": (
        lambda: Of(lambda x, a, b: a(x) * torch.sigmoid(b(image_mean(a(x)))), conv(), conv(5, 5, 1)),
        {"CONV_2D", "LOGISTIC", "MEAN", "MUL"},
    ),
    "squeeze-excite, hard": (
        lambda: Of(lambda x, a, b: a(x) * F.hardsigmoid(b(image_mean(a(x)))), conv(), conv(5, 5, 1)),
        {"CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "MUL"},
    ),
    "constants by channel": (lambda: Of(lambda x, a: a(x) * FACTORS + 2, conv()), {"CONV_2D", "DEPTHWISE_CONV_2D"}),
    "from a constant": (lambda: Of(lambda x, a: 1 - a(x) / 3, conv()), {"CONV_2D", "DEPTHWISE_CONV_2D"}),
    "an image of constants": (
        lambda: Of(lambda x, a: a(x) + torch.linspace(-1, 1, 320).view(1, 5, 8, 8), conv()),
        {"ADD", "CONV_2D"},
    ),
    "joined": (
        lambda: Of(lambda x, a, b: torch.cat([a(x), b(x).relu(), x], 1), conv(), conv()),
        {"CONCATENATION", "CONV_2D"},
    ),
    "joined with a sigmoid": (
        lambda: Of(lambda x, a, b: torch.cat([a(x).sigmoid(), b(x)], 1), conv(), conv()),
        {"CONCATENATION", "CONV_2D", "LOGISTIC", "QUANTIZE"},
    ),
    "joined sigmoids": (
        lambda: Of(lambda x, a, b: torch.cat([a(x).sigmoid(), b(x).sigmoid()], 1), conv(), conv()),
        {"CONCATENATION", "CONV_2D", "LOGISTIC"},
    ),
    "joined, many": (
        lambda: Of(lambda x, *of: torch.cat([a(x) for a in of], 1), *(conv(3, 1, 1) for _ in range(23))),
        {"CONCATENATION", "CONV_2D"},
    ),
    "joined, rows": (
        lambda: Of(lambda x, a: torch.cat([a(x), x], 2), conv(3, 3)),
        {"CONCATENATION", "CONV_2D"},
    ),
    "clip": (lambda: Of(lambda x, a: a(x).clamp(-0.25, 0.5), conv()), {"CONV_2D"}),
    "ReLU beside": (
        lambda: Of(lambda x, a: torch.cat([a(x), a(x).relu()], 1), conv()),
        {"CONCATENATION", "CONV_2D", "RELU"},
    ),
    "ReLU6 beside": (
        lambda: Of(lambda x, a: torch.cat([20 * a(x), F.relu6(20 * a(x))], 1), conv()),
        {"CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "RELU6"},
    ),
    "clip beside": (
        lambda: Of(lambda x, a: torch.cat([a(x), a(x).clamp(-0.1, 0.3)], 1), conv()),
        {"CONCATENATION", "CONV_2D", "QUANTIZE"},
    ),
    "leaky": (lambda: then(nn.LeakyReLU(0.1)), {"CONV_2D", "LEAKY_RELU"}),
    "PReLU": (lambda: then(prelu()), {"CONV_2D", "PRELU"}),
    "sigmoid": (lambda: then(nn.Sigmoid()), {"CONV_2D", "LOGISTIC"}),
    "tanh": (lambda: then(nn.Tanh()), {"CONV_2D", "TANH"}),
    "SiLU": (lambda: then(nn.SiLU()), {"CONV_2D", "LOGISTIC", "MUL"}),
    "hard swish": (lambda: then(nn.Hardswish()), {"CONV_2D", "HARD_SWISH"}),
    "hard sigmoid": (lambda: then(nn.Hardsigmoid()), {"CONV_2D", "DEPTHWISE_CONV_2D"}),
    "softmax": (
        lambda: then(nn.Flatten(), nn.Linear(320, 7), nn.Softmax(1)),
        {"CONV_2D", "RESHAPE", "SOFTMAX"},
    ),
    "softmax of pixels": (lambda: then(nn.Softmax(1)), {"CONV_2D", "SOFTMAX"}),
    "zeros around": (lambda: then(nn.ZeroPad2d((1, 2, 0, 1)), nn.ReLU()), {"CONV_2D", "PAD", "RELU"}),
    "doubled": (lambda: then(nn.Upsample(scale_factor=2)), {"CONV_2D", "RESIZE_NEAREST_NEIGHBOR"}),
    "to a size": (
        lambda: Of(lambda x, a: F.interpolate(a(x), size=(13, 17)), conv()),
        {"CONV_2D", "RESIZE_NEAREST_NEIGHBOR"},
    ),
    "bilinear": (lambda: then(nn.Upsample(scale_factor=2, mode="bilinear")), {"CONV_2D", "RESIZE_BILINEAR"}),
    "bilinear, corners": (
        lambda: then(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
        {"CONV_2D", "RESIZE_BILINEAR"},
    ),
    "bilinear, to a size": (
        lambda: Of(lambda x, a: F.interpolate(a(x), size=(13, 5), mode="bilinear"), conv()),
        {"CONV_2D", "RESIZE_BILINEAR"},
    ),
    "norm before": (lambda: nn.Sequential(norm(), conv()), {"CONV_2D", "DEPTHWISE_CONV_2D"}),
    "split": (
        lambda: Of(lambda x, a: torch.cat(a(x).split([2, 3], 1)[::-1], 1), conv()),
        {"CONCATENATION", "CONV_2D", "STRIDED_SLICE"},
    ),
    "slice": (lambda: Of(lambda x, a: a(x)[:, 1:4, ::2, 1:], conv()), {"CONV_2D", "STRIDED_SLICE"}),
    "linear": (
        lambda: then(nn.Flatten(), nn.Linear(320, 7), nn.ReLU(), nn.Linear(7, 3)),
        {"CONV_2D", "RESHAPE"},
    ),
    "linear, of a mean": (
        lambda: then(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(5, 7)),
        {"CONV_2D", "MEAN", "RESHAPE"},
    ),
    "linear, of a row": (
        lambda: then(nn.Flatten(), nn.Hardswish(), nn.Linear(320, 4)),
        {"CONV_2D", "HARD_SWISH", "RESHAPE"},
    ),
    "matrix": (
        lambda: Of(lambda x, a: a(x).flatten(1) @ torch.linspace(-1, 1, 960).view(320, 3), conv()),
        {"CONV_2D", "RESHAPE"},
    ),
    "a row and an image": (
        lambda: Of(lambda x, a, b: b(image_mean(a(x)).flatten(1)).view(-1, 5, 1, 1) + a(x), conv(), nn.Linear(5, 5)),
        {"ADD", "CONV_2D", "MEAN", "RESHAPE"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_kernels_agree_and_are_near_the_float_answers(tmp_path: Path, name: str) -> None:
    make, codes = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        source = exported(make(), SHAPE_CHW, tmp_path)
    network = lowered(source, SHAPE_CHW)
    assert set(network.codes) == codes
    x_BHWC = any_int8(network, 16)
    for one, other in zip(litert(network, x_BHWC), micro(network, x_BHWC), strict=True):
        np.testing.assert_array_equal(one, other)
    assert max(off(network, source, noise(16, SHAPE_CHW))) < LEEWAY.get(name, 2.5)


LEEWAY = {"clip": 3.5, "tanh": 5.0, "softmax of pixels": 4.0}
"""Steps, where those of the answer are much finer than those before."""
