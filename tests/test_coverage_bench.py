"""The sweep over timm's families: which models it takes, what it asks of one, how cells become a page."""

import copy
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.coverage import __main__ as command
from bench.coverage import cells, networks, ours, page, tallies, theirs
from bench.coverage.beyond import operators, registry
from bench.coverage.beyond.case import Beyond, keyed
from bench.coverage.sections import SECTIONS, Section
from bench.coverage.selection import Case, Content, families, kind_of, selected, smallest, stem
from prunit.cut.surgery import compact
from prunit.graph import trace
from prunit.zoo.external import imported

CASES = [
    Case("tinycnn_10", "file/tinycnn", "cnn", 64, 1_200_000, 12),
    Case("mixed_s", "file/mixed", "hybrid", 128, 5_000_000, 8, 6),
]


def finished(**more: Any) -> dict[str, Any]:
    """A cell of prunit as a finished run leaves it."""
    cell = {
        "tool": "prunit",
        "status": "exact",
        "stage": "compare uneven widths",
        "trace_ms": 40.0,
        "compact_ms": 20.0,
        "pinned": [["head", 37, "goes out of the network as an output"], ["a", 8, "'a' is split in 4 parts"]],
        "shares": {"macs": 0.499, "params": 0.47},
        "backward": "",
        "as_predicted": True,
        "finite": True,
        "eval_error": 1e-15,
        "train_error": 2e-15,
        "commit": "abc",
    }
    return cell | more


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", "resnet"),
        ("resnext101_32x4d", "resnext"),
        ("res2net50_14w_8s", "res2net"),
        ("cs3darknet_focus_s", "cs3darknet_focus"),
        ("mobilenetv3_small_050", "mobilenetv3"),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite"),
        ("dm_nfnet_f0", "dm_nfnet"),
        ("levit_conv_128s", "levit_conv"),
        ("convnextv2_atto", "convnextv2"),
        ("tiny_vit_5m_224", "tiny_vit"),
        ("hrnet_w18_small", "hrnet"),
        ("inception_v3", "inception"),
        ("repvgg_b1g4", "repvgg"),
        ("vitamin_large2_224", "vitamin"),
        ("convnext_zepto_rms", "convnext"),
        ("efficientnet_cc_b0_4e", "efficientnet_cc"),
        ("resnetv2_50x1_bit", "resnetv2"),
    ],
)
def test_the_stem_of_a_name_ends_at_its_first_size(name: str, expected: str) -> None:
    assert stem(name) == expected


def test_families_and_their_smallest_do_not_depend_on_the_order() -> None:
    names = ["b_net18", "a_net50", "a_net18", "a_net34", "test_net", "b_net9000"]
    found = families(names, stem)
    assert found == families(reversed(names), stem) == {"a_net": ["a_net18", "a_net34", "a_net50"], "b_net": names[::5]}
    sizes = {"a_net18": 7, "a_net34": 7, "a_net50": None}
    assert smallest(found["a_net"], sizes.get) == ("a_net18", 7)
    assert smallest(["a_net50"], sizes.get) is None


def test_what_a_model_is_made_of() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.conv, self.fc = nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 4, 3), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(self.patch(x)).flatten(2).transpose(1, 2)
            weights = (self.fc(x) @ x.transpose(1, 2)).softmax(-1)
            return weights @ x

    image = torch.zeros(2, 3, 8, 8, device="meta")
    with Content(image) as found:
        Mixed().to("meta")(image)
    assert (found.spatial, found.attention) == (1, 2)
    assert [kind_of(9, 0), kind_of(3, 24), kind_of(2, 0), kind_of(2, 24)] == ["cnn", "hybrid", "other", "other"]


def test_what_was_selected_is_read_back(tmp_path: Path) -> None:
    if find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install 'prunit[zoo]'")
    timm = imported("timm", needed_by="this test")
    file = tmp_path / "selection.json"
    rows = [vars(case) for case in CASES] + [vars(Case("vit", "file/vit", "other", 64, 1))]
    file.write_text(json.dumps({"timm": timm.__version__, "cases": rows}))
    assert selected(file) == CASES
    assert command.chosen(CASES, "file/mi*,nothing") == CASES[1:]


