"""A shortcut gives exactly what PyTorch's own kernel for the meta device gives, or leaves it to that one."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunit.graph import trace
from prunit.graph.meta import _ACTIVATIONS, _SHORTCUTS, shortcut
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
    assert in_place is (x if plain else None)


@settings(deadline=None)
@given(data=st.data(), x=any_tensor(), name=st.sampled_from(["add", "mul"]))
def test_sums_and_products(data: st.DataObject, x: Tensor, name: str) -> None:
    shape = data.draw(st.sampled_from([tuple(x.shape), tuple(x.shape), (1,), x.shape[1:]]))
    y = data.draw(any_tensor(shape))
    plain = x.is_floating_point() and x.shape == y.shape and x.dtype == y.dtype and row_major(x, y)
    check(getattr(aten, name).Tensor, x, y, plain=plain)
    in_place = answer(getattr(aten, f"{name}_").Tensor, x, y)
    assert in_place is (x if plain else None)


@pytest.mark.parametrize("number", [2, 0.5, True, 1j])
def test_sums_with_numbers(number: complex) -> None:
    x = torch.empty(2, 3, device="meta")
    check(aten.add.Tensor, x, number, plain=not isinstance(number, complex))


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
    assert answer(func, x, *affine, mean, var, True, 0.1, 1e-5) is None


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
    sums = {getattr(aten, n + end).Tensor for n in ("add", "mul") for end in ("", "_")}
    others = {aten.convolution.default, aten.native_batch_norm.default, aten.addmm.default, aten.mean.dim}
    assert set(_SHORTCUTS) == pointwise | sums | others


def test_what_batch_norm_saves_for_training_is_no_activation() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    graph = trace(model, torch.zeros(1, 3, 5, 5))
    # The example and the convolution's output, in whose memory norm and activation work.
    assert [a.per_position * a.where.size for a in graph.activations] == [3 * 25, 4 * 25]
