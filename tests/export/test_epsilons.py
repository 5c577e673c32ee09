"""Small numbers survive the export: the file gives torch's outputs where a norm, a sum or a deviation is zero."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from prunit.edge.session import Array
from prunit.errors import ModelError
from prunit.export import translation
from prunit.export.images import STORED, images
from prunit.export.onnx import export_onnx
from tests.export.epsilons import Around, Inner, spellings

SHAPE = (3, 16, 16)
TINY = (1e-8, 1e-10, 1e-12)


def _model(inner: Inner) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Around(inner).eval()


def _pictures() -> dict[str, Array]:
    """What was not used to check the export is among them."""
    noise = np.random.default_rng(7).standard_normal(SHAPE).astype(np.float32)
    below = noise.copy()
    below[:, SHAPE[1] // 2 :] = 0
    return {
        "noise": noise,
        "zero": np.zeros(SHAPE, np.float32),
        "constant": np.full(SHAPE, 1, np.float32),
        "half black": below,
        "one bright pixel": np.eye(16, dtype=np.float32)[None].repeat(3, 0) * (np.arange(16) == 5),
        "saturated": np.where(noise > 0, np.float32(1), np.float32(0)),
    }


def _torch(model: nn.Module, x_CHW: Array) -> Array:
    with torch.no_grad():
        return model(torch.from_numpy(x_CHW[None])).numpy()


def _onnx(file: Path, x_CHW: Array) -> Array:
    return onnxruntime.InferenceSession(file).run(None, {"input": x_CHW[None]})[0]


@pytest.mark.parametrize(
    ("name", "epsilon"),
    # The smallest in every spelling; that others are kept by the same way is seen on some.
    [
        *((name, min(TINY)) for name in spellings(1e-8)),
        *((name, e) for e in TINY[:2] for name in list(spellings(e))[::6]),
    ],
)
def test_outputs_are_torchs_on_plain_images(name: str, epsilon: float, tmp_path: Path) -> None:
    model = _model(spellings(epsilon)[name])
    export_onnx(model, torch.zeros(1, *SHAPE), tmp_path, name="net")
    for picture, x_CHW in _pictures().items():
        wanted = _torch(model, x_CHW)
        assert np.isfinite(wanted).all() or name == "log of nearly one", picture
        np.testing.assert_allclose(_onnx(tmp_path / "net.onnx", x_CHW), wanted, rtol=1e-3, atol=1e-5, err_msg=picture)


def test_a_lost_epsilon_is_a_refusal_with_its_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the exporter's own rewrites lose it."""
    from onnxscript import optimizer

    monkeypatch.setattr(translation, "simplify", optimizer.optimize)
    model = _model(spellings(1e-10)["length + e"])
    with pytest.raises(ModelError, match=r"on the image 'half-black': at batch 1 'logits'\[0, 0\] is nan instead of 0"):
        export_onnx(model, torch.zeros(1, *SHAPE), tmp_path, name="net")
    assert not list(tmp_path.iterdir())


