import logging
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunit.cut.plans import Plan
from prunit.cut.surgery import compact
from prunit.errors import ModelError
from prunit.export import export_onnx
from prunit.export import template as templates
from prunit.export.onnx import finished
from prunit.export.refill import Count, set_counts
from prunit.export.steps import Steps, steps_of
from prunit.export.template import Template
from prunit.export.translation import Translation, translated
from prunit.graph import ChannelGraph, trace
from tests.export.toynets import build, example
from tests.nets import random_plan

LOG = "prunit.export.onnx"


class ByWidth(nn.Module):
    """Does with the channels in the middle what a function of them says."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.middle = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 4, 3), middle

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.b(self.middle(self.a(x_BCHW))).mean((2, 3))


def halved_above_six(x_BCHW: Tensor) -> Tensor:
    return x_BCHW if x_BCHW.shape[1] < 6 else x_BCHW / 2


def in_rows(x_BCHW: Tensor) -> Tensor:
    B, C, H, W = x_BCHW.shape
    return x_BCHW.reshape(B, 1, C * H, W).relu().reshape(B, C, H, W)


def template_of(model: nn.Module, folder: Path) -> tuple[ChannelGraph, Template]:
    graph, found = trace(model, example()), list[Translation]()
    export_onnx(model, example(), folder, name="dense", on_translated=found.append)
    return graph, Template.of(model, graph, found[0])


def keeping(graph: ChannelGraph, width: int) -> Plan:
    keep = {g.name: tuple(range(min(width, g.size))) for g in graph.groups if not g.pinned}
    return Plan(keep, {g.name: g.size for g in graph.groups})


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "translated for itself" in record.message]


def exported(small: nn.Module, template: Template, folder: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of an export, after the check that its file is that of one without the template."""
    with caplog.at_level(logging.INFO, LOG):
        export_onnx(small, example(), folder, name="carried", template=template)
    export_onnx(small, example(), folder, name="own")
    assert (folder / "carried.onnx").read_bytes() == (folder / "own.onnx").read_bytes()
    return told(caplog)