def test_one_model_in_this_process() -> None:
    stages: list[str] = []
    cell = cells.fill("prunit", cells.toy, lambda cell: stages.append(cell["stage"]))
    assert cell["status"] == "exact", cell
    assert stages[0] == "build"
    assert stages[-1] == "compare uneven widths"
    assert cell["halved"]
    assert cell["shares"]["macs"] <= 0.5
    assert cell["counted"] == {key: cell["predicted"][key] for key in ("params", "macs")}
    assert cell["moved"] > 0.01
    assert cell["second_error"] < ours.EXACT
    assert cell["variation"] > 1e-3


def test_a_wrong_cut_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(model: nn.Module, graph: Any, plan: Any) -> nn.Module:
        small = compact(model, graph, plan)
        with torch.no_grad():
            small.get_submodule("0").weight.mul_(1 + 1e-6)  # pyright: ignore
        return small

    monkeypatch.setattr(ours, "compact", shifted)
    cell = cells.fill("prunit", cells.toy)
    assert cell["status"] == "wrong"
    assert tallies.line("tinycnn_10", cell).count("silently wrong") == 1


def test_a_failure_is_told_with_its_stage() -> None:
    def broken() -> tuple[nn.Module, networks.Draw]:
        raise ValueError("\nno such layer\nmore")

    cell = cells.fill("prunit", broken)
    assert (cell["status"], cell["stage"], cell["error_line"]) == ("uncut", "build", "ValueError: no such layer")
    assert not cell["on_purpose"]


@pytest.mark.filterwarnings("ignore")  # Torch-Pruning's own, at import
def test_torch_pruning_is_compared_with_the_network_masked_like_it() -> None:
    pytest.importorskip("torch_pruning")
    cell = cells.fill("torch-pruning", cells.toy)
    assert cell["status"] == "exact", cell
    assert 0.2 < cell["shares"]["params"] < 0.6


def test_a_mask_from_what_is_left() -> None:
    model, draw = cells.toy()
    networks.lived_in(model, draw)
    x_BCHW = networks.drawn(draw)
    graph = trace(model, x_BCHW)
    plan, _ = ours.halved(graph)
    small = compact(model, graph, plan)
    zeroed = networks.masked_like(model, small)
    assert zeroed is not None
    same = networks.difference(networks.outputs(zeroed, x_BCHW), networks.outputs(small, x_BCHW))
    assert same < ours.EXACT
    other = copy.deepcopy(small)
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    assert networks.masked_like(model, other) is None


def test_a_mask_of_weight_norm_leaves_the_directions_of_absent_filters() -> None:
    def make() -> tuple[nn.Module, networks.Draw]:
        norm = nn.utils.parametrizations.weight_norm
        net = nn.Sequential(norm(nn.Conv2d(3, 2, 3)), nn.ReLU(), norm(nn.ConvTranspose2d(2, 6, 2)), nn.Conv2d(6, 2, 1))
        return net.eval(), networks.pictures(8)

    cell = cells.fill("prunit", make)
    assert cell["status"] == "exact", cell
    assert cell["second_error"] < ours.EXACT


def test_differences_by_hand() -> None:
    a, b = [torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 3.0])]
    assert networks.difference(a, b) == 0.5
    assert networks.difference(a, [torch.zeros(3)]) == float("inf")
    assert networks.difference([torch.tensor([float("nan")])] * 2, [torch.zeros(1)] * 2) == float("inf")


