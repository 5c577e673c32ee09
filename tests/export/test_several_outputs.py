"""Models that return more than one tensor, in whatever they return it: exported, tested on the device, read again."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from prunit.edge.portfolio import Artifact
from prunit.edge.runtimes import RUNTIMES
from prunit.edge.session import outputs_of, self_test
from prunit.errors import ModelError, PortfolioError
from prunit.export import onnx as onnx_exporter
from prunit.export.onnx import export_onnx
from prunit.export.outputs import shapes_of
from prunit.export.translation import Translation
from prunit.export.untrained import Untrained
from prunit.graph import trace
from tests.contracts.engines import exact_engines_here
from tests.export.toynets import example


class Boxed(NamedTuple):
    boxes: Tensor
    scores: Tensor


@dataclass
class Answered:
    logits: Tensor
    hidden: Any = None
    loss: Tensor | None = None


class ModelOutput(OrderedDict[str, Any]):
    """As HuggingFace has it: a mapping whose keys are attributes too."""

    def __getattr__(self, key: str) -> Any:
        return self[key]


class Returning(nn.Module):
    """A map and a thousandth of its means, in the container that `pack` makes."""

    def __init__(self, pack: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pack = nn.Conv2d(3, 4, 3), pack

    def forward(self, x_BCHW: Tensor) -> object:
        y_BCHW = self.conv(x_BCHW)
        return self.pack(y_BCHW, y_BCHW.mean((2, 3)) / 1000)


FORMS: dict[str, tuple[Callable[[Tensor, Tensor], object], list[str]]] = {
    "tuple": (lambda y, z: (y, z), ["output", "output_1"]),
    "list": (lambda y, z: [y, None, z], ["output", "output_1"]),
    "dict": (lambda y, z: {"out": y, "aux": z}, ["out", "aux"]),
    "named": (Boxed, ["boxes", "scores"]),
    "dataclass": (lambda y, z: Answered(y, (z,)), ["logits", "hidden"]),
    "mapping": (lambda y, z: ModelOutput(logits=y, loss=None, hidden=z), ["logits", "hidden"]),
    "nested": (lambda y, z: {"head": {"map": y, "mean": z}}, ["head.map", "head.mean"]),
    "taken": (lambda y, z: {"input": y, "conv.weight": z}, ["input_1", "conv.weight"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_tensors_are_outputs_with_their_names(form: str, tmp_path: Path) -> None:
    pack, names = FORMS[form]
    model = Returning(pack).eval()
    artifact = export_onnx(model, example(), tmp_path, name="net", output="maps")
    assert [output.name for output in artifact.outputs] == names
    assert [output.shape for output in artifact.outputs] == [(4, 6, 6), (4,)]
    assert artifact.output_name == names[0]
    assert [each.name for each in onnx.load(tmp_path / "net.onnx").graph.output] == names
    x_BCHW = np.random.default_rng(2).standard_normal((5, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        y_BCHW = model.conv(torch.from_numpy(x_BCHW))
    for engine in exact_engines_here():
        session = engine.open(tmp_path / artifact.path)
        found = outputs_of(session, x_BCHW)
        np.testing.assert_allclose(found[0], y_BCHW.numpy(), atol=1e-5)
        np.testing.assert_allclose(found[1], y_BCHW.mean((2, 3)).numpy() / 1000, atol=1e-8)
        np.testing.assert_array_equal(session.run(x_BCHW), found[0])
        assert self_test(session, artifact, tmp_path) <= artifact.tolerance
        session.close()
    assert not model._forward_hooks


def test_one_tensor_goes_by_its_own_name_or_the_one_that_is_given(tmp_path: Path) -> None:
    for pack, name in ((lambda y, z: y, "maps"), (lambda y, z: (y,), "maps"), (lambda y, z: {"out": y}, "out")):
        artifact = export_onnx(Returning(pack), example(), tmp_path, name="net", output="maps")
        assert [(output.name, output.shape) for output in artifact.outputs] == [(name, (4, 6, 6))]
        with np.load(tmp_path / artifact.self_test) as arrays:
            assert sorted(arrays.files) == ["expected", "input"]


def test_a_tensor_that_comes_twice_is_two_outputs(tmp_path: Path) -> None:
    artifact = export_onnx(Returning(lambda y, z: (y, z, y)), example(), tmp_path, name="net")
    assert [each.name for each in onnx.load(tmp_path / "net.onnx").graph.output] == ["output", "output_1", "output_2"]
    session = RUNTIMES["onnxruntime"].open(tmp_path / artifact.path)
    first, second, third = outputs_of(session, np.ones((2, 3, 8, 8), np.float32))
    np.testing.assert_array_equal(first, third)
    assert second.shape == (2, 4)


def test_each_output_has_the_tolerance_of_its_own_scale(tmp_path: Path) -> None:
    artifact = export_onnx(Returning(Boxed), example(), tmp_path, name="net")
    with np.load(tmp_path / artifact.self_test) as arrays:
        for output, key in zip(artifact.outputs, ("expected", "expected_1"), strict=True):
            assert output.tolerance == pytest.approx(max(1e-4 * np.abs(arrays[key]).max(), 1e-6))
    assert artifact.tolerance == artifact.outputs[0].tolerance
    assert artifact.outputs[1].tolerance is not None
    assert artifact.outputs[1].tolerance < artifact.tolerance / 10


class Off:
    """A session whose second output is off by a number."""

    def __init__(self, folder: Path, artifact: Artifact, number: float) -> None:
        self.inner, self.number = RUNTIMES["onnxruntime"].open(folder / artifact.path), number

    def run(self, x_BCHW: Any, /) -> Any:
        return self.inner.run(x_BCHW)

    def run_all(self, x_BCHW: Any, /) -> Any:
        first, second = outputs_of(self.inner, x_BCHW)
        return first, second + np.float32(self.number)

    def close(self) -> None:
        self.inner.close()


def test_the_self_test_looks_at_every_output(tmp_path: Path) -> None:
    artifact = export_onnx(Returning(Boxed), example(), tmp_path, name="net")
    small = artifact.outputs[1].tolerance
    assert small is not None
    assert self_test(Off(tmp_path, artifact, 0), artifact, tmp_path) <= small
    # Far below what the first output may be off by.
    with pytest.raises(PortfolioError, match=r"'net.onnx' failed its self-test: the output 'scores' is off by 1e-05"):
        self_test(Off(tmp_path, artifact, 1e-5), artifact, tmp_path)


def test_a_users_session_of_one_output_is_told_what_it_lacks(tmp_path: Path) -> None:
    class First:
        def __init__(self, inner: Off) -> None:
            self.inner = inner

        def run(self, x_BCHW: Any, /) -> Any:
            return self.inner.run(x_BCHW)

        def close(self) -> None:
            self.inner.close()

    artifact = export_onnx(Returning(Boxed), example(), tmp_path, name="net")
    session = First(Off(tmp_path, artifact, 0))
    assert len(outputs_of(session, np.ones((2, 3, 8, 8), np.float32))) == 1
    with pytest.raises(PortfolioError, match="gives 1 of its 2 outputs; it needs 'run_all'"):
        self_test(session, artifact, tmp_path)


def test_a_file_that_is_wrong_in_a_small_output_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = onnx_exporter.finished

    def off(translation: Translation) -> bytes:
        proto = onnx.load_from_string(whole(translation))
        last = next(node for node in proto.graph.node if "scores" in node.output)
        last.output[:] = ["right"]
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1e-5, np.float32), "little"))
        proto.graph.node.append(onnx.helper.make_node("Add", ["right", "little"], ["scores"]))
        return proto.SerializeToString()

    monkeypatch.setattr(onnx_exporter, "finished", off)
    with pytest.raises(ModelError, match=r"disagrees.* on the image '.*': at batch 1 'scores'\[0, \d\] .* 1e-05 where"):
        export_onnx(Returning(Boxed), example(), tmp_path, name="net")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pack", "message"),
    [
        (
            lambda y, z: (y, z.sum()),
            r"output 'output_1' has shape \(\), whose first dimension is not the batch: wrap it",
        ),
        (lambda y, z: (y, z.new_ones(3, 2)), r"output 'output_1' has shape \(3, 2\), whose first dimension is not"),
        (lambda y, z: {"a": y, "b": y.argmax(1)}, "output 'b' has type torch.int64, and only torch.float32"),
        (lambda y, z: {"a": y, "b": z[:, :0]}, r"output 'b' has shape \(3, 0\), which holds no number"),
        (lambda y, z: {"a": y, "b": z / 0}, "returns NaN or infinite values"),
        (
            lambda y, z: [{"boxes": image.flatten(1), "scores": image[0, 0]} for image in y],
            r"output 'boxes' has shape \(4, 36\), whose first dimension is not the batch",
        ),
        (lambda y, z: (y, z) if len(y) > 1 else y, "outputs are maps for some images and output, output_1 for others"),
    ],
)
def test_outputs_that_cannot_be_exported_are_named(pack: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        export_onnx(Returning(pack), example(), tmp_path, name="net", output="maps")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_sizes_that_follow_the_image_are_free() -> None:
    first, other = np.zeros((1, 4, 7), np.float32), np.zeros((1, 4, 9), np.float32)
    assert shapes_of([{"a": first, "b": first}, {"a": first, "b": other}]) == {"a": (4, 7), "b": (4, -1)}
    with pytest.raises(ModelError, match="'b' has more dimensions for some images"):
        shapes_of([{"a": first, "b": first}, {"a": first, "b": other[0]}])


class Two(nn.Module):
    def forward(self, x_BCHW: Tensor, more: Tensor) -> Tensor:
        return x_BCHW + more


def test_a_second_input_is_refused_with_a_word(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="positional argument: 'more'; one tensor of images is given, so wrap it"):
        export_onnx(Two(), example(), tmp_path, name="net")
    pair: Any = (example(), example())
    with pytest.raises(ModelError, match=r"example that is a tuple: an exported model takes one tensor of images"):
        export_onnx(Two(), pair, tmp_path, name="net")


def test_untrained_plans_of_such_models_are_translated_once(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

        def forward(self, x_BCHW: Tensor) -> dict[str, Tensor]:
            y_BCHW = self.first(x_BCHW).relu()
            return {"maps": self.last(y_BCHW), "mean": y_BCHW.mean((1, 2, 3))}

    model = Net()
    graph = trace(model, example())
    untrained = Untrained(model, graph, example())
    assert untrained.write_dense(tmp_path / "dense.onnx")
    assert [each.name for each in onnx.load(tmp_path / "dense.onnx").graph.output] == ["maps", "mean"]
