"""`prunit ladder` and `prunit shrink`: what they print, what they write, and what they refuse."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from prunit import zoo
from prunit.cut.store import load
from prunit.edge.portfolio import Portfolio
from tests.cli.running import prunit


def network(*, seed: int = 0) -> nn.Module:
    return zoo.load("resnet20", seed=seed)


def with_zeros() -> nn.Module:
    """Half of the filters of each convolution without weights; batch norms shift, so that constants matter."""
    model = network()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight[::2] = 0
            if isinstance(module, nn.BatchNorm2d):
                module.bias.uniform_(0, 1)
    return model.eval()


def test_a_checkpoint_with_zeros_becomes_small(tmp_path: Path) -> None:
    model, out = with_zeros(), tmp_path / "small.safetensors"
    torch.save({"state_dict": {f"module.{n}": t for n, t in model.state_dict().items()}}, tmp_path / "sparse.pt")
    result = prunit("shrink", "resnet20", tmp_path / "sparse.pt", "--out", out, "--export", "--pad", "off")
    assert result.code == 0, result.err
    for text in ("of the weights are zero", "merged into one constant", "outputs differ by", str(out), "small.onnx"):
        assert text in result.out.replace("\n", "")
    small, x_BCHW = load(out, network), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(small(x_BCHW), model(x_BCHW), rtol=1e-4, atol=1e-4)
    assert (tmp_path / "small.onnx").exists()
    assert prunit("inspect", out).code == 0
    result = prunit("shrink", "resnet20", tmp_path / "sparse.pt", "--out", out, "--json")
    found = json.loads(result.out)
    assert found["small"]["params"] == sum(p.numel() for p in small.parameters())
    assert found["channels"][1] < found["channels"][0]
    assert found["error"] < 1e-4


def test_widths_are_padded_where_that_was_asked_for(tmp_path: Path) -> None:
    model, out = with_zeros(), tmp_path / "small.safetensors"
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight[[1, 3]] = 0  # odd widths: one constant more stays
    torch.save(model.state_dict(), tmp_path / "sparse.pt")
    result = prunit("shrink", "resnet20", tmp_path / "sparse.pt", "--out", out, "--pad", 4, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["padding"]["channels"] >= found["padding"]["groups"] > 0
    assert found["padding"]["told"].startswith(f"padded {found['padding']['groups']} of 12 groups to multiples of 4: ")
    small, x_BCHW = load(out, network), torch.randn(2, 3, 32, 32)
    assert all(m.out_channels % 4 == 0 for m in small.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        torch.testing.assert_close(small(x_BCHW), model(x_BCHW), rtol=1e-4, atol=1e-4)
    assert "padded=padded" in " ".join(prunit("inspect", out).out.split())
    result = prunit("shrink", "resnet20", tmp_path / "sparse.pt", "--out", out, "--pad", 4)
    assert found["padding"]["told"] in result.out
    # Without a file for an engine nothing is timed; and what no number is named.
    result = prunit("shrink", "resnet20", tmp_path / "sparse.pt", "--out", out, "--json")
    assert json.loads(result.out)["padding"] == {"channels": 0, "groups": 0, "faster": {}, "told": ""}
    result = prunit("shrink", "resnet20", tmp_path / "sparse.pt", "--out", out, "--pad", "no")
    assert result.code == 2
    assert "setting sparse.pad='no': input should be a whole number of channels" in result.complaint


def test_several_weights_in_a_checkpoint_are_asked_for(tmp_path: Path) -> None:
    model, out = with_zeros(), tmp_path / "small.safetensors"
    averaged = {f"module.{n}": t for n, t in network(seed=1).state_dict().items()}
    torch.save({"state_dict": model.state_dict(), "state_dict_ema": averaged}, tmp_path / "c.pt")
    result = prunit("shrink", "resnet20", tmp_path / "c.pt", "--out", out)
    assert result.code == 2
    assert "'state_dict', 'state_dict_ema.module'; say which with --weights-key" in result.complaint
    assert not out.exists()
    result = prunit("shrink", "resnet20", tmp_path / "c.pt", "--out", out, "--weights-key", "state_dict")
    assert result.code == 0, result.err
    assert "weights from 'state_dict'; also there: 'state_dict_ema.module'" in result.out
    assert "of the weights are zero" in result.out
    result = prunit("shrink", "resnet20", tmp_path / "c.pt", "--out", out, "--weights-key", "state_dict_ema", "--json")
    assert json.loads(result.out)["zeros"] < 0.01


def test_masks_of_torch_are_applied_and_accuracy_is_measured(tmp_path: Path) -> None:
    model = zoo.load("resnet20", in_channels=1, image_size=8)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            prune.ln_structured(module, "weight", 0.5, n=1, dim=0)
    torch.save(model.state_dict(), tmp_path / "masked.pt")
    out = tmp_path / "small.safetensors"
    result = prunit(
        *("shrink", "resnet20", tmp_path / "masked.pt", "--out", out, "--data", "digits"), "--tolerance", 0.3, "--json"
    )
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["tolerance"] == 0.3
    assert found["zeros"] > 0.4
    assert len(found["accuracy"]) == 2


def test_mistakes_of_shrink_write_nothing(tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    good, other, odd, lame = (tmp_path / name for name in ("good.pt", "other.pt", "odd.pt", "lame.safetensors"))
    torch.save(network().state_dict(), good)
    torch.save(nn.Linear(2, 2).state_dict(), other)
    torch.save({"state_dict": 1}, odd)
    lame.write_bytes(b"no tensors")
    (tmp_path / "text.pt").write_text("no checkpoint")
    diverged = network()
    diverged.state_dict()["classifier.weight"][0, 0] = torch.nan
    torch.save(diverged.state_dict(), tmp_path / "nan.pt")
    for arguments, complaint in (
        (("resnet20", tmp_path / "no.pt"), "there is no checkpoint"),
        (("resnet20", other), "lacks 'stem.0.0.weight' of shape (16, 3, 3, 3)"),
        (("resnet20", odd), "holds no state dict"),
        (("resnet20", lame), "is no whole .safetensors file"),
        (("resnet20", tmp_path / "text.pt"), "is no checkpoint: it is text; save a state dict"),
        (("resnet20", tmp_path / "nan.pt"), "'classifier.weight' of shape (10, 64) holds 1 NaN of 640 values"),
        (("resnet20", good, "--input", "1x32x32"), "the shapes must be the dense ones"),
        (("resnet20", good, "--tolerance", 1.5), "at least 0 and below 1"),
        (("resnet21", good), "unknown model 'resnet21'"),
    ):
        result = prunit("shrink", *arguments, "--out", out)
        assert result.code == 2, result.out
        assert complaint in result.complaint
        assert not out.exists()
    result = prunit("shrink", "resnet20", good, "--out", tmp_path / "small.pt")
    assert "name a .safetensors file" in result.complaint
    result = prunit("shrink", "resnet20", good, "--out", out)
    assert "nothing was removed" in result.out


def test_a_ladder_is_a_portfolio(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = prunit(
        *("ladder", f"{net}:network", "--data", "digits", "--subset", 100, "--epochs", 2, "--device", "cpu"),
        *("--density", "1/4", "--density", "1/16", "--set", "sparse.fraction=0.5", "--set", "probe.seconds=0.01"),
        *("--set", "train.batch_size=50", "--pad", "off", "--out", out),
    )
    assert result.code == 0, result.err
    for text in ("density-1-4", "density-1-16", "report.html"):
        assert text in result.out
    assert [v.name for v in Portfolio.read(out).variants] == ["dense", "density-1-4", "density-1-16"]
    told = prunit("inspect", out)
    assert "dnnshifter, method imp, density 0.06" in " ".join(told.out.split())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--density", "2"), "density '2': it must lie between 0 and 1"),
        (("--method", "imq"), "unknown method 'imq'; did you mean 'imp'"),
        (("--data", "digit"), "did you mean 'digits'"),
    ],
)
def test_mistakes_of_ladder_write_nothing(options: tuple[str, str], complaint: str, tmp_path: Path) -> None:
    result = prunit("ladder", "resnet20", *options, "--out", tmp_path / "out")
    assert result.code == 2
    assert complaint in result.complaint
    assert not (tmp_path / "out").exists()
