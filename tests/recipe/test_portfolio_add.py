"""Models trained by a loop of one's own in a portfolio: what `prunit.portfolio.add` writes, and what it refuses."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunit
from prunit.cut.plans import Plan
from prunit.edge.measuring.probe import ProbeSettings
from prunit.edge.portfolio import Portfolio
from prunit.edge.precision import Lowered
from prunit.edge.runtimes import runtime
from prunit.edge.session import self_test
from prunit.edge.tasks.detection import DeviceDetection
from prunit.errors import ConfigError, ModelError, PlanError, PrunitError, UnknownNameError
from prunit.prices.costs import cost_of
from prunit.recipe.folder import STATE, open_folder
from prunit.recipe.lock import holding
from prunit.tasks import Detection
from tests.train.toys import Small, stripes

SIZE = 8
X = torch.zeros(1, 1, SIZE, SIZE)
QUICK = ProbeSettings(batches=(1,), min_runs=2, seconds=0.01, warm_up=1)
NAMES = ("a", "b", "c", "d")


def trained(model: nn.Module, *, steps: int = 2) -> nn.Module:
    """Somebody's own loop."""
    data = stripes(20).train
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.train()(data.x_BCHW / 255), data.y_B).backward()
        optimizer.step()
    return model


@dataclass(frozen=True)
class Both:
    """A dense model and the one that a plan cut from it, both trained, in one folder."""

    dense: nn.Module
    small: nn.Module
    plan: Plan
    folder: Path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    torch.manual_seed(0)
    dense, folder = Small(12), tmp_path_factory.mktemp("own") / "portfolio"
    graph = prunit.trace(dense, X)
    plan = prunit.plan(dense, X, budget="macs=1/2")
    small = prunit.compact(dense, graph, plan)
    trained(dense)
    trained(small)
    prunit.portfolio.add(folder, dense, example=X, metrics={"accuracy": 0.91}, classes=NAMES, measure=QUICK)
    prunit.portfolio.add(folder, small, plan, example=X, accuracy=0.9, measure=QUICK)
    return Both(dense, small, plan, folder)


