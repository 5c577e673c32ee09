"""A whole build on scikit-learn's digits with a user's own model, in each of the ways to hand one over."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunit
from prunit.allocate import Budget
from prunit.batches import Dataset, Split
from prunit.cut.plans import Plan
from prunit.edge.portfolio import Portfolio
from prunit.edge.runtimes import runtime
from prunit.errors import BudgetError, ConfigError, DataError, DeviceError, ModelError, UnknownNameError
from prunit.graph import trace
from prunit.recipe import Step
from prunit.recipe.request import variant_name
from prunit.recipe.source import Source, digest_of_data, digest_of_weights
from tests.recipe.building import data, model
from tests.recipe.nets import Plain, seeded

CONFIG = {
    "budgets": ["params=1/4", "macs=0.4"],
    "subset": 200,
    "seed": 1,
    "train": {"epochs": 2, "batch_size": 50, "device": "cpu"},
    "prune": {"rounds": 6, "measure": False},
    "probe": {"seconds": 0.01, "batch": 4},
}
FILE = """
from torch import nn

def network(num_classes):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, num_classes),
    )
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Portfolio, list[Step]]:
    """A build with a callable, its folder, and the steps that it told of."""
    folder, steps = tmp_path_factory.mktemp("callable") / "out", []
    portfolio = prunit.build(Plain, "digits", folder, config=CONFIG, on_step=steps.append)
    return folder, portfolio, steps


def test_every_file_is_there_and_fits_the_manifest(built: tuple[Path, Portfolio, list[Step]]) -> None:
    folder, portfolio, _ = built
    names = [v.name for v in portfolio.variants]
    assert names == ["dense", "params-1-4", "macs-0.4"]
    suffixes = ("onnx", "selftest.npz", "plan.json", "safetensors")
    expected = {f"{name}.{suffix}" for name in names for suffix in suffixes} | {
        "portfolio.json",
        "report.html",
        ".build",
    }
    assert {p.name for p in folder.iterdir()} == expected
    assert Portfolio.read(folder) == portfolio
    assert portfolio.verify(folder) == []
    assert (portfolio.model, portfolio.data, portfolio.classes) == ("Plain", "digits", tuple("0123456789"))
    assert portfolio.preprocessing.channels == "L"
    page = (folder / "report.html").read_text()
    assert all(name in page for name in names)


def test_plans_and_costs_are_those_of_the_manifest(built: tuple[Path, Portfolio, list[Step]]) -> None:
    folder, portfolio, _ = built
    graph = trace(Plain(), torch.zeros(1, 1, 8, 8))
    dense = prunit.cost(graph)
    for variant in portfolio.variants:
        plan = Plan.from_json((folder / f"{variant.name}.plan.json").read_text())
        assert variant.widths == {n: (plan.dense[n], len(c)) for n, c in plan.keep.items()}
        cost, metrics = prunit.cost(graph, plan), variant.metrics
        assert (metrics.params, metrics.macs, metrics.weight_bytes) == (cost.params, cost.macs, cost.weight_bytes)
        assert variant.keep == pytest.approx(sum(plan.widths.values()) / sum(plan.dense.values()))
        # A variant trains as long as the dense model does: for no fewer epochs.
        assert variant.epochs >= portfolio.variants[0].epochs == 2
        assert variant.seed == 1
        assert variant.seconds.keys() == {"prune", "train", "export"}
    whole, small, fast = portfolio.variants
    assert (whole.recipe, whole.budget, whole.keep) == ("dense", {}, 1.0)
    assert (small.recipe, small.budget, fast.budget) == ("reconvene", {"params": "1/4"}, {"macs": "0.4"})
    assert small.metrics.params <= dense.params / 4
    assert fast.metrics.macs <= dense.macs * 0.4


def test_weights_load_and_give_the_exported_outputs(built: tuple[Path, Portfolio, list[Step]]) -> None:
    folder, portfolio, _ = built
    for variant in portfolio.variants:
        small = prunit.load(folder / f"{variant.name}.safetensors", Plain)
        assert sum(p.numel() for p in small.parameters()) == variant.metrics.params
        with np.load(folder / variant.artifact.self_test) as stored:
            x_BCHW = stored["input"]
        session = runtime().open(folder / variant.artifact.path)
        with torch.no_grad():
            torch_BK = small(torch.from_numpy(x_BCHW)).numpy()
        np.testing.assert_allclose(session.run(x_BCHW), torch_BK, atol=variant.artifact.tolerance)
        session.close()


