"""The zoo's networks: published parameter counts, shapes, starting weights."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunit import zoo
from prunit.errors import ConfigError, UnknownNameError
from prunit.zoo.mobilenetv2 import MobileNetV2

"""Those that give a score for each pixel: see test_unet.py."""


def params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def on_meta(name: str, *, num_classes: int, image_size: int, in_channels: int = 3) -> nn.Module:
    """The network without memory, for those of hundreds of MB."""
    with torch.device("meta"):
        return zoo.load(name, num_classes=num_classes, image_size=image_size, in_channels=in_channels)


# VGG, ResNet-18/50, MobileNetV2 at 1000 classes: torchvision's counts. At 10 classes: those of the usual CIFAR forms.
@pytest.mark.parametrize(
    ("name", "num_classes", "image_size", "expected"),
    [
        ("vgg11", 10, 32, 9_231_114),
        ("vgg16", 10, 32, 14_728_266),
        ("resnet20", 10, 32, 272_474),
        ("resnet56", 10, 32, 855_770),
        ("resnet18", 10, 32, 11_173_962),
        ("resnet50", 10, 32, 23_520_842),
        ("mobilenetv2", 10, 32, 2_236_682),
        ("vgg11", 1000, 224, 132_868_840),
        ("vgg16", 1000, 224, 138_365_992),
        ("resnet18", 1000, 224, 11_689_512),
        ("resnet50", 1000, 224, 25_557_032),
        ("mobilenetv2", 1000, 224, 3_504_872),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, num_classes: int, image_size: int, expected: int) -> None:
    assert params(on_meta(name, num_classes=num_classes, image_size=image_size)) == expected


@pytest.mark.parametrize(
    ("name", "image_size", "expected_millions"),
    [
        ("vgg16", 32, 313.2),
        ("resnet20", 32, 40.8),
        ("resnet18", 32, 555.4),
        ("mobilenetv2", 32, 88.0),
        ("resnet50", 224, 4089.2),
        ("mobilenetv2", 224, 300.8),
    ],
)
def test_macs_are_the_published_ones(name: str, image_size: int, expected_millions: float) -> None:
    model = on_meta(name, num_classes=1000 if image_size == 224 else 10, image_size=image_size).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, image_size, image_size, device="meta"))
    assert counter.get_total_flops() / 2e6 == pytest.approx(expected_millions, abs=0.05)


@pytest.mark.parametrize("image_size", [8, 28, 32, 64, 224])
@pytest.mark.parametrize("name", sorted(zoo.models("classification")))
def test_scores_have_one_column_per_class(name: str, image_size: int) -> None:
    model = on_meta(name, num_classes=7, image_size=image_size, in_channels=1)
    x_BCHW = torch.empty(2, 1, image_size, image_size, device="meta")
    assert model(x_BCHW).shape == (2, 7)


@pytest.mark.parametrize("name", ["vgg11", "resnet20", "mobilenetv2"])
def test_gradients_reach_every_parameter_of_the_smallest_images(name: str) -> None:
    model = zoo.load(name, in_channels=1, image_size=8)
    scores_BK = model(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    nn.functional.cross_entropy(scores_BK, torch.tensor([0, 1, 2, 3])).backward()
    assert torch.isfinite(scores_BK).all()
    assert [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


def test_weights_start_he_normal_and_batch_norms_as_identity() -> None:
    model = zoo.load("mobilenetv2")
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.numel() > 10_000:
            fan_in = module.weight[0].numel()
            assert float(module.weight.detach().std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.05), name
        if isinstance(module, nn.Linear | nn.BatchNorm2d):
            assert not module.bias.any(), name
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all(), name


def test_a_residual_network_has_no_padded_shortcut() -> None:
    shortcuts = [m.shortcut for m in zoo.load("resnet20").modules() if hasattr(m, "shortcut")]
    assert len(shortcuts) == 9
    assert sum(isinstance(s, nn.Sequential) and isinstance(s[0], nn.Conv2d) for s in shortcuts) == 2
    assert sum(isinstance(s, nn.Identity) for s in shortcuts) == 7


def test_a_seed_decides_the_weights() -> None:
    one, same, other = (zoo.load("resnet20", seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_the_callers_random_state_stays() -> None:
    before = torch.random.get_rng_state()
    zoo.load("resnet20", seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_callers_random_state_stays_on_cuda_too() -> None:
    torch.cuda.init()
    before = torch.cuda.get_rng_state()
    with torch.device("cuda"):
        one, same = zoo.load("resnet20", seed=5).state_dict(), zoo.load("resnet20", seed=5).state_dict()
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert all(torch.equal(one[key], same[key]) for key in one)


def test_a_factory_loads_the_same_network_anew() -> None:
    build = zoo.factory("resnet20", num_classes=5, in_channels=1, seed=2)
    one, two = build(), build()
    assert one is not two
    assert torch.equal(one.state_dict()["classifier.weight"], two.state_dict()["classifier.weight"])
    assert one.state_dict()["classifier.weight"].shape == (5, 64)


def test_every_model_has_one_line() -> None:
    about = zoo.models()
    classifiers = {"vgg11", "vgg16", "resnet20", "resnet56", "resnet18", "resnet50", "mobilenetv2"}
    assert set(zoo.models("classification")) == classifiers
    assert set(zoo.models("detection")) == {"fcos-tiny", "fcos-resnet18", "fcos-mobilenetv2"}
    assert set(about) >= classifiers | set(zoo.models("detection"))
    assert all(line and "\n" not in line for line in about.values())


def test_an_unknown_model_names_the_nearest_and_the_other_forms() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'resnet2'; did you mean 'resnet20'\?.*timm:NAME"):
        zoo.load("resnet2")


@pytest.mark.parametrize("setting", ["num_classes", "in_channels", "image_size"])
def test_a_size_below_one_is_refused(setting: str) -> None:
    settings = {"num_classes": 10, "in_channels": 3, "image_size": 32} | {setting: 0}
    with pytest.raises(ConfigError, match=rf"{setting}=0 for model 'vgg11': it must be at least 1"):
        zoo.load(
            "vgg11",
            num_classes=settings["num_classes"],
            in_channels=settings["in_channels"],
            image_size=settings["image_size"],
        )


def test_mobilenet_at_half_width_is_that_of_the_paper() -> None:
    # As many parameters as torchvision's mobilenet_v2(width_mult=0.5).
    half = MobileNetV2(num_classes=1000, in_channels=3, image_size=224, width=0.5)
    assert params(half) == 1_968_680
    assert {p.shape[0] % 8 for p in half.parameters() if p.ndim == 4} == {0}
