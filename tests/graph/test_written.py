"""A row that is viewed as an image (VAE, DCGAN): the linear layer follows the channels of what reads the image.

The sizes of the view may stand in the code itself, where neither an attribute nor a shape gives them.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunit.cut.plans import Plan, keep_all
from prunit.cut.store import load, save
from prunit.cut.surgery import check_runs, compact, mask
from prunit.graph import trace
from prunit.graph.sizes import noted_sizes
from tests.nets import furthest, lived_in, random_plan

View = Callable[[Any, Tensor], Tensor]


class Decoder(nn.Module):
    """`row`, a view to an image of 12 channels, `image`."""

    def __init__(self, view: View, image: nn.Module, *between: nn.Module, pixels: int = 9) -> None:
        super().__init__()
        self.row, self.image, self.channels = nn.Linear(5, 12 * pixels), image, 12
        self.between, self.view = nn.ModuleList(between), view

    def forward(self, z: Tensor) -> Tensor:
        return self.image(self.view(self, self.row(z)))


def up() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1))


def normed(norm: nn.Module) -> nn.Module:
    return nn.Sequential(norm, nn.Conv2d(12, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))


def down() -> nn.Module:
    return normed(nn.BatchNorm2d(12))


def line(first: nn.Module) -> nn.Module:
    return nn.Sequential(first, nn.Conv1d(8, 3, 1))


def rows() -> Tensor:
    return torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


DECODERS = {
    "written out": lambda: Decoder(lambda m, x: x.view(-1, 12, 3, 3).relu(), up()),
    "batch from the shape": lambda: Decoder(lambda m, x: x.relu().view(x.size(0), 12, 3, 3), up()),
    "sizes in a tuple": lambda: Decoder(lambda m, x: x.reshape((x.shape[0], 12, 3, 3)), down()),
    "torch.reshape": lambda: Decoder(lambda m, x: torch.reshape(x, (-1, 12, 3, 3)), down()),
    "an attribute": lambda: Decoder(lambda m, x: x.view(-1, m.channels, 3, 3), down()),
    "channels from the rest": lambda: Decoder(lambda m, x: x.view(len(x), -1, 3, 3), down()),
    "height from the rest": lambda: Decoder(lambda m, x: x.view(len(x), 12, -1, 3), up()),
    "unflatten": lambda: Decoder(lambda m, x: x.unflatten(1, (12, 3, 3)), up()),
    "unflatten by keyword": lambda: Decoder(lambda m, x: x.unflatten(dim=-1, sizes=(12, 3, -1)), up()),
    "Unflatten": lambda: Decoder(lambda m, x: m.between[0](x), down(), nn.Unflatten(1, (12, 3, 3))),
    "batch norm before": lambda: Decoder(lambda m, x: m.between[0](x).view(-1, 12, 3, 3), up(), nn.BatchNorm1d(108)),
    "group norm after": lambda: Decoder(lambda m, x: x.view(-1, 12, 3, 3), normed(nn.GroupNorm(3, 12))),
    "channels last": lambda: Decoder(lambda m, x: x.view(-1, 3, 3, 12).permute(0, 3, 1, 2), down()),
    "twice": lambda: Decoder(
        lambda m, x: x.view(-1, 12, 3, 3) + m.between[0](x).view(-1, 12, 3, 3), down(), nn.Linear(108, 108)
    ),
    "a line": lambda: Decoder(lambda m, x: x.view(-1, 12, 9), line(nn.Conv1d(12, 8, 3, padding=1))),
    "a line up": lambda: Decoder(lambda m, x: x.view(-1, 12, 9), line(nn.ConvTranspose1d(12, 8, 4, 2, 1))),
    "a line, pointwise": lambda: Decoder(lambda m, x: x.view(-1, 12, 9), line(nn.Conv1d(12, 8, 1))),
    "a volume": lambda: Decoder(
        lambda m, x: x.view(-1, 12, 3, 3, 1), nn.Sequential(nn.Conv3d(12, 8, 3, padding=1), nn.Conv3d(8, 3, 1))
    ),
    "one pixel": lambda: Decoder(lambda m, x: x.view(-1, 12, 1, 1), up(), pixels=1),
}


@pytest.mark.parametrize("name", DECODERS)
def test_a_linear_layer_follows_the_channels_of_its_image(name: str) -> None:
    model = lived_in(DECODERS[name]())
    graph = trace(model, rows())
    group = graph.group("row")
    assert (group.pinned, group.size) == ("", 4 if "group norm" in name else 12)
    for seed in range(3):
        plan = random_plan(graph, seed=seed)
        small, twin = compact(model, graph, plan), mask(model, graph, plan)
        check_runs(model, small, rows())
        for training in (False, True):
            assert furthest(twin.train(training), small.train(training), rows()) < 1e-12


def test_the_small_model_is_the_uncut_one_whose_convolution_ignores_what_went() -> None:
    model = lived_in(Decoder(lambda m, x: x.view(-1, 12, 3, 3).relu(), up())).eval()
    graph = trace(model, rows())
    kept = [0, 3, 4, 9]
    small = compact(model, graph, Plan({"row": tuple(kept)}, keep_all(graph).dense))
    gone = [c for c in range(12) if c not in kept]
    with torch.no_grad():
        model.image[0].weight[gone] = 0
    assert furthest(model, small, rows()) < 1e-12
    assert small.row.weight.shape == (4 * 9, 5)
    assert small.image[0].in_channels == 4


def test_only_code_that_writes_sizes_out_is_watched() -> None:
    for name, sizes in (
        ("written out", {"": {"view to 12x3x3": (5, 3, 3)}}),
        ("an attribute", {"": {"channels": 5}}),
        ("Unflatten", {"between.0": {"unflattened_size": (5, 3, 3)}}),
        ("channels from the rest", {"": {"channels": 5}}),  # it might be asked for somewhere
    ):
        model = lived_in(DECODERS[name]())
        graph = trace(model, rows())
        small = compact(model, graph, Plan({"row": (0, 1, 2, 3, 5)}, keep_all(graph).dense))
        assert noted_sizes(small) == sizes
        assert bool(small._forward_hooks) == (name == "written out")


def test_views_of_other_rows_stay_as_they_are_written() -> None:
    """Both views ask for 12 channels; only one of the two rows has lost some."""

    def view(m: Any, x: Tensor) -> Tensor:
        whole = torch.arange(216, dtype=x.dtype, device=x.device).view(2, 108)
        return torch.cat([m.between[0](x.view(-1, 12, 3, 3)), whole.view(-1, 12, 3, 3)], 1)

    model = Decoder(view, nn.Conv2d(16, 3, 1), nn.Conv2d(12, 4, 1))
    lived_in(model)
    graph = trace(model, rows())
    assert graph.group("row").pinned == ""
    plan = Plan({"row": (1, 2, 7)}, keep_all(graph).dense)
    assert furthest(mask(model, graph, plan), compact(model, graph, plan), rows()) < 1e-12


def test_a_model_that_was_cut_twice_and_copied() -> None:
    model = lived_in(DECODERS["written out"]())
    graph = trace(model, rows())
    once = compact(model, graph, Plan({"row": tuple(range(8))}, keep_all(graph).dense))
    again = trace(once, rows())
    assert again.group("row").size == 8
    plan = Plan({"row": (1, 2, 5)}, keep_all(again).dense)
    twice = copy.deepcopy(compact(once, again, plan))
    assert twice.row.weight.shape == (27, 5)
    assert furthest(mask(once, again, plan), twice, rows()) < 1e-12
    assert furthest(compact(model, graph, Plan({"row": (1, 2, 5)}, keep_all(graph).dense)), twice, rows()) < 1e-12


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = lived_in(DECODERS["unflatten"]())
    graph = trace(model, rows())
    plan = random_plan(graph)
    small = compact(model, graph, plan).eval()
    save(small, plan, tmp_path / "small.safetensors")
    assert furthest(small, load(tmp_path / "small.safetensors", DECODERS["unflatten"]), rows()) == 0


def test_exported_with_any_batch() -> None:
    model = lived_in(DECODERS["written out"]())
    graph = trace(model, rows())
    small = compact(model, graph, random_plan(graph)).eval()
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(small, (rows(),), dynamic_shapes=(batch,), strict=False).module()
    many = rows().repeat(3, 1)
    assert torch.equal(program(many), small(many))


def test_an_image_that_is_returned_stays_whole() -> None:
    graph = trace(lived_in(Decoder(lambda m, x: x.view(-1, 12, 3, 3), nn.Identity())), rows())
    assert graph.group("row").pinned == "the model's output"


def test_nothing_is_left_behind_by_a_call_that_fails() -> None:
    model = lived_in(DECODERS["written out"]())
    graph = trace(model, rows())
    small = compact(model, graph, random_plan(graph))
    before = dict(small.__dict__)
    with pytest.raises(RuntimeError):
        small(rows()[:, :3])
    assert small.__dict__ == before
    assert torch.overrides._get_current_function_mode_stack() == []
