"""What an operator gave on the meta device is given again where nothing differs that it goes by."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from prunit.graph import remembered
from prunit.graph.remembered import answer
from prunit.graph.rules.seam import operands

aten = torch.ops.aten


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    remembered._ANSWERS.clear()
    yield
    remembered._ANSWERS.clear()


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape or (1, 4, 5, 6), dtype=dtype, device="meta")


def ask(func: Any, *args: Any, **kwargs: Any) -> Any:
    return answer(func, args, kwargs, operands(args, kwargs))


def about(out: Any) -> Any:
    if isinstance(out, Tensor):
        return tuple(out.shape), out.stride(), out.dtype, out.device, out.storage_offset()
    return type(out), [about(part) for part in out]


NEW: dict[str, Callable[[], tuple[Any, ...]]] = {
    "clamp": lambda: (aten.clamp.default, image(), 0, 1),
    "power": lambda: (aten.pow.Tensor_Scalar, image(), 2),
    "of a turned image": lambda: (aten.exp.default, image().permute(0, 2, 3, 1)),
    "of channels last": lambda: (aten.exp.default, image().to(memory_format=torch.channels_last)),
    "of a part": lambda: (aten.exp.default, image()[:, 1:3]),
    "of two dtypes": lambda: (aten.add.Tensor, image(dtype=torch.float16), image()),
    "a tuple": lambda: (aten.var_mean.correction, image(), [2, 3]),
    "numbers of places": lambda: (aten.sort.default, image(), 1),
    "a list of tensors": lambda: (aten.stack.default, [image(), image()], 1),
    "what is looked up": lambda: (aten.index.Tensor, image(9, 4), [image(2, 3, dtype=torch.int64)]),
    "a cast": lambda: (aten._to_copy.default, image()),
}


@pytest.mark.parametrize("name", NEW)
def test_an_answer_is_given_again(name: str) -> None:
    expected, first, again = (about(ask(*NEW[name]())) for _ in range(3))
    func, *args = NEW[name]()
    assert about(func(*args)) == expected == first == again
    assert len(remembered._ANSWERS) == 1


def test_each_answer_is_a_tensor_of_its_own() -> None:
    x = image()
    first, second, third = (ask(aten.exp.default, x) for _ in range(3))
    assert len({t.untyped_storage()._cdata for t in (x, first, second, third)}) == 4


@pytest.mark.parametrize("other", [1.0, True])
def test_equal_numbers_of_another_kind_are_other_numbers(other: Any) -> None:
    whole = image(3, dtype=torch.int64)
    assert about(ask(aten.mul.Scalar, whole, 1)) == about(aten.mul.Scalar(whole, 1))
    assert about(ask(aten.mul.Scalar, whole, other)) == about(aten.mul.Scalar(whole, other))
    truths = image(3, dtype=torch.bool)
    assert about(ask(aten.mul.Scalar, truths, 1)) == about(aten.mul.Scalar(truths, 1))
    assert about(ask(aten.mul.Scalar, truths, other)) == about(aten.mul.Scalar(truths, other))


def test_words_count_too() -> None:
    x = image()
    assert ask(aten._to_copy.default, x, dtype=torch.float16).dtype is torch.float16
    assert ask(aten._to_copy.default, x, dtype=torch.float64).dtype is torch.float64
    assert ask(aten._to_copy.default, x).dtype is torch.float32


def test_the_usual_dtype_counts_too() -> None:
    whole = image(3, dtype=torch.int64)
    assert ask(aten.div.Tensor, whole, whole).dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert ask(aten.div.Tensor, whole, whole).dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_is_written_to_comes_back_itself() -> None:
    for x in (image(), image()):
        assert ask(aten.clamp_.default, x, 0, 1) is x
    assert len(remembered._ANSWERS) == 1


NEVER: dict[str, Callable[[], tuple[Any, ...]]] = {
    "a view": lambda: (aten.view.default, image(), [4, 30]),
    "what changes its shape": lambda: (aten.squeeze_.default, image()),
    "what is written elsewhere": lambda: (aten.exp.out, image()),
    "a number's tensor": lambda: (aten.add.Tensor, image(), torch.empty((), device="meta")),
    "complex numbers": lambda: (aten.exp.default, image(dtype=torch.complex64)),
    "nothing from tensors": lambda: (aten.zeros.default, [3]),
    "chance": lambda: (aten.bernoulli.default, image()),
}


@pytest.mark.parametrize("name", NEVER)
def test_others_are_asked_for_each_time(name: str) -> None:
    func, *args = NEVER[name]()
    kwargs = {"out": image()} if name == "what is written elsewhere" else {}
    answer(func, tuple(args), kwargs, operands(tuple(args), kwargs))
    assert not remembered._ANSWERS


def test_a_tensor_off_the_meta_device_is_not_remembered() -> None:
    made = answer(aten.new_zeros.default, (image(), [2]), {"device": torch.device("cpu")}, [image()])
    assert made.device.type == "cpu"
    assert not remembered._ANSWERS


def test_an_error_comes_each_time() -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError):
            ask(aten.mm.default, image(2, 3), image(4, 5))
    assert not remembered._ANSWERS


def test_those_asked_for_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_MOST", 2)
    for size in (1, 2, 1, 3):
        ask(aten.exp.default, image(size))
    assert [key[2][0][0][0] for key in remembered._ANSWERS] == [1, 3]
