"""`integer_twin`: made of a float file and images, judged on others; their order changes nothing."""

from pathlib import Path

import numpy as np
import pytest

from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, outputs_of
from prunit.errors import ConfigError, DataError
from prunit.export.quantising.choosing import error_of
from prunit.export.tflite import integer_twin
from prunit.mcu.numbers import quantised, real
from tests.export import toynets
from tests.export.int8nets import noise
from tests.export.tflite.tflite_engines import exported, litert

SHAPE = toynets.SHAPE_CHW

pytest.importorskip("ai_edge_litert")


def several(count: int, *, seed: int) -> Array:
    """Noise on colours that differ from image to image, else a mean over the image tells them hardly apart."""
    colours = np.random.default_rng(seed + 100).uniform(-1, 1, (count, 3, 1, 1)).astype(np.float32)
    return noise(count, SHAPE, seed=seed) + colours


@pytest.mark.parametrize("name", ["residual", "concat", "no_batch_norm"])
def test_it_is_near_the_float_file_on_images_held_out(tmp_path: Path, name: str) -> None:
    source = exported(toynets.build(name), SHAPE, tmp_path)
    images, held = (several(count, seed=seed) for count, seed in ((64, 0), (16, 1)))
    twin = integer_twin(source, [images], name="twin", shape_CHW=SHAPE, holdout_BCHW=[held])
    assert twin.images == 64
    assert twin.network.name == "twin"
    assert twin.data[4:8] == b"TFL3"
    q_BHWC = quantised(held, twin.network.by_name[twin.network.inputs[0]], layout="NCHW")
    answer = real(litert(twin.network, q_BHWC)[0], twin.network.by_name[twin.network.outputs[0]])
    (expected,) = outputs_of(runtime("onnxruntime").open(source), held)
    assert twin.error == pytest.approx(error_of(answer, expected))
    assert twin.error < 0.1


def test_the_order_of_images_changes_nothing(tmp_path: Path) -> None:
    source, images = exported(toynets.build("residual"), SHAPE, tmp_path), noise(24, SHAPE)
    images *= np.linspace(0.1, 2, 24, dtype=np.float32)[:, None, None, None]  # ends differ from batch to batch
    given = ([images], [images[::-1]], [images[:5], images[5:]])
    made = [integer_twin(source, batches, name="twin", shape_CHW=SHAPE).data for batches in given]
    assert made[0] == made[1] == made[2]


def test_of_the_ways_to_find_ranges_the_better_one_is_taken(tmp_path: Path) -> None:
    source, images = exported(toynets.build("plain"), SHAPE, tmp_path), noise(32, SHAPE)
    images[0, 0, 0, 0] = 300  # a single broken pixel, for which minmax gives up nearly all steps
    held = [noise(16, SHAPE, seed=1)]
    twins = {
        methods: integer_twin(source, [images], name="t", shape_CHW=SHAPE, holdout_BCHW=held, methods=methods)
        for methods in (("minmax",), ("mse",), ("minmax", "mse"))
    }
    errors = {methods: twin.error for methods, twin in twins.items()}
    assert errors["minmax", "mse"] == min(errors.values())
    assert twins["minmax", "mse"].method == ("mse" if errors["mse",] < errors["minmax",] else "minmax")


def test_images_and_methods_are_checked(tmp_path: Path) -> None:
    source = exported(toynets.build("plain"), SHAPE, tmp_path)
    with pytest.raises(DataError, match="calibration batches hold no images"):
        integer_twin(source, [], name="twin", shape_CHW=SHAPE)
    with pytest.raises(ConfigError, match="methods is empty; take minmax or mse"):
        integer_twin(source, [noise(2, SHAPE)], name="twin", shape_CHW=SHAPE, methods=())
    with pytest.raises(ConfigError, match="no way to find ranges is called 'percentile'"):
        integer_twin(source, [noise(2, SHAPE)], name="twin", shape_CHW=SHAPE, methods=("percentile",))