def test_accuracy_is_that_of_the_stored_weights_on_the_test_images(built: tuple[Path, Portfolio, list[Step]]) -> None:
    folder, portfolio, _ = built
    dataset = prunit.zoo.data.load("digits", subset=200)
    x_BCHW, y_B = dataset.normalise(dataset.test.x_BCHW), dataset.test.y_B
    for variant in portfolio.variants:
        small = prunit.load(folder / f"{variant.name}.safetensors", Plain)
        with torch.no_grad():
            hits_N = small(x_BCHW).argmax(1) == y_B
        answers = variant.metrics.answers
        assert variant.metrics.accuracy == pytest.approx(float(hits_N.float().mean()))
        assert answers is not None
        assert answers.right_N.tolist() == hits_N.tolist()
        assert (answers.images, answers.commonest) == (len(y_B), max(y_B.tolist().count(k) for k in range(10)))


def test_steps_tell_what_goes_on_and_end_with_nothing_left(built: tuple[Path, Portfolio, list[Step]]) -> None:
    _, _, steps = built
    stages = list(dict.fromkeys((s.variant, s.stage) for s in steps))
    of_each = [(v, stage) for v in ("dense", "params-1-4", "macs-0.4") for stage in ("train", "evaluate", "export")]
    scored = [("params-1-4", "prune"), ("macs-0.4", "prune")]
    memory = [(v, "memory") for v in ("dense", "params-1-4", "macs-0.4")]
    assert stages == [
        ("dense", "check"),
        *scored,
        ("all", "pace"),
        ("all", "plan"),
        *of_each,
        *memory,
        ("all", "probe"),
        ("all", "report"),
    ]
    assert all(0 <= s.done <= s.total or s.total == 0 for s in steps)
    overall = [s.overall for s in steps]
    assert min(overall) >= 0
    assert max(overall) <= 1
    assert (steps[-1].left_s, steps[-1].overall) == (0.0, 1.0)
    assert "% at epoch 1/2" in next(s.note for s in steps if s.stage == "train" and s.note)


def test_module_is_built_upon_and_left_alone(tmp_path: Path) -> None:
    mine = seeded(Plain)
    before = {n: t.clone() for n, t in mine.state_dict().items()}
    config = {**CONFIG, "budgets": [], "train": {"epochs": 1, "device": "cpu"}}
    portfolio = prunit.build(mine.train(), prunit.zoo.data.load("digits"), tmp_path, config=config)
    assert (portfolio.model, [v.name for v in portfolio.variants]) == ("Plain", ["dense"])
    assert mine.training
    assert all(torch.equal(t, before[n]) for n, t in mine.state_dict().items())


def test_file_and_factory_by_name(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FILE)
    name = f"{tmp_path / 'net.py'}:network"
    config = {**CONFIG, "budgets": [], "train": {"epochs": 1, "device": "cpu"}}
    portfolio = prunit.build(name, "digits", tmp_path / "out", config=config)
    assert (portfolio.model, [v.name for v in portfolio.variants]) == (name, ["dense"])
    assert (portfolio.name, portfolio.data) == ("net-network-digits", "digits")
    settings = json.loads((tmp_path / "out" / ".build" / "build.json").read_text())
    assert (settings["model"], settings["data"], settings["images"]) == (name, "digits", [200, 360])


# ── what is refused, before the folder is touched ──


def broken() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 4))


def five_outputs() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))


def with_head(outputs: int | None) -> nn.Module:
    """A network for grey images with so many outputs, or with a map in place of them."""
    pooled = [] if outputs is None else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs)]
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *pooled)


class WiderInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = with_head(10)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        scores_BK = self.inner(x_BCHW)
        return scores_BK if self.training else scores_BK[:, :4]


