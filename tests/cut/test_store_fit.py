"""A weights file and the plan in it fit together, in any process, with the sizes that a model's code reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from prunit.cut.plans import Plan, keep_all
from prunit.cut.store import load, save
from prunit.cut.surgery import compact
from prunit.errors import FileError, PlanError
from prunit.graph import trace
from tests.cut.test_store import file, rewrite
from tests.nets import Plain, conv_bn, images, lived_in

__all__ = ["file"]


# ── the plan in the file, and sizes that the code reads ──


def test_a_plan_that_did_not_cut_the_model_is_refused_when_writing(tmp_path: Path) -> None:
    model = lived_in(Plain())
    graph = trace(model, images())
    small = compact(model, graph, Plan({"second": (0, 1, 2)}, keep_all(graph).dense))
    with pytest.raises(
        PlanError, match=r"the plan keeps 8 channels of 'second', but the model has 3 there; save it with"
    ):
        save(small, keep_all(graph), tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            Plan({"second": (0, 1, 2)}, {"first.0": 6, "second": 8, "head.fc": 5}),
            r"it keeps 3 of 8 channels of 'second', whose weight has shape \(4, 6, 3, 3\); was it saved with another",
        ),
        (
            Plan({"second": (0, 1, 2, 9)}, {"first.0": 6, "second": 10, "head.fc": 5}),
            "it is for 10 channels of 'second', the dense model has 8; was it saved with another plan",
        ),
    ],
)
def test_weights_that_are_not_what_the_plan_leaves_are_refused(plan: Plan, message: str, tmp_path: Path) -> None:
    model = lived_in(Plain())
    graph = trace(model, images())
    cut = Plan({"second": (0, 1, 2, 3)}, keep_all(graph).dense)
    save(compact(model, graph, cut), cut, tmp_path / "a")
    rewrite(tmp_path / "a", {"plan": json.loads(plan.to_json())})
    with pytest.raises(FileError, match=r"a' does not fit the plan in it: " + message):
        load(tmp_path / "a", Plain)


class Halved(nn.Module):
    """Its code splits the features where an attribute says."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.widths = conv_bn(3, 6), conv_bn(3, 4), (6, 4)
        self.join = nn.Conv2d(10, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.cat([self.left(x), self.right(x)], 1).split(self.widths, 1)
        return self.join(torch.cat([a.relu(), b.sigmoid()], 1))


def test_sizes_that_the_code_reads_come_back_as_they_were_cut(tmp_path: Path) -> None:
    model = lived_in(Halved())
    graph = trace(model, images())
    plan = Plan({"left.0": (0, 2, 5), "right.0": (1,)}, keep_all(graph).dense)
    small = compact(model, graph, plan).eval()
    save(small, plan, tmp_path / "a")
    loaded = load(tmp_path / "a", Halved)
    assert loaded.widths == (3, 1)
    assert torch.equal(loaded(images()), small(images()))
    save(loaded, plan, tmp_path / "b")  # also of a model that was loaded itself
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    rewrite(tmp_path / "a", {"sizes": {"": {"widths": [3, 1], "height": 2}}})
    with pytest.raises(
        FileError, match=r"does not fit Halved: it sets '.height' to 2, which is None in the dense model"
    ):
        load(tmp_path / "a", Halved)
    rewrite(tmp_path / "a", {"sizes": {"": {"widths": [3, "1"]}}})
    with pytest.raises(FileError, match=r"not a whole .safetensors file of prunit: ValueError: size '.widths' is"):
        load(tmp_path / "a", Halved)


def test_most_models_have_no_such_sizes(file: Path) -> None:
    with safe_open(str(file), framework="pt") as opened:
        assert "sizes" not in json.loads(opened.metadata()["prunit"])


def test_another_process_loads_the_same_model(file: Path, tmp_path: Path) -> None:
    code = (
        "import torch, prunit; from tests.nets import Plain, images\n"
        f"model = prunit.load({str(file)!r}, Plain)\n"
        f"torch.save(model(images()).detach(), {str(tmp_path / 'out.pt')!r})"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert torch.equal(torch.load(tmp_path / "out.pt"), load(file, Plain)(images()))
