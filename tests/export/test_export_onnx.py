import errno
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from prunit.edge.portfolio import Artifact
from prunit.edge.session import Array
from prunit.errors import ConfigError, FileError, ModelError, UnknownNameError
from prunit.export import exporter
from prunit.export import onnx as onnx_exporter
from prunit.export.images import seeded_input
from prunit.export.onnx import export_onnx
from prunit.export.translation import Translation
from prunit.files import sha256_of
from tests.export.toynets import build, example


class Returning(nn.Module):
    """A convolution whose output passes through `change`."""

    def __init__(self, change: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.change = change

    def forward(self, x_BCHW: Tensor) -> object:
        assert callable(self.change)
        return self.change(self.conv(x_BCHW))


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    """A folder with one exported network, which is not to be changed."""
    folder = tmp_path_factory.mktemp("small")
    return folder, export_onnx(build("depthwise"), example(), folder, name="small")


def test_files_and_record_agree(small: tuple[Path, Artifact]) -> None:
    folder, artifact = small
    assert _files(folder) == ["small.onnx", "small.selftest.npz"]
    assert artifact.sha256 == sha256_of(folder / "small.onnx")
    assert artifact.bytes == (folder / "small.onnx").stat().st_size
    assert artifact.self_test_sha256 == sha256_of(folder / "small.selftest.npz")
    assert (artifact.input_name, artifact.output_name) == ("input", "logits")
    assert artifact.input_shape == (3, 8, 8)
    with np.load(folder / "small.selftest.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["expected", "input"]
        assert arrays["input"].shape == (3, 3, 8, 8)
        assert arrays["input"].dtype == arrays["expected"].dtype == np.float32
        # 1e-4, the default, of the largest output
        assert artifact.tolerance == pytest.approx(1e-4 * np.abs(arrays["expected"]).max())


def test_batch_norm_is_folded_and_batch_is_free(small: tuple[Path, Artifact]) -> None:
    model = onnx.load(small[0] / "small.onnx")
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("Conv") == 3
    assert "BatchNormalization" not in operators
    for value in (model.graph.input[0], model.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [entry.version for entry in model.opset_import] == [18]


def test_same_model_same_bytes_and_no_folder_of_this_machine(small: tuple[Path, Artifact], tmp_path: Path) -> None:
    export_onnx(build("depthwise"), example(), tmp_path, name="again")
    data = (tmp_path / "again.onnx").read_bytes()
    assert data == (small[0] / "small.onnx").read_bytes()
    assert (tmp_path / "again.selftest.npz").read_bytes() == (small[0] / "small.selftest.npz").read_bytes()
    for trace in (b".py", b"site-packages", b"torch.nn", str(Path.cwd()).encode()):
        assert trace not in data


def test_model_and_random_state_stay_as_they_were(tmp_path: Path) -> None:
    model = build("residual")
    model.block.eval()  # a mixture of modes, which one train() at the end would lose
    modes = {name: module.training for name, module in model.named_modules()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.random.get_rng_state()
    export_onnx(model, example(), tmp_path, name="net")
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_input_channel_and_channels_last(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(180, 2))
    artifact = export_onnx(model.to(memory_format=torch.channels_last), example(1), tmp_path, name="grey")
    assert artifact.input_shape == (1, 8, 8)


def test_an_output_of_zeros_has_a_tolerance(tmp_path: Path) -> None:
    model = build("linear")
    nn.init.zeros_(model[3].weight)
    nn.init.zeros_(model[3].bias)
    assert export_onnx(model, example(), tmp_path, name="zeros").tolerance == 1e-6


def test_mismatch_says_how_much_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = onnx_exporter.finished

    def off_by_a_half(translation: Translation) -> bytes:
        proto = onnx.load_from_string(whole(translation))
        bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "3.bias")
        changed = onnx.numpy_helper.to_array(bias) + np.array([0, 0, 0.5, 0], np.float32)
        bias.CopyFrom(onnx.numpy_helper.from_array(changed, "3.bias"))
        return proto.SerializeToString()

    monkeypatch.setattr(onnx_exporter, "finished", off_by_a_half)
    with pytest.raises(ModelError, match=r"disagrees.* at batch 1 'logits'\[0, 2\] is .*off by 0.5 .* nothing was"):
        export_onnx(build("linear"), example(), tmp_path, name="net")
    assert _files(tmp_path) == []


def test_a_failed_export_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").write_bytes(b"older")

    def full_disk(*args: object, **arrays: Array) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx_exporter, "_serialised", lambda *_: b"new")
    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(FileError, match=r"cannot write '.*net.selftest.npz': No space left on device"):
        export_onnx(build("concat"), example(), tmp_path, name="net")
    assert (tmp_path / "net.onnx").read_bytes() == b"older"
    assert _files(tmp_path) == ["net.onnx"]


def test_a_folder_that_is_a_file_is_a_file_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_exporter, "_serialised", lambda *_: b"new")
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match=r"cannot write '.*taken/net.onnx': .*exists"):
        export_onnx(build("linear"), example(), tmp_path / "taken", name="net")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: {"loss": None}, "returns a dict without a tensor: there is nothing to export"),
        (lambda y: y.sum(), r"returns shape \(\), whose first dimension is not the batch"),
        (lambda y: y.double(), "returns torch.float64, and only torch.float32"),
        (lambda y: y / 0, "returns NaN or infinite values"),
        (
            lambda y: y.view(7, 7),
            r"shape \(3, 3, 8, 8\) the model failed with RuntimeError: shape '\[7, 7\]'",
        ),
        (lambda y: y if y.sum() > 0 else -y, "cannot export Returning to ONNX: Could not guard on data-dependent"),
        (
            lambda y: y.reshape(3, -1)[: y.shape[0]] if y.shape[0] == 3 else y.reshape(1, -1),
            "works for one batch size only",
        ),
        (lambda y: torch.linalg.eigvals(y[..., :4, :4]).real, "to ONNX: .*No ONNX function found for .*linalg"),
    ],
)
def test_models_that_cannot_be_exported(
    change: object, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        export_onnx(Returning(change), example(), tmp_path, name="net")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert _files(tmp_path) == []


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Flatten(), (8, 8), r"an example of shape \(8, 8\): it must be images"),
        (nn.Conv2d(3, 4, 3).half(), (1, 3, 8, 8), r"weights of type float16: pass model.float\(\)"),
        (nn.Conv2d(3, 4, 3, device="meta"), (1, 3, 8, 8), "meta device"),
    ],
)
def test_wrong_arguments(model: nn.Module, shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        export_onnx(model, torch.zeros(shape), tmp_path, name="net")


@pytest.mark.parametrize("name", ["", "../net", "a/b", ".hidden", "a b", "ü"])
def test_names_that_are_no_file_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"cannot export as '{name}': a name has letters, digits")):
        export_onnx(build("linear"), example(), tmp_path, name=name)


def test_seeded_input_is_spread_like_normalised_pixels() -> None:
    x_BCHW = seeded_input(3, (3, 32, 32))
    np.testing.assert_array_equal(x_BCHW, seeded_input(3, (3, 32, 32)))
    assert abs(x_BCHW.mean()) < 0.05
    assert x_BCHW.std() == pytest.approx(4 / 12**0.5, rel=0.05)  # uniform over a range of 4


def test_exporter_by_name() -> None:
    assert exporter() is export_onnx
    assert exporter(export_onnx) is export_onnx
    with pytest.raises(UnknownNameError, match="unknown export format 'onx'; did you mean 'onnx'"):
        exporter("onx")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_on_the_gpu_gives_the_same_file(tmp_path: Path) -> None:
    export_onnx(build("plain"), example(), tmp_path, name="cpu")
    model = build("plain").cuda()
    export_onnx(model, example().cuda(), tmp_path, name="gpu")
    assert (tmp_path / "cpu.onnx").read_bytes() == (tmp_path / "gpu.onnx").read_bytes()
    assert next(model.parameters()).is_cuda