def test_cells_are_stored_and_become_a_page(tmp_path: Path) -> None:
    cells.store(finished(), tmp_path / "cell.json")
    assert cells.read(tmp_path / "cell.json") == finished()
    assert cells.read(tmp_path / "none.json") is None
    failed = finished(status="failed", stage="trace", error_line="ModelError: a | b", on_purpose=True)
    theirs_cell = {
        "tool": "torch-pruning",
        "status": "wrong",
        "shares": {"macs": 0.3, "params": 0.3},
        "error": 0.2,
        "commit": "a",
    }
    found = {
        "prunit": {"tinycnn_10": finished(), "mixed_s": failed},
        "onnx": {"tinycnn_10": {"tool": "onnx", "status": "exact", "commit": "a"}, "mixed_s": None},
        "torch-pruning": {"tinycnn_10": theirs_cell, "mixed_s": {"status": "died", "stage": "still being filled"}},
    }
    result = json.loads(json.dumps(page.merged(CASES, found)))
    text = page.render(result)
    assert "**CNNs: 1 of 1 exact**, 1 of them at half the macs" in text
    assert "**hybrids of convolution and attention: 0 of 1 exact**" in text
    assert "Torch-Pruning: 1 of 1 run and train after the cut, 0 of these equal" in text
    assert (
        "| tinycnn_10 | 64 | 1.2 | exact | 50% | 47% | 40 | 20 | 2e-15 | yes | runs, differs (30%) | 1 × '…' is" in text
    )
    assert "trace: ModelError: a / b" in text
    assert "| '…' is split in N parts | 2 | 2 |" in text
    assert "silently wrong 0" in text
    assert tallies.WRONG not in text
    assert page.render(result) == text
    wrong = page.merged(CASES[:1], found | {"prunit": {"tinycnn_10": finished(status="wrong", eval_error=0.3)}})
    assert tallies.WRONG in page.render(wrong)


def test_reasons_are_counted_without_their_names() -> None:
    why = "the model's code fixes its size, in 'a.b' (file.py:12)"
    assert tallies.general(why) == "the model's code fixes its size, in '…' (file.py:N)"


def test_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Case, "make", lambda case: cells.toy())
    monkeypatch.setattr(cells, "fill", lambda tool, make, note: note({"tool": tool, "status": "exact", "stage": "end"}))
    cell = cells.run(CASES[0], "prunit", tmp_path / "prunit" / "cell.json", commit="abc")
    assert (cell["status"], cell["name"], cell["commit"]) == ("exact", "tinycnn_10", "abc")
    monkeypatch.setattr(cells, "fill", lambda tool, make, note: cells.os._exit(3))
    assert cells.run(CASES[0], "prunit", tmp_path / "cell.json")["status"] == "died"


def test_the_list_beyond_timm_needs_none_of_its_packages() -> None:
    found = registry.everything()
    names = [case.name for case in found]
    assert len(set(names)) == len(names) > 100
    assert {case.package for case in found} == set(registry.PACKAGES)
    required = Path(registry.__file__).with_name("requirements.txt").read_text()
    assert [p for p in registry.PACKAGES if f"{p}==" not in required] == ["torchvision"]
    assert command.chosen(found, "mon*,*:yolo11n")[0].name == "ultralytics:yolo11n"


def test_a_package_that_cannot_be_imported_is_skipped_with_a_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = {"there": registry.Package(("json",), list), "gone": registry.Package(("no_such_module",), list)}
    monkeypatch.setattr(registry, "PACKAGES", packages)
    monkeypatch.setattr(operators, "stand_in", lambda: None)
    monkeypatch.setattr(cells, "run", lambda case, tool, file, *, commit: {"tool": tool, "status": "exact"})
    cases = [Beyond(f"{package}:net", package, cells.toy) for package in packages]
    options = command.parsed(["--section", "beyond", "--tools", "torch-pruning", "--work", str(tmp_path)])
    monkeypatch.setattr(cells, "warm_up", lambda tools: None)
    missing = command.sweep(SECTIONS["beyond"], cases, options)
    said = capsys.readouterr().out
    assert list(missing) == ["gone"]
    assert "skipped gone: ModuleNotFoundError: No module named 'no_such_module'" in said
    assert "[1/1, 0 s] torch-pruning: there:net: exact" in said