class ByValue(nn.Module):
    """Looks at the values of its input, which no exported file can."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        scale = 2.0 if bool((x_BCHW > 1000).any()) else 1.0
        return self.inner(x_BCHW) * scale


class TwoHeaded(nn.Module):
    """Has a further output while it is trained, as Inception has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model()

    def forward(self, x_BCHW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        scores_BK = self.inner(x_BCHW)
        return (scores_BK, scores_BK) if self.training else scores_BK


class FailsInTraining(TwoHeaded):
    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.inner(x_BCHW) @ torch.zeros(3 if self.training else 4, 4)


def not_a_model() -> object:
    return "resnet20"


def no_test_images() -> Dataset:
    whole = data()
    empty = Split(whole.test.x_BCHW[:0], whole.test.y_B[:0])
    return Dataset(whole.name, whole.train, empty, whole.classes, whole.mean_C, whole.std_C)


@pytest.mark.parametrize(
    ("make", "images", "config", "error", "message"),
    [
        (broken, data, {}, ModelError, "3"),
        (five_outputs, data, {}, ModelError, "build it with num_classes=4"),
        (lambda: with_head(10), data, {}, ModelError, r"gives \(1, 10\) .* build it with num_classes=4"),
        (
            lambda: with_head(None),
            data,
            {},
            ModelError,
            r"gives a map \(1, .* take a classifier, .* \(1, 4\), one for",
        ),
        (WiderInTraining, data, {"budgets": []}, ModelError, r"gives \(2, 10\) in training mode; .*num_classes=4"),
        (not_a_model, data, {}, ModelError, "returned a str, not an nn.Module"),
        (TwoHeaded, data, {"budgets": []}, ModelError, "in training mode the model returns a tuple, not one tensor"),
        (FailsInTraining, data, {"budgets": []}, ModelError, r"in training mode the model fails on images of shape"),
        ("resnet21", data, {}, UnknownNameError, "unknown model 'resnet21'; did you mean 'resnet20'"),
        (model, "digit", {}, UnknownNameError, "unknown data set 'digit'; did you mean 'digits'"),
        (model, no_test_images, {}, DataError, "data set 'stripes' has no test images"),
        (
            model,
            data,
            {"image_size": 16},
            ConfigError,
            "image_size=16, but the images of 'stripes' have 8",
        ),
        (model, data, {"budgets": ["params=1/4000"]}, BudgetError, "the closest reachable is"),
        (
            model,
            data,
            {"budgets": ["parms=1/4"]},
            UnknownNameError,
            "unknown budget key 'parms'; did you mean 'par",
        ),
        (model, data, {"budgets": ["params=4"]}, BudgetError, "params=4 asks for at most 4"),
        (model, data, {"prune": {"score": "snap"}}, UnknownNameError, "unknown score 'snap'; did you mean 'snip'"),
        (model, data, {"prune": {"recipe": "unifrom"}}, UnknownNameError, "did you mean 'uniform'"),
        (model, data, {"train": {"device": "cuda:99"}}, DeviceError, "device 'cuda:99' was asked for"),
    ],
)
def test_what_cannot_work_is_refused_before_the_folder_is_touched(
    tmp_path: Path,
    make: Callable[[], nn.Module] | str,
    images: Callable[[], Dataset] | str,
    config: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    out = tmp_path / "out"
    with pytest.raises(error, match=message) as caught:
        prunit.build(make, images if isinstance(images, str) else images(), out, config=config)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_model_that_cannot_be_exported_is_found_out_before_it_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ByValue"):
        prunit.build(ByValue, data(), tmp_path / "out", config={"budgets": []})
    assert not (tmp_path / "out").exists()


# ── names and digests ──


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        ("params=1/16", "params-1-16"),
        ("macs=20M", "macs-20m"),
        ("params=25%", "params-25-percent"),
        ("params=16×", "params-16x"),
        ("weights=500 KB,macs=0.5", "weights-500-kb-macs-0.5"),
        ("params=1e-2", "params-1e-2"),
    ],
)
def test_variant_is_named_after_its_budget(budget: str, name: str) -> None:
    assert variant_name(Budget.parse(budget)) == name


def test_source_is_named_so_that_a_person_knows_it() -> None:
    assert Source.of(Plain(), data(), seed=0).name == "Plain"
    assert Source.of(model, data(), seed=0).name == "model"
    assert Source.of(partial(Plain, classes=4), data(), seed=0).name == "Plain"
    assert Source.of(lambda: Plain(), data(), seed=0).name == "model"


def test_source_makes_the_same_weights_each_time_and_others_for_another_seed() -> None:
    state = torch.get_rng_state()
    source = Source.of(model, data(), seed=3)
    digests = [digest_of_weights(source.make()) for _ in range(2)]
    assert digests[0] == digests[1] != digest_of_weights(Source.of(model, data(), seed=4).make())
    assert torch.equal(torch.get_rng_state(), state)


def test_digest_of_data_tells_other_labels_and_other_pixels_apart() -> None:
    one, whole = digest_of_data(data()), data()
    assert digest_of_data(data()) == one
    whole.train.x_BCHW[7, 0, 0, 0] += 1
    assert digest_of_data(whole) != one
    whole = data()
    whole.test.y_B[0] += 1
    assert digest_of_data(whole) != one
