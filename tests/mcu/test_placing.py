"""Where tensors lie in an arena, and paddings that become part of kernels: smaller arenas, the same answers."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest

from prunit.mcu.flatbuffer import PLACES, flatbuffer_of, without_places
from prunit.mcu.litert import answers
from prunit.mcu.memory import ALIGNED, lives, most_at_once
from prunit.mcu.micro import file_for, tflm_file
from prunit.mcu.network import IntegerNetwork, Operator, Tensor
from prunit.mcu.parts import part
from prunit.mcu.placing import offsets_of
from prunit.mcu.reading import content_of
from prunit.mcu.tflm import arena, tflm_answers
from prunit.mcu.unpadding import unpadded
from prunit.mcu.vela import compiled

SCALE = (0.05,)


def image(name: str, size: int, channels: int) -> Tensor:
    return Tensor(name, (1, size, size, channels), scales=SCALE, zero_point=-3)


def layer(name: str, x: str, y: str, options: Mapping[str, object], *, depthwise: bool = False) -> Operator:
    code = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    more = {"depthMultiplier": 1} if depthwise else {}
    return Operator(code, name, (x, f"{name}.weight", f"{name}.bias"), (y,), 3, {**_PLAIN, **options, **more})


_PLAIN = {
    "padding": "VALID",
    "strideH": 1,
    "strideW": 1,
    "dilationHFactor": 1,
    "dilationWFactor": 1,
    "fusedActivationFunction": "NONE",
}


def weights(name: str, shape: tuple[int, ...], axis: int) -> list[Tensor]:
    noise, outputs = np.random.default_rng(len(name)), shape[axis]
    return [
        Tensor(
            f"{name}.weight",
            shape,
            scales=(0.01,) * outputs,
            axis=axis,
            values=noise.integers(-127, 128, shape).astype(np.int8),
        ),
        Tensor(
            f"{name}.bias",
            (outputs,),
            "int32",
            (0.0005,) * outputs,
            values=noise.integers(-500, 500, outputs).astype(np.int32),
        ),
    ]


def strided(
    size: int, kernel: int, pad: tuple[int, int], *, stride: int = 2, dilation: int = 1, depthwise: bool = False
) -> IntegerNetwork:
    """An image, padded before and behind, and a convolution of it."""
    channels, wide = 8, size + sum(pad)
    places = (wide - (kernel - 1) * dilation - 1) // stride + 1
    around = np.array([(0, 0), pad, pad, (0, 0)], np.int32)
    shape = (1, kernel, kernel, channels) if depthwise else (4, kernel, kernel, channels)
    options = {"strideH": stride, "strideW": stride, "dilationHFactor": dilation, "dilationWFactor": dilation}
    return IntegerNetwork(
        "strided",
        [
            image("x", size, channels),
            Tensor("around", (4, 2), "int32", values=around),
            image("padded", wide, channels),
            *weights("conv", shape, 3 if depthwise else 0),
            image("y", places, channels if depthwise else 4),
        ],
        [
            Operator("PAD", "pad", ("x", "around"), ("padded",), 2),
            layer("conv", "padded", "y", options, depthwise=depthwise),
        ],
        ("x",),
        ("y",),
    )


def ladder(blocks: int, size: int = 8, channels: int = 16) -> IntegerNetwork:
    """Residual blocks of two convolutions, as a ResNet has them."""
    tensors, operators, x = [image("x", size, channels)], [], "x"
    for i in range(blocks):
        names = [f"b{i}/{part}" for part in ("inner", "outer", "sum")]
        tensors += [image(name, size, channels) for name in names]
        for j, (read, made) in enumerate(((x, names[0]), (names[0], names[1]))):
            tensors += weights(f"b{i}.{j}", (channels, 1, 1, channels), 0)
            operators.append(layer(f"b{i}.{j}", read, made, {}))
        operators.append(Operator("ADD", f"b{i}", (x, names[1]), (names[2],), 2, {"fusedActivationFunction": "NONE"}))
        x = names[2]
    return IntegerNetwork("ladder", tensors, operators, ("x",), (x,))


def images(network: IntegerNetwork, amount: int = 3) -> np.ndarray:
    shape = network.by_name[network.inputs[0]].shape
    return np.random.default_rng(0).integers(-128, 128, (amount, *shape[1:])).astype(np.int8)


def same_answers(data: bytes, other: bytes, x_int8_N: np.ndarray) -> bool:
    return all(
        np.array_equal(a, b) for a, b in zip(tflm_answers(data, x_int8_N), tflm_answers(other, x_int8_N), strict=True)
    )


@pytest.mark.parametrize("network", [ladder(1), ladder(5), ladder(3, 7, 5)])
def test_no_two_tensors_that_meet_share_a_byte(network: IntegerNetwork) -> None:
    every, offsets = lives(network), offsets_of(network)
    assert set(offsets) == set(every)
    assert all(at % ALIGNED == 0 for at in offsets.values())
    for a, b in combinations(every, 2):
        if every[a].meets(every[b]):
            assert offsets[a] + every[a].bytes <= offsets[b] or offsets[b] + every[b].bytes <= offsets[a]
    top = max(offsets[name] + every[name].bytes for name in offsets)
    assert top <= most_at_once(every.values(), aligned=ALIGNED)  # nothing is lost between them


def test_residual_blocks_take_a_smaller_arena_and_answer_the_same() -> None:
    network = ladder(5)
    plain, placed = flatbuffer_of(network), tflm_file(network)
    assert arena(placed).total_bytes < 0.9 * arena(plain).total_bytes
    assert same_answers(plain, placed, images(network))
    found = answers(placed, images(network), kernels="reference")[0]
    assert np.array_equal(found, tflm_answers(placed, images(network))[0])


def test_a_chain_that_it_would_place_badly_is_placed() -> None:
    sizes = [8, 8, 4, 12, 12, 4]  # large ones first: the two largest meet, and neither finds room beside smaller ones
    tensors, operators = [image("x0", 8, sizes[0])], []
    for i, (inputs, outputs) in enumerate(pairwise(sizes), 1):
        tensors += [*weights(f"c{i}", (outputs, 1, 1, inputs), 0), image(f"x{i}", 8, outputs)]
        operators.append(layer(f"c{i}", f"x{i - 1}", f"x{i}", {}))
    network = IntegerNetwork("chain", tensors, operators, ("x0",), (f"x{len(operators)}",))
    least = most_at_once(lives(network).values(), aligned=ALIGNED)
    assert arena(tflm_file(network)).head_bytes == least
    assert arena(tflm_file(network)).total_bytes <= arena(flatbuffer_of(network)).total_bytes


def test_a_chain_is_left_to_the_interpreter() -> None:
    network = strided(8, 3, (1, 1))
    assert offsets_of(network) == {}
    assert PLACES.encode() not in tflm_file(network)


def test_the_same_network_gives_the_same_bytes() -> None:
    assert tflm_file(ladder(4)) == tflm_file(ladder(4))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(
    ("size", "kernel", "pad", "stride", "dilation"),
    [
        (12, 3, (1, 1), 2, 1),
        (12, 5, (2, 2), 2, 1),
        (12, 7, (3, 3), 2, 1),
        (11, 3, (1, 1), 2, 1),
        (12, 3, (1, 1), 3, 1),
        (12, 3, (2, 2), 1, 2),
        (12, 3, (0, 1), 2, 1),
        (12, 2, (1, 0), 1, 1),
    ],
)
def test_paddings_become_part_of_the_kernel(
    size: int, kernel: int, pad: tuple[int, int], stride: int, dilation: int, depthwise: bool
) -> None:
    network = strided(size, kernel, pad, stride=stride, dilation=dilation, depthwise=depthwise)
    found = unpadded(network)
    assert [operator.code for operator in found.operators] == [network.operators[1].code]
    assert found.operators[0].options["padding"] == "SAME"
    x = images(network)
    assert same_answers(flatbuffer_of(network), flatbuffer_of(found), x)
    assert np.array_equal(
        answers(flatbuffer_of(found), x, kernels="reference")[0], tflm_answers(flatbuffer_of(network), x)[0]
    )
    assert arena(flatbuffer_of(found)).total_bytes < arena(flatbuffer_of(network)).total_bytes


@pytest.mark.parametrize("pad", [(5, 5), (0, 4)])
def test_paddings_that_no_kernel_takes_stay(pad: tuple[int, int]) -> None:
    network = strided(12, 3, pad)
    assert unpadded(network) is network


def test_paddings_stay_that_are_not_where_most_is_needed() -> None:
    small = strided(6, 3, (1, 1))
    up = Operator(
        "CONCATENATION", "cat", ("y", *("y",) * 63), ("far",), 2, {"axis": 3, "fusedActivationFunction": "NONE"}
    )
    far = image("far", 3, 4 * 64)
    network = replace(small, tensors=[*small.tensors, far], operators=[*small.operators, up], outputs=("far",))
    assert unpadded(network) is network


def test_a_padded_image_that_others_read_stays() -> None:
    network = strided(12, 3, (1, 1))
    assert unpadded(replace(network, outputs=("y", "padded"))).operators[0].code == "PAD"


def test_a_compiler_gets_no_places() -> None:
    pytest.importorskip("ethosu.vela")
    network, npu = ladder(2), part("ethos-u55-128")
    placed = tflm_file(network)
    assert PLACES.encode() in placed
    plain = flatbuffer_of(network)
    assert content_of(without_places(placed)) == content_of(plain)
    assert content_of(placed).placed
    assert not content_of(plain).placed
    assert content_of(placed).constant_bytes == content_of(plain).constant_bytes
    assert without_places(plain) is plain
    assert compiled(placed, npu).layers == compiled(file_for(network, npu), npu).layers
    assert content_of(compiled(placed, npu).data) == content_of(compiled(file_for(network, npu), npu).data)
