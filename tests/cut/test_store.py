"""Weights files: exact round trips, built without dense memory, and one-line errors for whatever is not one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from prunit.cut.plan_files import read_plan
from prunit.cut.plans import Plan, keep_all
from prunit.cut.store import load, save
from prunit.cut.surgery import compact
from prunit.errors import FileError, ModelError, PlanError
from prunit.graph import trace
from prunit.version import VERSION
from tests.nets import NETS, Parameters, Plain, conv_bn, images, lived_in, random_plan, run


def saved(factory: Callable[[], nn.Module], path: Path, example: Tensor | None = None) -> tuple[nn.Module, Plan]:
    """A cut model in evaluation mode and its plan, written to `path`."""
    model = lived_in(factory())
    graph = trace(model, images() if example is None else example)
    plan = random_plan(graph)
    small = compact(model, graph, plan).eval()
    save(small, plan, path)
    return small, plan


@pytest.fixture
def file(tmp_path: Path) -> Path:
    saved(Plain, tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


@pytest.mark.parametrize("name", NETS)
def test_round_trip_is_bitwise(name: str, tmp_path: Path) -> None:
    factory, example = NETS[name]
    path = tmp_path / "small.safetensors"
    small, plan = saved(factory, path, example)
    loaded = load(path, factory)
    assert read_plan(path) == plan
    assert not loaded.training
    assert repr(loaded) == repr(small)
    tensors = dict(small.named_parameters()) | dict(small.named_buffers())
    for key, tensor in (*loaded.named_parameters(), *loaded.named_buffers()):
        assert torch.equal(tensor, tensors[key])
        assert tensor.device.type == "cpu"
    assert all(torch.equal(a, b) for a, b in zip(run(small, example), run(loaded, example), strict=True))


def test_a_trained_model_in_channels_last_and_half_precision(tmp_path: Path) -> None:
    model = lived_in(NETS["residual"][0]()).float()
    graph = trace(model, images().float())
    plan = random_plan(graph)
    small = compact(model, graph, plan).train()
    optimiser = torch.optim.SGD(small.parameters(), lr=0.1)
    small(images().float()).sum().backward()
    optimiser.step()
    # Only now: not every backward pass is safe in this format, see train/layout.py.
    small = small.to(torch.bfloat16, memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue, reportArgumentType]
    save(small, plan, tmp_path / "a")
    loaded = load(tmp_path / "a", NETS["residual"][0])
    example = images(dtype=torch.bfloat16)
    assert torch.equal(loaded(example), small(example))
    assert all(p.requires_grad and p.is_leaf for p in loaded.parameters())


def test_tied_tensors_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    saved(NETS["recurrent"][0], path)
    with safe_open(str(path), framework="pt") as opened:
        names, about = list(opened.keys()), json.loads(opened.metadata()["prunit"])
    assert "left.weight" in names
    assert "right.weight" not in names
    assert about["aliases"] == {"right.weight": "left.weight"}
    assert about["prunit"] == VERSION
    loaded = load(path, NETS["recurrent"][0])
    assert loaded.get_parameter("left.weight") is loaded.get_parameter("right.weight")


def test_views_of_one_memory_are_stored_apart(tmp_path: Path) -> None:
    def factory() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
        model[1].weight = nn.Parameter(model[0].weight.detach())
        return model

    model = factory()
    save(model, Plan({}, {}), tmp_path / "a")
    loaded = load(tmp_path / "a", factory)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_buffers_that_a_state_dict_leaves_out_come_back_cut(tmp_path: Path) -> None:
    small, plan = saved(Parameters, tmp_path / "a")
    assert len(plan.keep["stem.0"]) < 6
    assert "blur" not in small.state_dict()
    assert torch.equal(load(tmp_path / "a", Parameters).get_buffer("blur"), small.get_buffer("blur"))


def test_the_loaded_model_is_independent_of_the_file(file: Path, tmp_path: Path) -> None:
    small = load(file, Plain)
    before = {n: t.clone() for n, t in small.state_dict().items()}
    file.write_bytes(b"\0" * file.stat().st_size)
    assert all(torch.equal(t, before[n]) for n, t in small.state_dict().items())


# ── building the dense model ──


def test_the_dense_model_takes_no_memory_and_no_random_numbers(file: Path) -> None:
    devices: list[str] = []

    def factory() -> nn.Module:
        model = Plain()
        devices.append(model.second.weight.device.type)
        return model

    state = torch.random.get_rng_state()
    load(file, factory)
    assert devices == ["meta"]
    assert torch.equal(torch.random.get_rng_state(), state)


class Computing(Plain):
    """Cannot be built on the meta device: it looks at a value."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = torch.linspace(0, 1, 3)[1].item()


class Keeping(Plain):
    """Holds a tensor that no state dict knows."""

    def __init__(self) -> None:
        super().__init__()
        self.constants = {"shift": [torch.full((1,), 2.0, dtype=torch.float64)]}

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + self.constants["shift"][0])


@pytest.mark.parametrize("factory", [Computing, Keeping])
def test_factories_that_need_real_values_are_called_again_for_them(
    factory: Callable[[], nn.Module], tmp_path: Path
) -> None:
    small, _ = saved(factory, tmp_path / "a")
    state = torch.random.get_rng_state()
    loaded = load(tmp_path / "a", factory)
    assert torch.equal(loaded(images()), small(images()))
    assert torch.equal(torch.random.get_rng_state(), state)