def test_what_is_small_beside_noise_but_wrong_for_its_image_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs of a thousand on noise, and of 1e-4 on a black image: half of that is off by less than 1e-4 of 1000."""
    from onnxscript import optimizer

    monkeypatch.setattr(translation, "simplify", optimizer.optimize)
    model = nn.Sequential(Scaled(1e7, 5e-9), nn.AvgPool2d(8), nn.Flatten()).eval()
    with pytest.raises(ModelError, match=r"on the image 'black': at batch 1 .* is 0 instead of 0.05, off by 0.05"):
        export_onnx(model, torch.zeros(1, 3, 8, 8), tmp_path, name="net")


class Scaled(nn.Module):
    def __init__(self, factor: float, offset: float) -> None:
        super().__init__()
        self.factor, self.offset = factor, offset

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return (x_BCHW.abs() + self.offset) * self.factor


def test_the_self_test_holds_noise_a_half_black_and_a_black_image(tmp_path: Path) -> None:
    model = _model(spellings(1e-12)["normalize"])
    artifact = export_onnx(model, torch.zeros(1, *SHAPE), tmp_path, name="net")
    with np.load(tmp_path / artifact.self_test) as arrays:
        noise, half, black = arrays["input"]
        for x_CHW, expected in zip(arrays["input"], arrays["expected"], strict=True):
            np.testing.assert_allclose(_torch(model, x_CHW)[0], expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(noise) == 4
    assert not half[:, :8].any()
    np.testing.assert_array_equal(half[:, 8:], noise[:, 8:])
    assert not black.any()


def test_where_torch_gives_nan_the_file_may_too(tmp_path: Path) -> None:
    """No epsilon at all: 0/0 on black images is what the model computes, and no device is tested on it."""
    model = _model(spellings(0.0)["length + e"])
    assert np.isnan(_torch(model, images(SHAPE)["black"])).all()
    artifact = export_onnx(model, torch.zeros(1, *SHAPE), tmp_path, name="net")
    with np.load(tmp_path / artifact.self_test) as arrays:
        assert len(arrays["input"]) == 1
        assert np.isfinite(arrays["expected"]).all()
    assert np.isnan(_onnx(tmp_path / "net.onnx", images(SHAPE)["black"])).all()


def test_a_model_that_magnifies_rounding_is_refused_with_the_reason(tmp_path: Path) -> None:
    """The sine of a large sum is nothing but the rounding of that sum, in torch as well."""

    class Magnified(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("factors", torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)))

        def forward(self, x_BCHW: Tensor) -> Tensor:
            return x_BCHW.mean((2, 3)) + (1e7 * (self.factors * x_BCHW).sum((1, 2, 3))).sin()[:, None]

    with pytest.raises(ModelError, match=r"disagrees.*; torch itself is off by .* from double precision there"):
        export_onnx(Magnified(), torch.zeros(1, *SHAPE), tmp_path, name="net")


def test_per_image_standardisation_at_the_input_is_exported(tmp_path: Path) -> None:
    class Standardised(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            centred = x_BCHW - x_BCHW.mean((1, 2, 3), keepdim=True)
            return centred / (x_BCHW.std((1, 2, 3), keepdim=True) + 1e-8)

    model = nn.Sequential(Standardised(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)).eval()
    export_onnx(model, torch.zeros(1, *SHAPE), tmp_path, name="net")
    for x_CHW in images(SHAPE).values():
        np.testing.assert_allclose(_onnx(tmp_path / "net.onnx", x_CHW), _torch(model, x_CHW), rtol=1e-3, atol=1e-5)


def test_images_are_always_the_same_and_their_sums_exact() -> None:
    found, again = images(SHAPE), images(SHAPE)
    assert tuple(found)[: len(STORED)] == STORED
    assert len(found) == 9
    for name, x_CHW in found.items():
        np.testing.assert_array_equal(x_CHW, again[name])
        assert x_CHW.shape == SHAPE
        assert x_CHW.dtype == np.float32
        np.testing.assert_array_equal(x_CHW * 32, np.round(x_CHW * 32))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 5), (1, 7, 1)])
def test_images_of_odd_shapes(shape: tuple[int, int, int]) -> None:
    assert {x_CHW.shape for x_CHW in images(shape).values()} == {shape}


def test_a_release_without_some_of_the_rules_and_passes_gives_the_same_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir.passes.common as passes
    from onnxscript.rewriter.rules import common

    for name in ("materialize_reshape_shape_rule", "fuse_batchnorm_into_conv_rule", "no_op_expand_rule"):
        monkeypatch.delattr(common, name)
    monkeypatch.delattr(passes, "OutputFixPass", raising=False)
    model = _model(spellings(1e-10)["batch norm"])
    export_onnx(model, torch.zeros(1, *SHAPE), tmp_path, name="net")
    black = images(SHAPE)["black"]
    np.testing.assert_allclose(_onnx(tmp_path / "net.onnx", black), _torch(model, black), rtol=1e-4, atol=1e-6)


def test_a_release_whose_rules_are_elsewhere_gives_the_same_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxscript.rewriter.rules

    monkeypatch.delattr(onnxscript.rewriter.rules, "common")
    monkeypatch.setitem(sys.modules, "onnxscript.rewriter.rules.common", None)
    model = _model(spellings(1e-10)["pixel norm"])
    export_onnx(model, torch.zeros(1, *SHAPE), tmp_path, name="net")
    black = images(SHAPE)["black"]
    np.testing.assert_allclose(_onnx(tmp_path / "net.onnx", black), _torch(model, black), rtol=1e-4, atol=1e-6)
