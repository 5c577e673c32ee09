"""timm and torchvision by name; the tests that need them are left out where they are not installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from prunit import zoo
from prunit.errors import MissingExtraError, ModelError, UnknownNameError
from prunit.zoo import external


def installed(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed (prunit[zoo]): {', '.join(missing)}")


needs_timm = installed("timm", "torchvision")
needs_torchvision = installed("torchvision")


@needs_timm
def test_a_timm_model_has_the_asked_classes_and_channels() -> None:
    one, same = (zoo.load("timm:resnet18", num_classes=7, in_channels=1, seed=3).eval() for _ in range(2))
    x_BCHW = torch.zeros(2, 1, 64, 64)
    assert one(x_BCHW).shape == (2, 7)
    assert torch.equal(one(x_BCHW), same(x_BCHW))


@needs_timm
def test_a_timm_model_for_one_size_gets_the_size() -> None:
    with torch.device("meta"):
        model = zoo.load("timm:vit_tiny_patch16_224", image_size=64)
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 10)


@needs_timm
def test_a_timm_model_that_cannot_be_built() -> None:
    with pytest.raises(
        ModelError, match=r"timm:pit_ti_224 cannot be built with num_classes=10, in_chans=3, img_size=4"
    ):
        zoo.load("timm:pit_ti_224", image_size=4)


@needs_timm
@pytest.mark.parametrize("name", ["resnet19", "hf-hub:someone/resnet19"])
def test_an_unknown_timm_model_names_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"unknown timm model '{name}'; did you mean '.*resnet18.*5 of "):
        zoo.load(f"timm:{name}")


@needs_torchvision
@pytest.mark.parametrize("name", ["resnet18", "googlenet", "vit_b_16"])
def test_a_torchvision_model_gives_one_tensor(name: str) -> None:
    with torch.device("meta"):
        model = zoo.load(f"torchvision:{name}", num_classes=7, image_size=64)
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 7)


@needs_torchvision
def test_an_unknown_torchvision_model_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown torchvision model 'resnet19'; did you mean 'resnet18'\?"):
        zoo.load("torchvision:resnet19")


@needs_torchvision
def test_a_torchvision_model_reads_three_channels_only() -> None:
    with pytest.raises(ModelError, match=r"torchvision:resnet18 reads images of 3 channels, these have 1"):
        zoo.load("torchvision:resnet18", in_channels=1)


@needs_torchvision
def test_a_torchvision_model_that_cannot_be_built() -> None:
    with pytest.raises(ModelError, match=r"torchvision:vit_b_16 cannot be built with num_classes=10, image_size=33:"):
        zoo.load("torchvision:vit_b_16", image_size=33)


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, package, None)  # how Python marks a module that must not be found
    with pytest.raises(MissingExtraError, match=rf"{package}:resnet18 needs the package '{package}': .*prunit\[zoo\]"):
        zoo.load(f"{package}:resnet18")


def test_a_torchvision_that_can_be_imported_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("declared operators although nothing was wrong")

    whole = ModuleType("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", whole)
    monkeypatch.setattr(external, "_declare_operators", refuse)
    assert external.imported("torchvision", needed_by="torchvision:x") is whole


FAKE_TORCHVISION = """
import torch
from torchvision import part
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
torch.library.register_fake("torchvision::qnms")(lambda dets, scores, iou_threshold: dets)
"""
IMPORT_TWICE = """
import torch
from prunit.zoo import external
try:
    import torchvision
except RuntimeError as error:
    assert "operator torchvision::nms does not exist" in str(error)
else:
    raise AssertionError("the fake should have failed")
first = external.imported("torchvision", needed_by="torchvision:x")
assert external.imported("torchvision", needed_by="torchvision:x") is first
assert hasattr(torch.ops.torchvision, "nms")
"""


def run_with(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """`code` in a Python of its own, as operators stay declared for good; modules in `folder` come first."""
    source = Path(external.__file__).parents[2]
    program = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(source)!r}]\n{code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_operators_are_declared_for_a_torchvision_built_for_cuda(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(FAKE_TORCHVISION)
    (tmp_path / "torchvision" / "part.py").write_text("")
    guarded = run_with(tmp_path, IMPORT_TWICE)
    assert guarded.returncode == 0, guarded.stderr


def test_a_torchvision_broken_in_another_way_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('another reason')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModelError, match=r"'torchvision' cannot be imported: RuntimeError: another reason"):
        zoo.load("torchvision:resnet18")
