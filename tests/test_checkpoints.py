"""Weights out of the checkpoints of other tools: found by what fits, asked for or refused in one line."""

import argparse
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

import prunit
from prunit.errors import ConfigError, FileError, ModelError, UnknownNameError


class Net(nn.Module):
    """Two parts and a head, as a user writes them."""

    def __init__(self, deep: int = 1, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.layer = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(deep)))
        self.fc = nn.Linear(4, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.fc(self.layer(self.features(x_BCHW).relu()).mean((2, 3)))


def net(seed: int = 0, deep: int = 1, classes: int = 3) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(deep, classes)


WANTED = net(1).state_dict()
OTHER = net(2).state_dict()


def under(prefix: str, state: Mapping[str, Tensor] = WANTED) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def parts(**prefixes: str) -> dict[str, Tensor]:
    """Each part of the network below a prefix of its own."""
    return {f"{prefixes[n.split('.')[0]]}{n}": t for n, t in WANTED.items()}


LOSS = {"loss.weight": torch.ones(3)}
FORMS: dict[str, Any] = {
    "plain": WANTED,
    "ordered": OrderedDict(WANTED),
    "module._orig_mod.": under("module._orig_mod."),
    "_orig_mod.module.": under("_orig_mod.module."),
    "model.module.": under("model.module."),
    "averaged": AveragedModel(net(1)).state_dict(),
    "model. beside a loss": {"state_dict": under("model.") | LOSS, "epoch": 3},
    "names beside a loss": WANTED | LOSS,
    "names beside a list of losses": WANTED | {"criteria.criterion.0.weight": torch.ones(3)},
    "backbone.": under("backbone."),
    "a word that nobody foresaw": under("zebra.quagga."),
    "net": {"net": WANTED, "epoch": 3},
    "weights": {"weights": WANTED, "args": {"lr": 0.1, "names": ["a", "b"]}},
    "params_ema": {"params_ema": WANTED},
    "ema.module as dicts": {"ema": {"module": WANTED, "updates": 10}},
    "ema.module as one key": {"ema.module": WANTED},
    "deep": {"a": {"b": [{"model_state_dict": under("module.")}, 3]}},
    "a dict for each module": {"net": {"features": {"0": {}}, **WANTED}},
    "optimizer beside": {
        "model": WANTED,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(4, 3, 3, 3), "step": torch.tensor(1.0)}}},
    },
    "a part in DataParallel": {n.replace("features.", "features.module."): t for n, t in WANTED.items()},
    "a part compiled": under("net.", {n.replace("layer.", "layer._orig_mod."): t for n, t in WANTED.items()}),
    "some with a prefix": parts(features="module.", layer="module.", fc=""),
    "two prefixes": parts(features="backbone.", layer="backbone.", fc="head."),
    "counters of a profiler": WANTED | {"total_ops": torch.zeros(1), "fc.total_params": torch.zeros(1)},
    "without counters": {n: t for n, t in WANTED.items() if not n.endswith("num_batches_tracked")},
    "in half precision": {n: t.half() if t.is_floating_point() else t for n, t in WANTED.items()},
    "stored sparse": {n: t.to_sparse() if n == "fc.weight" else t for n, t in WANTED.items()},
    "the same twice": {"state_dict": WANTED, "state_dict_ema": {n: t.clone() for n, t in WANTED.items()}},
    "an average that lacks buffers": {
        "model": WANTED,
        "ema": {n: t + 1 for n, t in WANTED.items() if "running" not in n and "num" not in n},
    },
    "ema of another shape": {"model": WANTED, "ema": net(3, classes=5).state_dict()},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_weights_are_found(form: str, tmp_path: Path) -> None:
    file, model = tmp_path / "c.pt", net()
    torch.save(FORMS[form], file)
    found = prunit.read_weights(file, model)
    model.load_state_dict(found.tensors)
    for name, tensor in WANTED.items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", [f for f, held in FORMS.items() if all(isinstance(t, Tensor) for t in held.values())])
def test_safetensors_are_read_alike(form: str, tmp_path: Path) -> None:
    tensors = {n: (t.to_dense() if t.is_sparse else t).clone() for n, t in FORMS[form].items()}
    for name in ("c.safetensors", "c.bin"):  # the ending does not matter
        save_file(tensors, tmp_path / name)
        found = prunit.read_weights(tmp_path / name, net())
        torch.testing.assert_close(found.tensors["fc.weight"].float(), WANTED["fc.weight"], rtol=1e-3, atol=1e-3)


