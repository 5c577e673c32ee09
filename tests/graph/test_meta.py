"""A shortcut gives exactly what PyTorch's own kernel for the meta device gives, or leaves it to that one."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunit.graph import trace
from prunit.graph.meta import _ACTIVATIONS, _OF_TWO, _SHORTCUTS, shortcut
from prunit.graph.rules.seam import tensors

aten = torch.ops.aten
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64]
SIZES = st.integers(1, 4)


def answer(func: Any, *args: Any, **kwargs: Any) -> Any:
    return shortcut(func, args, kwargs, tensors((args, kwargs)))


def looks(value: Any) -> list[tuple[Any, ...]]:
    return [(tuple(x.shape), x.stride(), x.dtype, x.device.type) for x in tensors(value)]


def check(func: Any, *args: Any, plain: bool) -> None:
    """The shortcut answers in a `plain` case; if it answers PyTorch says the same, and does not fail."""
    found = answer(func, *args)
    assert (found is not None) >= plain
    try:
        expected = func(*args)
    except Exception:
        assert found is None
        return
    if found is not None:
        assert looks(found) == looks(expected)


def row_major(*xs: Tensor) -> bool:
    return all(x.stride() == torch.empty(x.shape, device="meta").stride() for x in xs)


@st.composite
def any_tensor(draw: st.DrawFn, shape: Sequence[int] | None = None, dtypes: Sequence[torch.dtype] = DTYPES) -> Tensor:
    """A meta tensor that is row-major, permuted in memory, in channels-last order, or a part of a larger one."""
    sizes = list(draw(st.lists(SIZES, max_size=5)) if shape is None else shape)
    dtype = draw(st.sampled_from(dtypes))
    layout = draw(st.sampled_from(["row-major", "row-major", "permuted", "channels last", "part"]))
    if layout == "permuted":
        order = draw(st.permutations(range(len(sizes))))
        whole = torch.empty([sizes[d] for d in order], dtype=dtype, device="meta")
        return whole.permute([order.index(d) for d in range(len(sizes))])
    if layout == "part":
        return torch.empty([n + 1 for n in sizes], dtype=dtype, device="meta")[tuple(slice(0, n) for n in sizes)]
    if layout == "channels last" and len(sizes) in (4, 5):
        layout_of = {4: torch.channels_last, 5: torch.channels_last_3d}[len(sizes)]
        return torch.empty(sizes, dtype=dtype, device="meta", memory_format=layout_of)
    return torch.empty(sizes, dtype=dtype, device="meta")


@settings(deadline=None)
@given(x=any_tensor(), name=st.sampled_from(_ACTIVATIONS))
def test_activation_functions(x: Tensor, name: str) -> None:
    args = (x, 0.0, 6.0) if name == "hardtanh" else (x,)
    plain = x.is_floating_point() and row_major(x)
    check(getattr(aten, name).default, *args, plain=plain)
    in_place = answer(getattr(aten, f"{name}_").default, *args)
    assert in_place is x or (in_place is None and not plain)


@pytest.mark.parametrize("approximate", ["none", "tanh", "something else"])
def test_gelu_is_told_how_by_name(approximate: str) -> None:
    x = torch.empty(2, 3, device="meta")
    found = answer(aten.gelu.default, x, approximate=approximate)
    assert (found is not None) == (approximate != "something else")


@settings(deadline=None, max_examples=300)
@given(data=st.data(), x=any_tensor(), name=st.sampled_from(_OF_TWO), swap=st.booleans())
def test_sums_and_products(data: st.DataObject, x: Tensor, name: str, swap: bool) -> None:
    narrowed = tuple(data.draw(st.sampled_from([1, n])) for n in x.shape)
    per_channel = tuple(n if d == 1 else 1 for d, n in enumerate(x.shape))
    shape = data.draw(st.sampled_from([tuple(x.shape), tuple(x.shape), (1,), x.shape[1:], narrowed, per_channel]))
    y = data.draw(any_tensor(shape))
    plain = x.is_floating_point() and x.shape == y.shape and x.dtype == y.dtype and row_major(x, y)
    check(getattr(aten, name).Tensor, *((y, x) if swap else (x, y)), plain=plain)
    in_place = answer(getattr(aten, f"{name}_").Tensor, x, y)
    assert in_place is x or (in_place is None and not plain)
    if in_place is not None:
        assert torch.broadcast_shapes(x.shape, y.shape) == x.shape


def test_what_is_broadcast_in_place_has_the_smaller_shape() -> None:
    gate, x = torch.empty(2, 3, 1, 1, device="meta"), torch.empty(2, 3, 4, 4, device="meta")
    assert answer(aten.mul_.Tensor, gate, x) is None  # an error, which PyTorch puts into words
    assert answer(aten.mul_.Tensor, x, gate) is x


def test_gates_and_gains_take_the_shortcut() -> None:
    x, last = torch.empty(2, 3, 4, 5, device="meta"), torch.empty(2, 4, 5, 3, device="meta").permute(0, 3, 1, 2)
    gate, gain = torch.empty(2, 3, 1, 1, device="meta"), torch.empty(3, 1, 1, device="meta")
    for args in ((x, gate), (gate, x), (gain, x), (gain, last), (last, last)):
        check(aten.mul.Tensor, *args, plain=True)


@pytest.mark.parametrize("number", [2, 0.5, True, 1j])
@pytest.mark.parametrize("kind", ["Tensor", "Scalar"])
def test_sums_with_numbers(number: complex, kind: str) -> None:
    x = torch.empty(2, 3, device="meta")
    for name in _OF_TWO:
        check(getattr(getattr(aten, name), kind), x, number, plain=not isinstance(number, complex | bool))


@settings(deadline=None)
@given(data=st.data(), space=st.integers(1, 3), groups=st.integers(1, 3))
def test_convolutions(data: st.DataObject, space: int, groups: int) -> None:
    def numbers(low: int, high: int) -> list[int]:
        return data.draw(st.lists(st.integers(low, high), min_size=space, max_size=space))

    batch, inputs, outputs = data.draw(st.tuples(st.integers(0, 2), SIZES, SIZES))
    transposed, wrong = data.draw(st.tuples(st.booleans(), st.booleans()))
    channels = inputs * groups + (wrong and not transposed)
    x = data.draw(any_tensor((batch, channels, *numbers(1, 7)), DTYPES[:3]))
    pair = (channels, outputs) if transposed else (outputs * groups, inputs)
    w = data.draw(any_tensor((*pair, *numbers(1, 3)), [x.dtype]))
    bias = data.draw(st.sampled_from([None, torch.empty(outputs * groups, device="meta")]))
    how = numbers(1, 3), numbers(0, 2), numbers(1, 2)
    check(aten.convolution.default, x, w, bias, *how, transposed, [0] * space, groups, plain=False)


def test_a_convolution_in_channels_last_order_takes_the_shortcut() -> None:
    x, w = torch.empty(1, 9, 9, 6, device="meta").permute(0, 3, 1, 2), torch.empty(6, 1, 7, 7, device="meta")
    check(aten.convolution.default, x, w, None, [1, 1], [3, 3], [1, 1], False, [0, 0], 6, plain=True)


def test_a_common_convolution_takes_the_shortcut() -> None:
    x, w = torch.empty(2, 6, 9, 9, device="meta"), torch.empty(4, 3, 3, 3, device="meta")
    found = answer(aten.convolution.default, x, w, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 2)
    assert looks(found) == [((2, 4, 5, 5), (100, 25, 5, 1), torch.float32, "meta")]


@settings(deadline=None)
@given(data=st.data(), x=any_tensor(dtypes=DTYPES[:3]).filter(lambda x: x.ndim > 1))
def test_batch_norm_in_evaluation_mode(data: st.DataObject, x: Tensor) -> None:
    gain, shift, mean, var = torch.empty(4, x.shape[1], dtype=x.dtype, device="meta").unbind()
    affine = (gain, shift) if data.draw(st.booleans()) else (None, None)
    func, how = aten.native_batch_norm.default, (False, 0.1, 1e-5)
    found = answer(func, x, *affine, mean, var, *how)
    expected, *_ = func(x, *affine, mean, var, *how)
    assert looks(found[0]) == looks(expected)
    on_cpu = [None if a is None else torch.ones(a.shape, dtype=a.dtype) for a in (x, *affine, mean, var)]
    assert [look[:3] for look in looks(found[1:])] == [look[:3] for look in looks(func(*on_cpu, *how)[1:])]


@settings(deadline=None)
@given(data=st.data(), x=any_tensor(dtypes=DTYPES[:3]).filter(lambda x: x.ndim > 1))
def test_batch_norm_in_training_mode(data: st.DataObject, x: Tensor) -> None:
    gain, shift, mean, var = torch.empty(4, x.shape[1], dtype=x.dtype, device="meta").unbind()
    affine = (gain, shift) if data.draw(st.booleans()) else (None, None)
    kept = (mean, var) if data.draw(st.booleans()) else (None, None)
    whole = row_major(x) and x.dtype in (torch.float32, torch.float64) and x.numel() > x.shape[1]
    check(aten.native_batch_norm.default, x, *affine, *kept, True, 0.1, 1e-5, plain=whole)


def test_a_count_of_batches_takes_the_shortcut() -> None:
    count = torch.empty((), dtype=torch.int64, device="meta")
    assert answer(aten.add_.Tensor, count, 1) is count
    check(aten.add_.Tensor, count, 1, plain=True)
    check(aten.add_.Tensor, count, 1.5, plain=False)


@settings(deadline=None)
@given(data=st.data(), rows=SIZES, inner=SIZES, columns=SIZES, dtype=st.sampled_from(DTYPES))
def test_linear_layers(data: st.DataObject, rows: int, inner: int, columns: int, dtype: torch.dtype) -> None:
    a = data.draw(any_tensor((rows, inner), [dtype]))
    b = data.draw(any_tensor((inner + data.draw(st.integers(0, 1)), columns), [dtype]))
    bias = data.draw(
        any_tensor(data.draw(st.sampled_from([(columns,), (columns,), (rows, columns), (1,), ()])), [dtype])
    )
    check(aten.addmm.default, bias, a, b, plain=bias.shape == (columns,) and b.shape[0] == inner)


@settings(deadline=None)
@given(data=st.data(), x=any_tensor(), keepdim=st.booleans())
def test_means(data: st.DataObject, x: Tensor, keepdim: bool) -> None:
    dims = data.draw(st.one_of(st.none(), st.lists(st.integers(-x.ndim - 1, x.ndim), max_size=3)))
    check(aten.mean.dim, x, dims, keepdim, plain=False)


def test_a_mean_over_space_takes_the_shortcut() -> None:
    x = torch.empty(2, 3, 4, 5, device="meta")
    assert looks(answer(aten.mean.dim, x, [-1, -2], True)) == [((2, 3, 1, 1), (3, 1, 1, 1), torch.float32, "meta")]
    assert looks(answer(aten.mean.dim, x, [2, 3])) == [((2, 3), (3, 1), torch.float32, "meta")]


@settings(deadline=None)
@given(data=st.data(), x=any_tensor().filter(lambda x: x.ndim), affine=st.booleans())
def test_layer_norm(data: st.DataObject, x: Tensor, affine: bool) -> None:
    shape = list(x.shape[data.draw(st.integers(0, x.ndim)) :])
    vectors = [torch.empty(shape, dtype=x.dtype, device="meta") if affine else None] * 2
    plain = bool(shape) and x.dtype in (torch.float32, torch.float64) and row_major(x)
    check(aten.native_layer_norm.default, x, shape, *vectors, 1e-5, plain=plain)
    assert answer(aten.native_layer_norm.default, x, [*shape[:-1], 7], *vectors, 1e-5) is None


def test_layer_norm_over_permuted_channels_takes_the_shortcut() -> None:
    x, gain = torch.empty(1, 6, 5, 4, device="meta").permute(0, 2, 3, 1), torch.empty(6, device="meta")
    check(aten.native_layer_norm.default, x, [6], gain, gain, 1e-5, plain=True)


@settings(deadline=None)
@given(data=st.data(), groups=st.integers(1, 3), space=st.lists(SIZES, min_size=1, max_size=3), affine=st.booleans())
def test_group_norm(data: st.DataObject, groups: int, space: list[int], affine: bool) -> None:
    batch, channels = data.draw(st.tuples(SIZES, st.sampled_from([2, 3, 4, 6])))
    x = data.draw(any_tensor((batch, channels, *space), DTYPES[:3]))
    vectors = [torch.empty(channels, dtype=x.dtype, device="meta") if affine else None] * 2
    plain = channels % groups == 0 and x.dtype != torch.bfloat16 and row_major(x)
    args = (batch, channels, math.prod(space), groups, 1e-5)
    check(aten.native_group_norm.default, x, *vectors, *args, plain=plain)


@settings(deadline=None)
@given(x=any_tensor(), dim=st.integers(-6, 5))
def test_softmax(x: Tensor, dim: int) -> None:
    plain = x.is_floating_point() and row_major(x) and -x.ndim <= dim < x.ndim
    check(aten._softmax.default, x, dim, False, plain=plain)
    check(aten._safe_softmax.default, x, dim, plain=plain)
    assert answer(aten._softmax.default, x, dim, True) is None
    assert answer(aten._safe_softmax.default, x, dim, torch.float64) is None


@settings(deadline=None)
@given(data=st.data(), sizes=st.tuples(SIZES, SIZES, SIZES, SIZES), dtype=st.sampled_from(DTYPES[:3]))
def test_products_of_matrices(data: st.DataObject, sizes: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    batch, rows, inner, columns = sizes
    other = inner + data.draw(st.integers(0, 1))
    a, b = data.draw(any_tensor((batch, rows, inner), [dtype])), data.draw(any_tensor((batch, other, columns), [dtype]))
    check(aten.bmm.default, a, b, plain=inner == other)
    check(aten.mm.default, a[0], b[0], plain=inner == other)
    assert answer(aten.bmm.default, a[0], b[0]) is None or a[0].ndim == 2
    assert answer(aten.mm.default, a[0, 0], b[0]) is None


@settings(deadline=None)
@given(data=st.data(), x=any_tensor().filter(lambda x: x.ndim), dim=st.integers(-6, 5))
def test_concatenations(data: st.DataObject, x: Tensor, dim: int) -> None:
    fits = -x.ndim <= dim < x.ndim
    shape = [n + (data.draw(st.integers(0, 2)) if fits and d == dim % x.ndim else 0) for d, n in enumerate(x.shape)]
    y = data.draw(any_tensor(shape, [x.dtype, x.dtype, torch.float64]))
    check(aten.cat.default, [x, y, x], dim, plain=fits and x.dtype == y.dtype and row_major(x, y))


@pytest.mark.parametrize("shapes", [[], [(0,), (2, 3)], [(2, 3), (3, 3)]])
def test_concatenations_that_are_left_to_pytorch(shapes: list[tuple[int, ...]]) -> None:
    assert answer(aten.cat.default, [torch.empty(shape, device="meta") for shape in shapes], 1) is None


@settings(deadline=None, max_examples=300)
@given(data=st.data(), x=any_tensor().filter(lambda x: x.ndim in (3, 4)), ceil=st.booleans(), more=st.booleans())
def test_poolings(data: st.DataObject, x: Tensor, ceil: bool, more: bool) -> None:
    def pair(low: int, high: int) -> list[int]:
        return data.draw(st.lists(st.integers(low, high), min_size=2, max_size=2))

    kernel, stride, padding, dilation = pair(1, 4), data.draw(st.sampled_from([[], pair(1, 3)])), pair(0, 2), pair(1, 2)
    how = (kernel, stride, padding) if more else (kernel,)
    check(aten.max_pool2d_with_indices.default, x, *how, *((dilation, ceil) if more else ()), plain=False)
    check(aten.avg_pool2d.default, x, *how, *((ceil, True, None) if more else ()), plain=False)


def test_common_poolings_take_the_shortcut() -> None:
    x = torch.empty(2, 3, 9, 9, device="meta")
    for func in (aten.max_pool2d_with_indices.default, aten.avg_pool2d.default):
        check(func, x, [2, 2], [2, 2], plain=True)
        check(func, x, [3, 3], [2, 2], [1, 1], plain=True)
        assert answer(func, x, [2]) is None  # one number for both


@settings(deadline=None)
@given(x=any_tensor(), size=st.lists(st.integers(0, 5), min_size=2, max_size=2))
def test_other_sizes_of_images(x: Tensor, size: list[int]) -> None:
    plain = x.ndim == 4 and x.is_floating_point() and row_major(x) and min(size) > 0
    check(aten.upsample_bilinear2d.default, x, size, False, plain=plain)


@pytest.mark.parametrize("size", [[0], [], [3], [0, 2]])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, None])
@pytest.mark.parametrize("device", ["meta", "cpu", None])
def test_empty_vectors(size: list[int], dtype: torch.dtype | None, device: str | None) -> None:
    kwargs = {"dtype": dtype, "device": device and torch.device(device), "pin_memory": False}
    found = answer(aten.empty.memory_format, size, **kwargs)
    assert (found is not None) == (size == [0] and dtype is not None and device == "meta")
    if found is not None:
        assert looks(found) == looks(aten.empty.memory_format(size, **kwargs))
        assert found is not answer(aten.empty.memory_format, size, **kwargs)  # it may be resized


def test_what_is_not_plain_is_left_to_pytorch() -> None:
    x = torch.empty(2, 3, device="meta")
    relu, add = aten.relu.default, aten.add.Tensor
    assert answer(relu, x) is not None
    assert answer(aten.tan.default, x) is None  # an operator without a shortcut
    assert answer(relu, torch.empty(2, 3)) is None  # values that are to be computed
    assert answer(relu, nn.Parameter(x)) is None  # a subclass, which has a say in what comes out
    assert answer(add, x, x, alpha=2) is None  # keywords


@pytest.mark.parametrize(
    ("bias", "dtype"),
    [
        pytest.param(torch.empty(7), torch.float32, id="a bias that does not fit"),
        pytest.param(torch.empty(5, dtype=torch.float64), torch.float32, id="another dtype of the bias"),
        pytest.param(torch.empty(5), torch.float64, id="another dtype of the weight"),
    ],
)
def test_linear_layers_that_do_not_fit(bias: Tensor, dtype: torch.dtype) -> None:
    a, b = torch.empty(2, 3, device="meta"), torch.empty(3, 5, dtype=dtype, device="meta")
    assert answer(aten.addmm.default, bias.to("meta"), a, b) is None


@pytest.mark.parametrize(("channels", "transposed"), [(0, False), (6, True)])
def test_convolutions_that_are_left_to_pytorch(channels: int, transposed: bool) -> None:
    x, w = torch.empty(1, channels, 4, 4, device="meta"), torch.empty(6, channels, 3, 3, device="meta")
    assert answer(aten.convolution.default, x, w, None, [1, 1], [1, 1], [1, 1], transposed, [0, 0], 1) is None


def test_every_shortcut_has_a_test() -> None:
    pointwise = {getattr(aten, n + end).default for n in _ACTIVATIONS for end in ("", "_")}
    kinds = [(end, kind) for end in ("", "_") for kind in ("Tensor", "Scalar")]
    of_two = {getattr(getattr(aten, n + end), kind) for n in _OF_TWO for end, kind in kinds}
    plain = "convolution native_batch_norm native_layer_norm native_group_norm addmm mm bmm cat _softmax _safe_softmax"
    space = "max_pool2d_with_indices avg_pool2d upsample_bilinear2d"
    others = {getattr(aten, name).default for name in f"{plain} {space}".split()}
    others |= {aten.mean.dim, aten.empty.memory_format}
    assert set(_SHORTCUTS) == pointwise | of_two | others


def test_what_batch_norm_saves_for_training_is_no_activation() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    graph = trace(model, torch.zeros(1, 3, 5, 5))
    # The example and the convolution's output, in whose memory norm and activation work.
    assert [a.per_position * a.where.size for a in graph.activations] == [3 * 25, 4 * 25]