# ── what cannot be read ──


def test_what_is_missing_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read '.*nothing'|'.*nothing' is not a whole .safetensors file"):
        load(tmp_path / "nothing", Plain)
    with pytest.raises(FileError, match=str(tmp_path)):
        load(tmp_path, Plain)


@pytest.mark.parametrize("reader", [read_plan, lambda path: load(path, Plain)], ids=["read_plan", "load"])
@pytest.mark.parametrize("size", [0, 5, 100, 2000, -1])
def test_a_truncated_file_is_refused_in_one_line(reader: Callable[[Path], Any], size: int, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(
        FileError, match=r"small.safetensors' is not a whole .safetensors file of prunit: Safetensor"
    ) as caught:
        reader(file)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    text, other = tmp_path / "plan.json", tmp_path / "other.safetensors"
    text.write_text("{}" * 100)
    with pytest.raises(FileError, match=r"plan.json' is not a whole .safetensors file"):
        load(text, Plain)
    save_file({"a": torch.ones(2)}, other)
    with pytest.raises(FileError, match=r"other.safetensors' holds tensors but no plan"):
        load(other, Plain)


def rewrite(path: Path, changes: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> None:
    """Replace some of what the file says of itself (None: remove it) or all its tensors."""
    with safe_open(str(path), framework="pt") as opened:
        old = {n: opened.get_tensor(n).clone() for n in opened.keys()}
        about = json.loads(opened.metadata()["prunit"]) | changes
    text = json.dumps({k: v for k, v in about.items() if v is not None})
    save_file(old if tensors is None else tensors, path, {"prunit": text})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"version": 2, "prunit": "9.1"}, FileError, "was written by prunit 9.1, which this one"),
        ({"version": "two"}, FileError, "is not a whole .safetensors file of prunit"),
        ({"plan": None}, FileError, "is not a whole .safetensors file of prunit: KeyError: 'plan'"),
        ({"plan": {}}, PlanError, "small.safetensors': not a plan"),
        ({"aliases": [1]}, FileError, "is not a whole .safetensors file of prunit"),
        ({"aliases": {"x": "y"}}, FileError, "is not a whole .safetensors file of prunit: KeyError: 'y'"),
    ],
)
def test_metadata_that_does_not_hold_up(
    changes: dict[str, Any], error: type[Exception], message: str, file: Path
) -> None:
    rewrite(file, changes)
    with pytest.raises(error, match=message):
        load(file, Plain)


class Deeper(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.extra = conv_bn(8, 8)


class Tied(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.twin = nn.Conv2d(6, 8, 3)
        self.twin.weight = self.second.weight


class Untied(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.twin.weight = nn.Parameter(self.second.weight.detach().clone())


class Narrower(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(6, 2, 3)


@pytest.mark.parametrize(
    ("written", "factory", "message"),
    [
        (Plain, Deeper, "does not fit Deeper: the file lacks 'extra.0.weight'"),
        (Deeper, Plain, "does not fit Plain: the model lacks 'extra.0.weight'"),
        (
            Plain,
            Narrower,
            r"'second.weight' has shape \(8, 6, 3, 3\) in the file and \(2, 6, 3, 3\) in the",
        ),
        (Untied, Tied, "'twin.weight' is tied to 'second.weight' in the model, but not in the file"),
    ],
)
def test_a_file_for_another_factory_is_refused(
    written: Callable[[], nn.Module], factory: Callable[[], nn.Module], message: str, tmp_path: Path
) -> None:
    model = lived_in(written())
    graph = trace(model, images())
    save(compact(model, graph, keep_all(graph)), keep_all(graph), tmp_path / "a")
    with pytest.raises(FileError, match=message + ".* was it saved from another factory"):
        load(tmp_path / "a", factory)


def test_a_tensor_of_another_kind_or_rank_is_refused(file: Path) -> None:
    with safe_open(str(file), framework="pt") as opened:
        tensors = {n: opened.get_tensor(n).clone() for n in opened.keys()}
    for name, wrong, message in (
        ("second.bias", tensors["second.bias"].long(), "'second.bias' holds torch.int64 in the file and torch.float"),
        ("second.bias", tensors["second.bias"][:, None], r"'second.bias' has shape \(\d, 1\) in the file and \(8,\)"),
    ):
        rewrite(file, {}, tensors | {name: wrong})
        with pytest.raises(FileError, match=message):
            load(file, Plain)


def test_a_factory_that_returns_no_module_is_named(file: Path) -> None:
    with pytest.raises(ModelError, match=r"the factory returned a int, not an nn.Module"):
        load(file, lambda: 3)  # pyright: ignore[reportArgumentType, reportReturnType]


# ── what cannot be written ──


def test_a_failed_write_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileError, match=r"cannot write '.*small.safetensors': No space left on device"):
        saved(Plain, file)
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    shutil.rmtree(file.parent)


def test_a_model_without_values_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"'first.0.weight' holds no values, it is on the meta device"):
        save(Plain().to("meta"), Plan({}, {}), tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", [Plain(), nn.Identity(), nn.DataParallel(Plain())])
def test_a_model_in_place_of_its_factory_is_refused_by_name(model: nn.Module, tmp_path: Path) -> None:
    saved(Plain, tmp_path / "small.safetensors")
    wanted = f"needed is a function that makes the dense {type(model).__name__}, not the model itself"
    with pytest.raises(ModelError, match=wanted):
        load(tmp_path / "small.safetensors", model)