def test_what_was_taken_is_said(tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    torch.save({"state_dict": under("module."), "ema": {"fc.weight": WANTED["fc.weight"]}}, file)
    found = prunit.read_weights(file, net())
    assert (found.key, found.others) == ("state_dict.module", ())
    assert found.told == "weights from 'state_dict.module'"
    torch.save(WANTED, file)
    assert prunit.read_weights(file, net()).told == ""
    torch.save(FORMS["an average that lacks buffers"], file)
    assert prunit.read_weights(file, net()).told == "weights from 'model'; also there: 'ema'"


def test_an_average_of_parameters_alone_gets_its_buffers_from_the_model(tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    torch.save(FORMS["an average that lacks buffers"], file)
    found = prunit.read_weights(file, net(), key="ema")
    assert torch.equal(found.tensors["fc.weight"], WANTED["fc.weight"] + 1)
    assert torch.equal(found.tensors["features.1.running_var"], WANTED["features.1.running_var"])
    assert found.told == "weights from 'ema' and 'model'"
    torch.save({"model": WANTED, "ema": {"fc.weight": WANTED["fc.weight"]}}, file)
    with pytest.raises(FileError, match="1 of its 11 tensors are there below 'ema' by name and shape; it lacks 'feat"):
        prunit.read_weights(file, net(), key="ema")


def test_parts_below_different_prefixes_are_said(tmp_path: Path) -> None:
    for form, told in (("some with a prefix", "'module' and the top"), ("two prefixes", "'backbone' and 'head'")):
        torch.save(FORMS[form], tmp_path / "c.pt")
        assert prunit.read_weights(tmp_path / "c.pt", net()).told == f"weights from {told}"


def test_what_stands_beside_the_network_is_left_out_if_one_says_so(tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    torch.save(WANTED | {"arcface.weight": torch.ones(3)}, file)
    with pytest.raises(FileError, match=r"'arcface\.weight' .* \(if that is no part of .* with --weights-key \.\)"):
        prunit.read_weights(file, net())
    assert torch.equal(prunit.read_weights(file, net(), key=".").tensors["fc.bias"], WANTED["fc.bias"])
    torch.save({"model": net(deep=2).state_dict()}, file)  # a part of the network itself is not left out
    for key in (None, "model"):
        with pytest.raises(FileError, match=r"it has 'layer\.1\.weight' of shape"):
            prunit.read_weights(file, net(), key=key)


SEVERAL: dict[str, tuple[Any, list[str]]] = {
    "two dicts": ({"state_dict": WANTED, "state_dict_ema": OTHER}, ["state_dict", "state_dict_ema"]),
    "two prefixes": (under("student.") | under("teacher.", OTHER), ["student", "teacher"]),
    "below one key": (
        {"state_dict": under("student.module.") | under("teacher.module.", OTHER)},
        ["student", "teacher"],
    ),
    "an average beside names": (WANTED | under("ema_model.module.", OTHER), [".", "ema_model"]),
    "a list": ({"models": [WANTED, OTHER]}, ["models.0", "models.1"]),
    "three": ({"a": WANTED, "b": OTHER, "c": {"d": net(3).state_dict()}}, ["a", "b", "c.d"]),
}


@pytest.mark.parametrize("form", SEVERAL)
def test_several_different_ones_are_asked_for(form: str, tmp_path: Path) -> None:
    file, (held, keys) = tmp_path / "c.pt", SEVERAL[form]
    torch.save(held, file)
    with pytest.raises(ConfigError, match=f"holds {len(keys)} different sets of weights that fit") as caught:
        prunit.read_weights(file, net())
    assert "--weights-key" in str(caught.value)
    for key, wanted in zip(keys, (WANTED, OTHER, net(3).state_dict()), strict=False):
        assert key in str(caught.value) or key == "."
        found = prunit.read_weights(file, net(), key=key)
        torch.testing.assert_close(found.tensors["fc.weight"], wanted["fc.weight"], rtol=0, atol=0)
        assert found.others
    with pytest.raises(UnknownNameError, match=r"unknown key in '.*c\.pt' 'state_dikt'"):
        prunit.read_weights(file, net(), key="state_dikt")


def test_a_model_inside_of_another_takes_the_weights_of_the_inner_one(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

    file, model = tmp_path / "c.pt", Wrapped()
    for form in (WANTED, under("net."), under("model.net."), {"ema": under("module.")}):
        torch.save(form, file)
        found = prunit.read_weights(file, model)
        assert torch.equal(found.tensors["net.fc.weight"], WANTED["fc.weight"])


def test_tied_weights_are_needed_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(3, 3)
            self.two = nn.Linear(3, 3)
            self.two.weight = self.one.weight

    model = Tied()
    wanted = {n: torch.full_like(t, 2.0) for n, t in model.state_dict().items() if n != "two.weight"}
    torch.save(wanted, tmp_path / "c.pt")
    found = prunit.read_weights(tmp_path / "c.pt", model)
    assert torch.equal(found.tensors["two.weight"], wanted["one.weight"])


def test_masks_are_applied_below_any_prefix(tmp_path: Path) -> None:
    model = net(1)
    prune.ln_structured(model.fc, "weight", 0.5, n=1, dim=1)
    torch.save({"net": under("module.", model.state_dict())}, tmp_path / "c.pt")
    found = prunit.read_weights(tmp_path / "c.pt", net())
    assert torch.equal(found.tensors["fc.weight"], model.fc.weight)
    assert (found.tensors["fc.weight"] == 0).sum() == 6


REFUSED: dict[str, tuple[Any, str]] = {
    "a deeper network": (
        net(deep=2).state_dict(),
        "11 of its 11 tensors are there by name and shape; it has 'layer.1.weight' of shape",
    ),
    "another head": (
        {"model": net(classes=5).state_dict()},
        r"9 of its 11 tensors are there below 'model' by name and shape; 'fc.weight' has shape \(5, 4\) in it and"
        r" \(3, 4\) in the model, 'fc.bias' has .* \(the shapes must be the dense ones, .*\): is it for 5 classes\?"
        r" Then --classes 5 \(in Python num_classes=5\)$",
    ),
    "another head and a bias more": (
        net(classes=5).state_dict() | {"layer.0.gain": torch.ones(4)},
        r"'fc.weight' has shape .*: is it of another model\?$",
    ),
    "wider features": (
        WANTED | {"fc.weight": torch.ones(3, 7)},
        r"'fc.weight' has shape \(3, 7\) in it and .*: is it of another model\?$",
    ),
    "a head of one layer wider alone": (
        WANTED | {"fc.weight": torch.ones(5, 4)},
        r"is it for 5 classes\?",
    ),
    "two layers of other widths": (
        {name: t if "weight" not in name or t.dim() < 2 else torch.cat([t, t]) for name, t in WANTED.items()},
        r"is it of another model\?$",
    ),
    "a part alone": (
        {n: t for n, t in WANTED.items() if not n.startswith("fc")},
        r"it lacks 'fc.weight' of shape \(3, 4\), 'fc.bias' of shape \(3,\): is it of another model\?",
    ),
    "a bias more": (
        WANTED | {"layer.0.gain": torch.ones(4)},
        "it has 'layer.0.gain' of shape .*, which the model lacks",
    ),
    "a stage more": (WANTED | {"neck.weight": torch.ones(4, 4)}, "it has 'neck.weight' of shape"),
    "integers": ({n: t.to(torch.int8) for n, t in WANTED.items()}, "tensors are there"),
    "another network": (nn.Linear(2, 2).state_dict(), "0 of its 11 tensors .*it lacks 'features.0.weight' of shape"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_does_not_fit_is_refused_with_the_nearest(form: str, tmp_path: Path) -> None:
    file, (held, message) = tmp_path / "c.pt", REFUSED[form]
    torch.save(held, file)
    with pytest.raises(FileError, match=f"'.*c.pt' does not fit Net: .*({message})") as caught:
        prunit.read_weights(file, net())
    assert "\n" not in str(caught.value)


def test_the_original_of_a_spectral_norm_is_not_the_weight(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the versions of torch that call it old
        model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(2, 2)))
    torch.save(model.state_dict(), tmp_path / "c.pt")
    with pytest.raises(FileError, match=r"lacks '0\.weight'"):
        prunit.read_weights(tmp_path / "c.pt", nn.Sequential(nn.Linear(2, 2)))


def test_values_that_are_not_finite_are_named_and_counted(tmp_path: Path) -> None:
    state = {n: t.clone() for n, t in WANTED.items()}
    state["layer.0.weight"].view(-1)[:3] = torch.nan
    state["layer.0.weight"].view(-1)[3] = torch.inf
    torch.save({"ema": state}, tmp_path / "c.pt")
    message = (
        r"'ema.layer.0.weight' of shape \(4, 4, 1, 1\) holds 3 NaN and 1 infinite of 16 values; the training diver"
    )
    with pytest.raises(ModelError, match=message):
        prunit.read_weights(tmp_path / "c.pt", net())


def test_a_file_that_holds_itself_is_read(tmp_path: Path) -> None:
    held: dict[str, Any] = {"model": WANTED, "list": []}
    held["itself"] = held
    held["list"].append(held["list"])
    torch.save(held, tmp_path / "c.pt")
    assert prunit.read_weights(tmp_path / "c.pt", net()).tensors.keys() == WANTED.keys()


def test_code_in_a_file_is_named_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": WANTED, "args": argparse.Namespace(lr=1)}, tmp_path / "c.pt")
    with pytest.raises(FileError, match=re.escape("it holds an object of the class argparse.Namespace, which is code")):
        prunit.read_weights(tmp_path / "c.pt", net())


@pytest.mark.parametrize("held", [3, "text", [1, 2], {}, {"state_dict": 1}, torch.ones(3)])
def test_a_file_without_a_state_dict_says_so(held: object, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "c.pt")
    with pytest.raises(FileError, match="holds no state dict"):
        prunit.read_weights(tmp_path / "c.pt", net())


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = net()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    torch.save(WANTED, tmp_path / "c.pt")
    found = prunit.read_weights(tmp_path / "c.pt", model)
    for tensor in found.tensors.values():
        tensor.zero_()
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "it is an image; save a state dict"),
        (b"import torch\n\n\ndef make():\n", "it is text; save a state dict"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (None, "an archive that ends too early"),
    ],
)
def test_what_a_download_left_in_place_of_a_checkpoint_is_named(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    file, model = tmp_path / "net.pt", nn.Linear(64, 64)
    if content is None:
        torch.save(model.state_dict(), file)
        content = file.read_bytes()[:-2000]
    file.write_bytes(content)
    with pytest.raises(FileError, match=f"net.pt' is no checkpoint: .*{message}"):
        prunit.read_weights(file, model)
