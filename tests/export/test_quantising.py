"""int8 files of networks written by hand: numbers reckoned on paper, and channels that are dead or constant."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from prunit.edge.portfolio import Artifact
from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, outputs_of, self_test
from prunit.errors import ConfigError, DataError, ModelError, PortfolioError, UnknownNameError
from prunit.export.quantising import QuantSettings, Tried, quantised
from prunit.export.quantising.choosing import best
from tests.export.int8nets import Node, noise, one_conv, operators, tensor, written

UNTIMED = QuantSettings(timed=False, methods=("minmax",))
ALL = replace(UNTIMED, float_layers=())


def outputs(folder: Path, artifact: Artifact, x_BCHW: Array, engine: str = "onnxruntime") -> tuple[Array, ...]:
    return outputs_of(runtime(engine).open(folder / artifact.path), x_BCHW)


def test_weights_get_a_scale_for_each_channel_and_activations_one(tmp_path: Path) -> None:
    weight = np.array([[0.5, -1.0], [0.02, 0.005], [0.0, 3.0]])
    made, lowered = quantised(one_conv(tmp_path, weight), tmp_path, [noise(8, (2, 4, 4))], name="int8", settings=ALL)
    path = tmp_path / made.path
    np.testing.assert_allclose(tensor(path, "c.weight_scale"), np.array([1, 0.02, 3]) / 127, rtol=1e-5)
    assert tensor(path, "c.weight_quantized").reshape(3, 2).tolist() == [[64, -127], [127, 32], [0, 127]]
    x = noise(8, (2, 4, 4))
    assert tensor(path, "input_scale") == pytest.approx((x.max() - x.min()) / 255)
    assert tensor(path, "answer_zero_point") == 0
    assert lowered.images == 8
    assert lowered.method == "minmax"
    assert lowered.float_layers == ()
    assert lowered.twin == "float"


def test_reduced_weights_leave_pairs_of_products_room_in_16_bits(tmp_path: Path) -> None:
    artifact = one_conv(tmp_path, np.array([[0.5, -1.0], [1.0, 1.0]]), np.array([0.1, 100], np.float32))
    made, _ = quantised(artifact, tmp_path, [noise(8, (2, 4, 4))], name="int8", settings=replace(ALL, reduced=True))
    largest = np.abs(tensor(tmp_path / made.path, "c.weight_quantized").astype(int)).max()
    assert largest == 64
    assert 2 * 255 * largest < 2**15


def test_the_answer_is_off_by_steps_of_what_flows(tmp_path: Path) -> None:
    x = noise(16, (2, 4, 4))
    artifact = one_conv(tmp_path, np.array([[0.5, -1.0], [1.0, 0.25]]), np.array([0.1, -0.2], np.float32))
    made, _ = quantised(artifact, tmp_path, [x], name="int8", settings=ALL)
    wanted, found = (outputs(tmp_path, one, x)[0] for one in (artifact, made))
    # half a step of each input, by its weight; half a step of each weight, by inputs of up to 1; half one of the answer
    steps = 1.5 * 2 / 255 / 2 + 2 * 1 / 127 / 2 + float(wanted.max()) / 255 / 2
    assert np.abs(found - wanted).max() <= 1.01 * steps


@pytest.mark.parametrize("engine", ["onnxruntime", "reference"])
@pytest.mark.parametrize("small", [0.0, 1e-30, 1e-12, 1e-6])
def test_a_channel_of_next_to_no_weights_keeps_its_bias(tmp_path: Path, small: float, engine: str) -> None:
    """512 products of steps that were made so that the bias just fits into an int32 would turn its sign."""
    weight = np.stack([np.full(512, small), np.full(512, 0.01)])
    x = np.abs(noise(8, (512, 1, 1)))
    artifact = one_conv(tmp_path, weight, np.array([1.0, 0.013], np.float32), side=1)
    made, _ = quantised(artifact, tmp_path, [x], name="int8", settings=ALL)
    wanted, found = outputs(tmp_path, artifact, x)[0], outputs(tmp_path, made, x, engine)[0]
    np.testing.assert_allclose(found[:, 0], wanted[:, 0], atol=float(wanted.max()) / 255 / 2 + 1e-4)


def test_a_dead_channel_keeps_a_bias_smaller_than_a_step_of_the_input(tmp_path: Path) -> None:
    """Its answer is all that this network says: 0.003 beside inputs in steps of 2/255."""
    artifact = one_conv(tmp_path, np.zeros((2, 2)), np.array([0.003, 0.002], np.float32))
    x = noise(8, (2, 4, 4))
    made, _ = quantised(artifact, tmp_path, [x], name="int8", settings=ALL)
    found = outputs(tmp_path, made, x)[0]
    np.testing.assert_allclose(found.mean(axis=(0, 2, 3)), [0.003, 0.002], rtol=0.01)


@pytest.mark.parametrize("engine", ["onnxruntime", "reference"])
@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_what_is_always_zero_or_constant_stays_so(tmp_path: Path, method: str, engine: str) -> None:
    nodes: list[Node] = [
        ("Conv", ["input", "a.weight", "a.bias"], "a", {}),
        ("Relu", ["a"], "zero", {}),
        ("Conv", ["zero", "b.weight", "b.bias"], "b", {}),
        ("Relu", ["b"], "constant", {}),
        ("Conv", ["constant", "c.weight"], "answer", {}),
    ]
    one = np.ones((2, 2, 1, 1), np.float32)
    constants = {
        "a.weight": one, "a.bias": np.full(2, -9), "b.weight": one, "b.bias": np.array([0.5, 2.0]), "c.weight": one
    }  # fmt: skip
    artifact = written(tmp_path, nodes, constants, (2, 4, 4), {"answer": [2, 4, 4]})
    x = noise(8, (2, 4, 4))
    made, _ = quantised(artifact, tmp_path, [x], name="int8", settings=replace(ALL, methods=(method,)))
    np.testing.assert_allclose(outputs(tmp_path, made, x, engine)[0], 2.5, atol=2.5 / 255)


def chain(folder: Path) -> Artifact:
    """Three convolutions, the last of which answers, and a linear layer beside it on their mean."""
    random = np.random.default_rng(3)
    nodes: list[Node] = [
        ("Conv", ["input", "one.weight", "one.bias"], "a", {"pads": [1, 1, 1, 1]}),
        ("Relu", ["a"], "b", {}),
        ("Conv", ["b", "two.weight"], "c", {"pads": [1, 1, 1, 1]}),
        ("Add", ["b", "c"], "d", {}),
        ("Relu", ["d"], "e", {}),
        ("Conv", ["e", "three.weight"], "map", {}),
        ("GlobalAveragePool", ["e"], "f", {}),
        ("Flatten", ["f"], "g", {}),
        ("Gemm", ["g", "four.weight", "four.bias"], "scores", {"transB": 1}),
    ]
    shapes = {"one.weight": (20, 3, 3, 3), "one.bias": (20,), "two.weight": (20, 20, 3, 3)}
    shapes |= {"three.weight": (5, 20, 1, 1), "four.weight": (4, 20), "four.bias": (4,)}
    constants = {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    return written(folder, nodes, constants, (3, 8, 8), {"map": [5, 8, 8], "scores": [4]})


def test_all_outputs_keep_their_names_and_any_number_of_images_goes_in(tmp_path: Path) -> None:
    artifact = chain(tmp_path)
    made, _ = quantised(artifact, tmp_path, [noise(32, (3, 8, 8))], name="int8", settings=ALL)
    assert [(o.name, o.shape) for o in made.outputs] == [("map", (5, 8, 8)), ("scores", (4,))]
    assert self_test(runtime("onnxruntime").open(tmp_path / made.path), made, tmp_path) == 0
    for count in (1, 7):
        x = noise(count, (3, 8, 8), seed=1)
        for found, wanted in zip(outputs(tmp_path, made, x), outputs(tmp_path, artifact, x), strict=True):
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).max() < 0.05 * np.ptp(wanted)


def test_linear_answers_are_not_rounded(tmp_path: Path) -> None:
    made, _ = quantised(chain(tmp_path), tmp_path, [noise(32, (3, 8, 8))], name="int8", settings=ALL)
    by_output = {out: node for node in onnx.load(tmp_path / made.path).graph.node for out in node.output}
    assert by_output["scores"].op_type == "Gemm"
    assert by_output["map"].op_type == "DequantizeLinear"


def test_a_layer_left_float_has_no_integers_around_it(tmp_path: Path) -> None:
    settings = replace(UNTIMED, float_layers=("three", "four"))
    made, lowered = quantised(chain(tmp_path), tmp_path, [noise(32, (3, 8, 8))], name="int8", settings=settings)
    assert lowered.float_layers == ("three", "four")
    proto = onnx.load(tmp_path / made.path)
    by_output = {out: node for node in proto.graph.node for out in node.output}
    assert by_output["map"].op_type == "Conv"
    assert list(by_output["map"].input)[1:] == ["three.weight"]
    assert by_output[by_output["map"].input[0]].op_type != "DequantizeLinear"
    assert tensor(tmp_path / made.path, "three.weight").dtype == np.float32
    assert tensor(tmp_path / made.path, "two.weight_quantized").dtype == np.int8


def test_the_first_layer_left_float_gets_the_input_as_it_is(tmp_path: Path) -> None:
    made, _ = quantised(
        chain(tmp_path), tmp_path, [noise(8, (3, 8, 8))], name="int8", settings=replace(UNTIMED, float_layers=("one",))
    )
    readers = [n.op_type for n in onnx.load(tmp_path / made.path).graph.node if "input" in n.input]
    assert readers == ["Conv"]


def test_what_only_follows_the_last_layer_stays_float(tmp_path: Path) -> None:
    """Boxes are computed of what heads say: offsets added to places far larger than them."""
    nodes: list[Node] = [
        ("Conv", ["input", "w"], "a", {}),
        ("Add", ["a", "places"], "b", {}),
        ("Mul", ["b", "stride"], "answer", {}),
    ]
    places = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8) * 1000
    constants = {"w": np.ones((2, 3, 1, 1), np.float32), "places": places, "stride": np.array(4.0)}
    artifact = written(tmp_path, nodes, constants, (3, 8, 8), {"answer": [2, 8, 8]})
    x = noise(8, (3, 8, 8))
    made, _ = quantised(artifact, tmp_path, [x], name="int8", settings=ALL)
    wanted, found = (outputs(tmp_path, one, x)[0] for one in (artifact, made))
    assert np.abs(found - wanted).max() < 4 * 0.1


def test_the_same_images_give_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    chain(tmp_path)
    (tmp_path / "artifact.json").write_text(chain(tmp_path).model_dump_json())
    code = """if True:
        import sys; from pathlib import Path
        from prunit.edge.portfolio import Artifact
        from prunit.export.quantising import QuantSettings, quantised
        from tests.export.int8nets import noise
        folder = Path(sys.argv[1]); artifact = Artifact.model_validate_json((folder / "artifact.json").read_text())
        made, _ = quantised(artifact, folder, [noise(32, (3, 8, 8))], name="int8", settings=QuantSettings(timed=False))
        print(made.sha256, made.self_test_sha256)"""
    found = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        for seed in ("1", "2")
    ]
    assert found[0].stdout == found[1].stdout
    assert [one.stderr for one in found] == ["", ""]


def test_nothing_is_said_and_nothing_left_behind(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    artifact = chain(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    with caplog.at_level(logging.DEBUG):
        quantised(artifact, tmp_path, lambda: iter([noise(4, (3, 8, 8))] * 3), name="int8", settings=UNTIMED)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert {path.name for path in tmp_path.iterdir()} - before == {"int8.onnx", "int8.selftest.npz"}
    assert logging.root.manager.disable == 0


def test_candidates_are_told_with_their_errors(tmp_path: Path) -> None:
    tried = []
    settings = replace(UNTIMED, methods=("minmax", "mse"))
    quantised(
        chain(tmp_path), tmp_path, [noise(8, (3, 8, 8))], name="int8", settings=settings,
        holdout_BCHW=[noise(8, (3, 8, 8), seed=2)], on_tried=tried.append,
    )  # fmt: skip
    assert {one.method for one in tried} == {"minmax", "mse"}
    assert all(0 < one.error < 0.2 and one.ms is None for one in tried)
    assert {one.float_layers for one in tried} >= {(), ("one", "four")}


def test_candidates_are_timed_when_asked(tmp_path: Path) -> None:
    tried = []
    settings = QuantSettings(methods=("minmax",), seconds=0.01)
    quantised(chain(tmp_path), tmp_path, [noise(8, (3, 8, 8))], name="int8", settings=settings, on_tried=tried.append)
    assert all(one.ms is not None and one.ms > 0 for one in tried)


NAN = np.full((1, 3, 8, 8), np.nan, np.float32)
MISTAKES = {
    "no_batches": ([], DataError, "calibration batches hold no images"),
    "empty_batch": ([np.zeros((0, 3, 8, 8))], DataError, "calibration batches hold no images"),
    "other_shape": (
        [np.zeros((2, 3, 9, 9))],
        DataError,
        r"batch 0 has shape \(2, 3, 9, 9\); the model takes \(B, 3, 8, 8\)",
    ),
    "one_image": ([np.zeros((3, 8, 8))], DataError, "batch 0 has shape"),
    "nan": ([np.zeros((1, 3, 8, 8)), NAN], DataError, "batch 1 holds NaN"),
}


@pytest.mark.parametrize(("batches", "error", "says"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told_in_one_line(tmp_path: Path, batches: list[Array], error: type, says: str) -> None:
    artifact = chain(tmp_path)
    with pytest.raises(error, match=says) as told:
        quantised(artifact, tmp_path, batches, name="int8", settings=UNTIMED)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "int8.onnx").exists()


def test_a_network_without_layers_has_nothing_to_make_integers_of(tmp_path: Path) -> None:
    artifact = written(tmp_path, [("Relu", ["input"], "answer", {})], {}, (3, 8, 8), {"answer": [3, 8, 8]})
    with pytest.raises(ModelError, match="no convolution or linear layer"):
        quantised(artifact, tmp_path, [noise(1, (3, 8, 8))], name="int8")


def test_nor_does_one_whose_layers_all_stay_float(tmp_path: Path) -> None:
    settings = replace(UNTIMED, float_layers=("one", "two", "three", "four"))
    with pytest.raises(ModelError, match="all of its 4 layers stay float"):
        quantised(chain(tmp_path), tmp_path, [noise(1, (3, 8, 8))], name="int8", settings=settings)


def test_a_name_of_no_layer_is_refused(tmp_path: Path) -> None:
    settings = replace(UNTIMED, float_layers=("two", "tree"))
    with pytest.raises(UnknownNameError, match=r"'tree'.*'three'"):
        quantised(chain(tmp_path), tmp_path, [noise(1, (3, 8, 8))], name="int8", settings=settings)


def test_a_file_of_integers_is_not_made_again(tmp_path: Path) -> None:
    made, _ = quantised(chain(tmp_path), tmp_path, [noise(1, (3, 8, 8))], name="int8", settings=UNTIMED)
    with pytest.raises(ModelError, match="holds integers already"):
        quantised(made, tmp_path, [noise(1, (3, 8, 8))], name="again", settings=UNTIMED)


def test_the_float_file_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="in its own place"):
        quantised(chain(tmp_path), tmp_path, [noise(1, (3, 8, 8))], name="float", settings=UNTIMED)


def test_a_file_with_one_other_weight_fails_the_self_test(tmp_path: Path) -> None:
    made, _ = quantised(chain(tmp_path), tmp_path, [noise(8, (3, 8, 8))], name="int8", settings=ALL)
    proto = onnx.load(tmp_path / made.path)
    weights = next(t for t in proto.graph.initializer if t.name == "two.weight_quantized")
    weights.raw_data = weights.raw_data[::-1]
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(PortfolioError, match="failed its self-test"):
        self_test(runtime("onnxruntime").open(tmp_path / "other.onnx"), made, tmp_path)


def test_operators_that_engines_have_no_integers_for_stay_as_they_are(tmp_path: Path) -> None:
    nodes: list[Node] = [
        ("Conv", ["input", "a.weight"], "a", {}),
        ("Elu", ["a"], "b", {}),
        ("Conv", ["b", "b.weight"], "answer", {}),
    ]
    constants = {name: np.ones((3, 3, 1, 1), np.float32) for name in ("a.weight", "b.weight")}
    artifact = written(tmp_path, nodes, constants, (3, 8, 8), {"answer": [3, 8, 8]})
    made, lowered = quantised(artifact, tmp_path, [noise(8, (3, 8, 8))], name="int8", settings=ALL)
    assert "Elu" in operators(tmp_path / made.path)
    assert lowered.float_layers == ()


def candidate(error: float, ms: float | None, floats: int = 0) -> Tried:
    return Tried("minmax", ("layer",) * floats, b"", error=error, ms=ms)


def test_the_fastest_that_is_not_clearly_worse_is_chosen() -> None:
    exact, fast, bad = candidate(0.04, 3.0), candidate(0.05, 1.0), candidate(0.06, 0.5)
    assert best([exact, fast, bad], enough=0.03, worse=1.25) == fast
    assert best([exact, fast, bad], enough=0.1, worse=1.25) == bad


def test_times_within_a_twentieth_are_the_same_and_the_more_accurate_wins() -> None:
    exact, fast = candidate(0.01, 1.04), candidate(0.02, 1.0)
    assert best([fast, exact], enough=0.03, worse=1.25) == exact


def test_without_times_the_fewest_float_layers_win() -> None:
    exact, all_int8 = candidate(0.01, None, floats=2), candidate(0.02, None)
    assert best([exact, all_int8], enough=0.03, worse=1.25) == all_int8