@pytest.fixture
def copied(both: Both, tmp_path: Path) -> Path:
    """The folder, to be written in."""
    return Path(shutil.copytree(both.folder, tmp_path / "portfolio"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, by its path; the lock's label is nobody's figure."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


# ── what is written ──


def test_both_are_variants_with_their_metrics_costs_and_widths(both: Both) -> None:
    portfolio = Portfolio.read(both.folder)
    assert portfolio.verify(both.folder) == []
    dense, small = portfolio.variants
    assert (dense.name, dense.recipe, dense.keep, dense.metrics.accuracy) == ("dense", "dense", 1.0, 0.91)
    assert (small.name, small.recipe, small.metrics.accuracy) == ("macs-1-2", "reconvene", 0.9)
    assert (portfolio.model, portfolio.classes, portfolio.task.name) == ("Small", NAMES, "classification")
    assert small.budget == {"macs": "1/2"}
    assert {name: kept for name, (_, kept) in small.widths.items()} == both.plan.widths
    graph = prunit.trace(Small(12), X)
    assert dense.metrics.macs == cost_of(graph).macs
    assert small.metrics.macs == cost_of(graph, both.plan).macs < dense.metrics.macs
    assert small.metrics.params == sum(p.numel() for p in both.small.parameters())


def test_both_are_measured_here_and_pass_their_self_tests(both: Both) -> None:
    portfolio = Portfolio.read(both.folder)
    assert portfolio.device is not None
    for variant in portfolio.variants:
        latency = variant.metrics.latency()
        assert latency is not None
        assert latency.n >= QUICK.min_runs
        assert variant.metrics.peak_memory_bytes
        session = runtime().open(both.folder / variant.artifact.path)
        self_test(session, variant.artifact, both.folder)
        session.close()


def test_the_files_compute_what_the_models_do_and_load_again(both: Both) -> None:
    x = torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = both.small.eval()(x).numpy()
    session = runtime().open(both.folder / "macs-1-2.onnx")
    np.testing.assert_allclose(session.run(x.numpy()), expected, rtol=1e-4, atol=1e-5)
    again = prunit.load(both.folder / "macs-1-2.safetensors", lambda: Small(12))
    with torch.no_grad():
        assert np.array_equal(again(x).numpy(), expected)


def test_the_report_shows_both(both: Both) -> None:
    page = (both.folder / "report.html").read_text("utf-8")
    assert "91.0" in page
    assert "macs-1-2" in page


def test_pixels_become_shares_and_no_more_unless_told(both: Both, tmp_path: Path) -> None:
    how = Portfolio.read(both.folder).preprocessing
    assert (how.size, how.channels, how.fit) == ((SIZE, SIZE), "L", "crop")
    levels = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(1, 1, SIZE, SIZE)
    np.testing.assert_allclose(how.normalise(levels), levels / 255, rtol=1e-6)
    told = prunit.portfolio.add(
        tmp_path, both.dense, example=X, preprocessing={"mean": (0.5,), "fit": "letterbox"}, measure=False
    ).preprocessing
    assert (told.mean, told.std, told.fit) == ((0.5,), (1.0,), "letterbox")


def test_without_measuring_the_others_keep_their_figures(both: Both, copied: Path) -> None:
    before = Portfolio.read(copied).variant("dense")
    portfolio = prunit.portfolio.add(copied, both.small, both.plan, example=X, name="more", measure=False)
    assert portfolio == Portfolio.read(copied)
    assert portfolio.variant("dense") == before
    assert portfolio.variant("more").metrics.latencies == ()
    assert portfolio.variant("more").metrics.accuracy is None  # nobody said


def test_replacing_a_variant_is_asked_for(both: Both, copied: Path) -> None:
    other = trained(prunit.compact(both.dense, prunit.trace(both.dense, X), both.plan), steps=3)
    old = Portfolio.read(copied).variant("macs-1-2")
    with pytest.raises(ConfigError, match=r"has a variant 'macs-1-2' already: give another name=, or replace=True"):
        prunit.portfolio.add(copied, other, both.plan, example=X)
    new = prunit.portfolio.add(copied, other, both.plan, example=X, accuracy=0.95, replace=True, measure=False).variant(
        "macs-1-2"
    )
    assert (new.metrics.accuracy, new.artifact.sha256 != old.artifact.sha256) == (0.95, True)
    assert Portfolio.read(copied).verify(copied) == []
    assert len(Portfolio.read(copied).variants) == 2


@pytest.mark.parametrize("measure", [False, QUICK])
def test_what_was_made_of_a_variant_leaves_when_it_is_replaced(
    both: Both, copied: Path, measure: bool | ProbeSettings
) -> None:
    """A twin in bf16 is the same file; it would be damaged, or the new file be overwritten by the old one."""
    before = Portfolio.read(copied)
    few = before.variant("macs-1-2").model_copy(
        update={"name": "macs-1-2-int8", "precision": "int8", "lowered": Lowered(twin="macs-1-2")}
    )
    before.adding(few).write(copied)
    other = trained(prunit.compact(both.dense, prunit.trace(both.dense, X), both.plan), steps=3)
    found = prunit.portfolio.add(copied, other, both.plan, example=X, replace=True, measure=measure)
    assert [v.name for v in found.variants] == ["dense", "macs-1-2"]
    assert found.variant("macs-1-2").artifact.sha256 != few.artifact.sha256
    assert found.verify(copied) == []


def test_the_model_stays_as_it_was_and_modes_too(both: Both, tmp_path: Path) -> None:
    model = trained(Small(12))
    model.eval()
    model.get_submodule("norm").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prunit.portfolio.add(tmp_path / "new", model, example=X, measure=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in (model, model.get_submodule("norm"))] == [False, True]


# ── other tasks ──


class Boxes(nn.Module):
    """Six boxes of two classes, as YOLO's head exports them: (B, 4 + K, N)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 36))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.body(x_BCHW).sigmoid().unflatten(1, (6, 6))


def test_a_task_with_settings_goes_into_the_manifest_whole(tmp_path: Path) -> None:
    task = Detection(boxes="cxcywh", unit="pixels", channels_first=True)
    portfolio = prunit.portfolio.add(tmp_path, Boxes(), example=X, task=task, metrics={"mAP": 0.2}, measure=False)
    assert portfolio.classes == ("0", "1")  # as many as the output tells apart
    assert (portfolio.task.name, portfolio.task.metric, portfolio.preprocessing.fit) == (
        "detection",
        "mAP",
        "letterbox",
    )
    again = DeviceDetection(**portfolio.task.settings)
    assert (again.boxes, again.unit, again.channels_first, again.size) == ("cxcywh", "pixels", True, SIZE)
    more = prunit.portfolio.add(tmp_path, Boxes(), example=X, name="other", metrics={"mAP": 0.3}, measure=False)
    assert more.task == portfolio.task  # settled by the first one
    with pytest.raises(ConfigError, match=r"accuracy=0\.9: the main metric of detection is mAP, name that"):
        prunit.portfolio.add(tmp_path, Boxes(), example=X, name="third", accuracy=0.9)
    with pytest.raises(ConfigError, match="metrics has AP50 but not mAP, the main metric of detection"):
        prunit.portfolio.add(tmp_path, Boxes(), example=X, name="third", metrics={"AP50": 0.9})


class Spot(nn.Module):
    """Where a spot is, two numbers, and how bright it is."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Flatten())
        self.place, self.light = nn.Linear(16 * 16, 2), nn.Linear(16 * 16, 1)

    def forward(self, x_BCHW: Tensor) -> dict[str, Tensor]:
        features = self.body(x_BCHW)
        return {"place": self.place(features), "light": self.light(features)}


def test_of_several_outputs_the_first_is_the_task_s_and_all_are_exported(tmp_path: Path) -> None:
    model = Spot()
    plan = prunit.plan(model, X, budget="macs=1/2", score="magnitude")
    small = prunit.compact(model, prunit.trace(model, X), plan)
    variant = prunit.portfolio.add(
        tmp_path, small, plan, example=X, task="regression", metrics={"r2": -0.5}, classes=("x", "y"), measure=False
    ).variant("macs-1-2")
    assert [output.name for output in variant.artifact.outputs] == ["place", "light"]
    assert variant.metrics.accuracy == -0.5  # R² may be below 0
    session = runtime().open(tmp_path / variant.artifact.path)
    self_test(session, variant.artifact, tmp_path)
    session.close()


# ── what is refused ──

REFUSED: list[tuple[dict[str, Any], type[PrunitError], str]] = [
    ({"task": "detction"}, UnknownNameError, "unknown task 'detction'; did you mean 'detection'"),
    ({"task": Detection}, ConfigError, "is no task; give a name .* or an object such as prunit.tasks.Detection"),
    ({"task": "detection"}, ConfigError, "is of classification, the model that is added of detection"),
    ({"metrics": {"accuracy": float("nan")}}, ConfigError, "accuracy=nan is not a number"),
    ({"metrics": {"accuracy": "high"}}, ConfigError, "accuracy='high' is not a number"),
    ({"metrics": {"accuracy": None}}, ConfigError, "accuracy=None is not a number"),
    ({"accuracy": 91.0}, ConfigError, "accuracy=91 is above 1, which is perfect"),
    ({"classes": ("b", "a", "c", "d")}, ConfigError, "tell the same classes apart, in the same order"),
    ({"classes": "abcd"}, ConfigError, "is one text: give a list of names"),
    ({"example": torch.zeros(1, 1, 16, 16)}, ConfigError, r"shape \(1, 16, 16\), those of 'dense'"),
    ({"example": torch.zeros(1, SIZE, SIZE)}, ModelError, "take one tensor of images"),
    ({"preprocessing": {"fit": "letterbox"}}, ConfigError, "has the preprocessing fit=crop"),
    ({"preprocessing": {"mean": (0.1, 0.2)}}, ConfigError, "mean has 2 numbers, the images 1 channels"),
    ({"preprocessing": {"size": (9, 9)}}, ConfigError, r"size is \(9, 9\), but the example's images"),
    ({"preprocessing": {"means": (0.1,)}}, ConfigError, "unknown key 'means'; did you mean 'mean'"),
    ({"name": "../up"}, ConfigError, "a name has letters, digits"),
]


@pytest.mark.parametrize(("asked", "kind", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_contradicts_is_refused_in_one_line_and_nothing_is_lost(
    both: Both, asked: dict[str, Any], kind: type[PrunitError], message: str
) -> None:
    before = contents(both.folder)
    with pytest.raises(kind, match=message) as caught:
        prunit.portfolio.add(both.folder, both.small, both.plan, **{"example": X, "name": "third", **asked})
    assert "\n" not in str(caught.value)
    assert contents(both.folder) == before


def of_another(both: Both) -> tuple[nn.Module, Plan]:
    other = Boxes()
    return both.small, prunit.plan(other, X, budget="macs=1/2", score="magnitude")


def at_full_width(both: Both) -> tuple[nn.Module, Plan]:
    return both.dense, both.plan


def cut_twice(both: Both) -> tuple[nn.Module, Plan]:
    plan = prunit.plan(both.small, X, budget="macs=1/2", score="magnitude")
    return prunit.compact(both.small, prunit.trace(both.small, X), plan), both.plan


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (of_another, "which the model lacks: it cut another model"),
        (at_full_width, "it was not cut, or whatever trained it built it anew at full width"),
        (cut_twice, "it is the plan of another model"),
    ],
)
def test_a_plan_that_did_not_cut_the_model_is_refused(
    both: Both, make: Callable[[Both], tuple[nn.Module, Plan]], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        prunit.portfolio.add(both.folder, *make(both), example=X, name="third")


def test_outputs_that_are_not_the_task_s_are_refused_before_the_folder_is_made(both: Both, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"needed are \(1, 3\) numbers"):
        prunit.portfolio.add(tmp_path / "new", both.dense, example=X, classes=("a", "b", "c"))
    with pytest.raises(ModelError, match=r"shape \(1, 3, 8, 8\)"):
        prunit.portfolio.add(tmp_path / "new", both.dense, example=torch.zeros(1, 3, SIZE, SIZE))
    assert not (tmp_path / "new").exists()


def test_a_folder_of_a_running_build_is_left_alone(both: Both, copied: Path) -> None:
    before = contents(copied)
    with (
        holding(copied / STATE, what="build", shown=copied),
        pytest.raises(ConfigError, match="is in use: a build, or another addition, is running in it"),
    ):
        prunit.portfolio.add(copied, both.small, both.plan, example=X, name="third", measure=False)
    assert contents(copied) == before


def test_a_folder_whose_build_has_yet_to_end_is_left_alone(both: Both, tmp_path: Path) -> None:
    open_folder(tmp_path, {"model": "small"}, resume=False)
    with pytest.raises(ConfigError, match="holds a build that has not ended: resume it first"):
        prunit.portfolio.add(tmp_path, both.dense, example=X)


def test_a_file_that_is_no_variant_s_is_not_overwritten(both: Both, tmp_path: Path) -> None:
    mine = tmp_path / "dense.safetensors"
    mine.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="is there and is no variant's"):
        prunit.portfolio.add(tmp_path, both.dense, example=X, measure=False)
    assert mine.read_bytes() == b"mine"


def test_a_failed_measurement_leaves_the_portfolio_as_it_was(
    both: Both, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(copied)

    def fails(*_: object, **__: object) -> None:
        raise PrunitError("the engine gave up")

    monkeypatch.setattr("prunit.recipe.adding.measured_here", fails)
    with pytest.raises(PrunitError, match="the engine gave up"):
        prunit.portfolio.add(copied, both.small, both.plan, example=X, accuracy=0.5, replace=True)
    assert contents(copied) == before