class Named(nn.Module):
    """Takes its inputs by keyword; returns a dict, and a list more in training."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(8, 3, 1)

    def forward(self, *, image: Tensor, weight: Tensor) -> dict[str, Any]:
        x = self.a(image).relu() * weight[:, :, None, None]
        out = {"last": self.b(x)}
        return out | {"early": [self.c(x), x.shape[0]]} if self.training else out


def test_inputs_by_keyword_and_outputs_of_training() -> None:
    model, draw = keyed(Named, image=(2, 9, 9), weight=(1,))()
    assert networks.shapes(networks.drawn(draw, batch=1)) == "2×9×9, 1"
    inputs = networks.single(draw, batch=3)
    assert [x.shape[1] for x in networks.outputs(model, inputs)] == [6]
    assert [x.shape[1] for x in networks.outputs(model, inputs, training=True)] == [6, 3]
    cell = cells.fill("prunit", lambda: keyed(Named, image=(2, 9, 9), weight=(1,))())
    assert cell["status"] == "exact", cell
    assert cell["second_train_error"] < ours.EXACT


def test_a_model_that_fails_uncut_is_nobodys_failure() -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise ValueError("not trained here")
            return self.layer(x)

    def make() -> tuple[nn.Module, networks.Draw]:
        return Narrow().eval(), lambda n, generator: networks.noise(generator, n, 4)

    cell = cells.fill("prunit", make)
    assert (cell["status"], cell["error_line"]) == ("uncut", "ValueError: not trained here")
    assert tallies.counts([{"prunit": cell}], "prunit")["tried"] == 0


def test_layers_that_give_the_outputs() -> None:
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.head = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))

        def forward(self, x: Tensor) -> list[Tensor]:
            x = self.first(x)
            y = self.second(x.relu())
            return [x + y, self.head(y.mean((2, 3)))]

    model = Summed()
    found = theirs.last_layers(model, torch.zeros(2, 3, 8, 8))
    assert set(found) == {model.first, model.second, model.head}


def test_boxes_that_overlap_a_better_one_are_left_out() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [10.0, 10.0, 12.0, 12.0], [0.0, 0.0, 1.0, 1.0]])
    scores = torch.tensor([0.5, 0.9, 0.7, 0.1])
    assert operators._suppressed(boxes, scores, 0.5).tolist() == [1, 2, 3]
    assert operators._suppressed(boxes, scores, 0.8).tolist() == [1, 2, 0, 3]
    assert operators._suppressed(boxes[:0], scores[:0], 0.5).tolist() == []


def test_cells_that_the_folder_lacks_come_from_the_stored_result(tmp_path: Path) -> None:
    stored = tmp_path / "coverage_beyond.json"
    rows = [{"name": "a:net", "package": "a", "prunit": finished(), "torch-pruning": None}]
    stored.write_text(json.dumps({"date": "2026-01-02T03:04:05", "rows": rows}))
    section = Section("beyond", ("prunit", "torch-pruning"), stored, lambda work: [])
    section.restore(tmp_path)
    file = section.file(tmp_path, "prunit", "a:net")
    assert cells.read(file) == {"date": "2026-01-02"} | finished()
    cells.store(finished(date="2026-02-03"), file)
    section.restore(tmp_path)
    assert cells.read(file) == finished(date="2026-02-03")
    assert not section.file(tmp_path, "torch-pruning", "a:net").exists()


def test_networks_beyond_timm_are_a_second_table() -> None:
    theirs_cell = {"tool": "torch-pruning", "status": "failed", "stage": "prune", "commit": "old", "date": "2026-01-02"}
    uncut = finished(status="uncut", stage="build", error_line="OSError: gone", on_purpose=False)
    beyond = [Beyond(f"a:{name}", "a", cells.toy) for name in ("one", "two", "three")]
    found = {
        "prunit": {"a:one": finished(inputs="3×16×16", params=2000, second_error=1e-16), "a:two": uncut},
        "torch-pruning": {"a:one": theirs_cell},
    }
    result = page.merged_beyond(beyond, found, {"a": "1.2", "b": None}, {"b": "ModuleNotFoundError: b"})
    result = json.loads(json.dumps(result))
    timm = page.merged(CASES[:1], {"prunit": {"tinycnn_10": finished()}, "onnx": {}, "torch-pruning": {}})
    text = page.render(timm, result)
    assert [row["name"] for row in result["rows"]] == ["a:one", "a:two"]
    assert "**networks beyond timm: 1 of 1 exact**, 1 of them at half the macs" in text
    assert "1 more do not run here uncut" in text
    assert "not tried: b, ModuleNotFoundError: b" in text
    assert "- Torch-Pruning's cells are of earlier runs: 1 of old (2026-01-02)\n" in text
    assert "| a | 1.2 | 1 | 1 | 1 | 1 | 0 of 1 | 0 |" in text
    assert "| one | 3×16×16 | 0.00 | exact | 50% | 47% | 40 | 20 | 2e-15 | equal | failed |" in text
    assert page.render(timm).count("Beyond timm") == 0
