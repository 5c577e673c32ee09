"""Profiles as files and the times between their points."""

import json
from pathlib import Path

import numpy as np
import pytest

from prunit.edge.measuring.layer_times import LayerTimes, kind_of, probed
from prunit.edge.measuring.probe_layers import merge
from prunit.edge.measuring.profile import DeviceProfile, LayerList, LayerPoints, LayerShape, Window
from prunit.errors import FileError
from tests.edge.profiles import blocks, products, profile

CONV = LayerShape(inputs=64, outputs=96, window=Window(size=(8, 8), kernel=(3, 3), padding=(1, 1)))
LONE = LayerShape(inputs=48, outputs=48, window=Window(size=(8, 8), kernel=(3, 3), groups="depthwise"))
HEAD = LayerShape(inputs=96, outputs=10, outputs_fixed=True)
STEM = LayerShape(inputs=3, outputs=64, inputs_fixed=True, window=Window(size=(16, 16), kernel=(3, 3)))
SHAPES = [CONV, LONE, HEAD, STEM]


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 10, 16, 17, 24, 30, 64, 100, 512])
def test_widths_of_each_kind_are_probed_up_to_the_most(most: int) -> None:
    found = probed(most)
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (1, most)
    assert probed(most, fixed=True) == [most]
    for kind in range(3):
        there = [n for n in range(1, most + 1) if kind_of(np.array(n)) == kind]
        mine = [n for n in found if kind_of(np.array(n)) == kind]
        if there:  # what lies outside of the measured ones is at most a step away
            assert mine[0] == there[0]
            assert mine[-1] == there[-1]


def test_measured_times_come_back_and_others_lie_between_those_of_their_kind() -> None:
    found = profile(SHAPES)
    times = LayerTimes(found.layers)
    for n in range(max(len(layer.points) for layer in found.layers)):
        points = [layer.points[min(n, len(layer.points) - 1)] for layer in found.layers]
        inputs, outputs, ms = map(np.array, zip(*points, strict=True))
        assert times.at(inputs, outputs) == pytest.approx(ms)
    # 48 outputs fill their blocks and so do 48 inputs: on a straight line with the measured 16, 32 and 64.
    assert times.at(np.array([48, 40, 96, 3]), np.array([48, 40, 10, 64]))[0] == pytest.approx(blocks(CONV, 48, 48))
    # 57 inputs fill none: between 49 and 63, a quarter above the line of those that do.
    assert times.at(np.array([57, 40, 96, 3]), np.array([96, 40, 10, 64]))[0] == pytest.approx(blocks(CONV, 57, 96))


def test_where_times_are_smooth_every_width_is_met() -> None:
    times = LayerTimes(profile([CONV], products).layers)
    for inputs, outputs in np.random.default_rng(0).integers(1, [64, 96], (200, 2), endpoint=True):
        found = times.at(np.array([inputs]), np.array([outputs]))
        assert found == pytest.approx(products(CONV, int(inputs), int(outputs)))


def test_parts_of_channels_count_as_whole_ones_and_no_layers_take_no_time() -> None:
    times = LayerTimes(profile([CONV]).layers)
    assert times.at(np.array([47.2]), np.array([63.5])) == times.at(np.array([48]), np.array([64]))
    assert LayerTimes([]).at(np.zeros(0), np.zeros(0)).sum() == 0


def test_a_missing_point_is_an_error() -> None:
    found = profile([CONV]).layers[0]
    with pytest.raises(FileError, match=r"no time of a 3×3 convolution of 8×8 positions, .* with 64 inputs and 96"):
        LayerTimes([LayerPoints(shape=found.shape, points=found.points[:-1])])


def test_layers_of_one_shape_are_measured_once() -> None:
    narrow = CONV.model_copy(update={"inputs": 96, "outputs": 32})
    strided = CONV.model_copy(update={"window": Window(size=(8, 8), kernel=(3, 3), stride=(2, 2), padding=(1, 1))})
    assert merge([CONV, narrow, CONV, strided]) == [CONV.model_copy(update={"inputs": 96}), strided]
    grey = STEM.model_copy(update={"inputs": 1})
    assert merge([STEM, grey, STEM]) == [STEM, grey]


def test_a_profile_covers_layers_of_its_shapes_up_to_its_widths() -> None:
    found = profile(SHAPES)
    smaller = CONV.model_copy(update={"inputs": 32})
    larger = CONV.model_copy(update={"inputs": 65})
    grey = STEM.model_copy(update={"inputs": 1})
    free = HEAD.model_copy(update={"outputs_fixed": False})
    other = CONV.model_copy(update={"window": Window(size=(4, 4), kernel=(3, 3), padding=(1, 1))})
    covered = found.points_of([CONV, smaller, larger, LONE, HEAD, STEM, grey, free, other])
    assert [p is not None for p in covered] == [True, True, False, True, True, True, False, False, False]


def test_files_come_back(tmp_path: Path) -> None:
    found = profile(SHAPES)
    found.write(tmp_path / "a" / "profile.json")
    assert DeviceProfile.read(tmp_path / "a" / "profile.json", engine="onnxruntime") == found
    listed = LayerList(model="toy", layers=tuple(SHAPES))
    listed.write(tmp_path / "layers.json")
    assert LayerList.read(tmp_path / "layers.json") == listed
    assert len((tmp_path / "layers.json").read_text().splitlines()) == len(SHAPES) + 6


def test_files_that_do_not_fit_say_why(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    with pytest.raises(FileError, match=r"there is no device profile '.*'; prunit probe-device writes one"):
        DeviceProfile.read(file)
    profile(SHAPES).write(file)
    with pytest.raises(FileError, match="was measured with onnxruntime 1; the models will run in openvino"):
        DeviceProfile.read(file, engine="openvino")
    data = json.loads(file.read_text())
    for wrong, message in (
        ({**data, "version": 0}, "of version 1, which this prunit reads: its version is 0; make it anew"),
        ({**data, "version": 2}, "its version is 2"),
        ({**data, "layers": []}, "layers: Tuple should have at least 1 item"),
        ({**data, "extra": 1}, "extra: Extra inputs are not permitted"),
        ([], "its version is None"),
    ):
        file.write_text(json.dumps(wrong))
        with pytest.raises(FileError, match=message):
            DeviceProfile.read(file)
    file.write_text("{")
    with pytest.raises(FileError, match="is not a device profile: Expecting"):
        DeviceProfile.read(file)
    profile(SHAPES).write(file)
    with pytest.raises(FileError, match=r"is not a list of layers: .*make it anew with prunit layers MODEL"):
        LayerList.read(file)