def test_numbers_of_channels_in_the_code_follow_the_widths(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = ByWidth(in_rows).eval()
    graph, template = template_of(model, tmp_path)
    assert template.counts
    assert exported(compact(model, graph, keeping(graph, 5)), template, tmp_path, caplog) == []


@pytest.mark.parametrize("what", ["counts", "steps_of"])
def test_code_that_does_more_than_follow_the_widths_leaves_no_template(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter((Steps(("a",), ()), Steps(("b",), ())))
    monkeypatch.setattr(templates, what, {"counts": lambda *_: None, "steps_of": lambda *_: next(steps)}[what])
    with pytest.raises(ModelError, match="depends on numbers of channels by more than their multiples"):
        template_of(build("linear").eval(), tmp_path)


def test_a_model_that_cannot_be_looked_on_leaves_no_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Steps:
        raise RuntimeError("no modes here")

    monkeypatch.setattr(templates, "steps_of", fails)
    with pytest.raises(ModelError, match="its operators cannot be listed: no modes here"):
        template_of(build("linear").eval(), tmp_path)


def test_code_that_goes_another_way_at_a_width_is_translated_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = ByWidth(halved_above_six).eval()
    graph, template = template_of(model, tmp_path)  # the second model has at least 6 channels, too
    assert exported(compact(model, graph, keeping(graph, 7)), template, tmp_path, caplog) == []
    (line,) = exported(compact(model, graph, keeping(graph, 5)), template, tmp_path, caplog)
    assert line.startswith("'carried' is translated for itself")
    assert line.endswith("at its widths the model's code does something else than the dense model's")


def test_one_channel_is_translated_for_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = build("plain").eval()
    graph, template = template_of(model, tmp_path)
    (line,) = exported(compact(model, graph, keeping(graph, 1)), template, tmp_path, caplog)
    assert "has a single channel left where the dense model has 37" in line


def test_a_layer_that_gets_a_bias_is_translated_for_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = build("concat").eval()
    graph, template = template_of(model, tmp_path)
    plain = random_plan(graph)
    small = compact(model, graph, Plan(plain.keep, plain.dense, biases=("left.0",)))
    (line,) = exported(small, template, tmp_path, caplog)
    assert line.endswith("it has other tensors than the dense model: left.0.bias")


def test_what_was_cut_where_the_second_model_was_not_is_translated_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build("plain").eval()
    graph, template = template_of(model, tmp_path)
    uncut = replace(template, shapes={name: (dense, dense) for name, (dense, _) in template.shapes.items()})
    (line,) = exported(compact(model, graph, random_plan(graph, least=2)), uncut, tmp_path, caplog)
    assert "cut where nobody looked what follows from it" in line


def test_another_model_with_the_same_tensors_is_translated_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, template = template_of(ByWidth(torch.relu).eval(), tmp_path)
    (line,) = exported(ByWidth(torch.sigmoid).eval(), template, tmp_path, caplog)
    assert "something else" in line


def test_a_file_that_is_not_what_the_model_computes_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("residual").eval()
    graph, template = template_of(model, tmp_path)
    small = compact(model, graph, random_plan(graph, least=2))
    monkeypatch.setattr(templates, "fill", lambda *_: None)
    (line,) = exported(small, template, tmp_path, caplog)  # its file would be that of empty tensors
    assert "translated for itself" in line


def test_a_wrong_weight_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("residual").eval()
    graph, template = template_of(model, tmp_path)
    small = compact(model, graph, random_plan(graph, least=2))
    tensors = templates.effective(small)
    with monkeypatch.context() as patch:
        wrong = {name: tensor + 1 if name == "head.2.bias" else tensor for name, tensor in tensors.items()}
        patch.setattr(templates, "effective", lambda _: wrong)
        (line,) = exported(small, template, tmp_path, caplog)
    assert "the exported file disagrees with the model on the image 'noise'" in line


def test_other_outputs_than_the_dense_model_s(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = build("linear").eval()
    _, template = template_of(model, tmp_path)
    with caplog.at_level(logging.INFO, LOG):
        export_onnx(model, example(), tmp_path, name="net", output="scores", template=template)
    (line,) = told(caplog)
    assert line.endswith("its outputs are scores, the dense model's logits")


def test_a_number_with_two_explanations_is_in_doubt() -> None:
    model = build("plain").eval()
    translation = translated(model, torch.zeros(1, 3, 8, 8))
    position = next(i for i, node in enumerate(translation.network.graph) if node.op_type == "Conv")
    tensors = dict(model.named_parameters())
    count = Count((position, "group"), 0, "0.0.weight", 1, Fraction(1), (("2.0.weight", 0, Fraction(1)),))
    set_counts(translation.network, (count,), tensors)
    with pytest.raises(ValueError, match=r"'group' may follow 0\.0\.weight or 2\.0\.weight"):
        set_counts(translation.network, (count,), tensors, certain=True)


def test_a_template_is_read_as_it_was_written_and_holds_no_weights(tmp_path: Path) -> None:
    model = build("concat").eval()
    graph, template = template_of(model, tmp_path)
    template.write(tmp_path / "template.onnx")
    read = Template.read(tmp_path / "template.onnx")
    assert read is not None
    assert (read.shapes, read.counts, read.steps, read.following) == (
        template.shapes,
        template.counts,
        template.steps,
        template.following,
    )
    data = (tmp_path / "template.onnx").read_bytes()
    assert model.state_dict()["left.0.weight"].numpy().tobytes() not in data
    assert str(Path(__file__).parent).encode() not in data
    small = compact(model, graph, random_plan(graph, least=2))
    assert finished(read.carried_to(small)) == finished(template.carried_to(small))


def test_a_template_of_other_versions_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, template = template_of(build("linear").eval(), tmp_path)
    template.write(tmp_path / "template.onnx")
    monkeypatch.setattr(templates, "VERSION", "0.0")
    assert Template.read(tmp_path / "template.onnx") is None
    assert Template.read(tmp_path / "none.onnx") is None


def test_a_damaged_template_is_told_of_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "template.onnx").write_bytes(b"no protobuf")
    assert Template.read(tmp_path / "template.onnx") is None
    assert "template.onnx' is damaged and not used" in caplog.text


def test_steps_are_the_same_for_the_same_code_and_number_what_they_are_given() -> None:
    x_BCHW = torch.zeros(1, 3, 8, 8).numpy()
    first, again, other = (steps_of(build(n).eval(), x_BCHW) for n in ("residual", "residual", "concat"))
    assert first == again
    assert first.following(again) == ()
    assert first.following(other) is None
    added = next(line for line in first.lines if line.startswith("aten.add"))
    one, two = (word.split(":")[0] for word in added.partition("(")[2].split()[:2])
    assert one != two


def test_steps_of_other_widths_differ_in_numbers_alone() -> None:
    narrow, wide = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 64))), nn.Sequential(nn.Flatten(), nn.Flatten())
    x_BCHW = torch.zeros(1, 3, 8, 8).numpy()
    assert steps_of(narrow, x_BCHW).following(steps_of(wide, x_BCHW)) is None
    six = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (6, 32)))
    following = steps_of(narrow, x_BCHW).following(steps_of(six, x_BCHW))
    assert following
