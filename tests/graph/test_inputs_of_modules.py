"""What a module is given by keyword, or nested in lists and dicts, counts like what it is given by position."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.graph.reading import free, read
from tests.nets import conv_bn


class Block(nn.Module):
    """Code that takes a width from its input, in a view that no reading explains: both are pinned, nothing else is."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.key, self.value = nn.Conv2d(c, c, 1), nn.Conv2d(c, c, 1)

    def forward(self, x: Any = None, *, state: Any = None, parts: Any = ()) -> Tensor:
        x = state["x"] if state else parts[0] if parts else x
        b, c, h, w = x.shape
        k = self.key(x).flatten(2).transpose(1, 2).reshape(b, -1, c)
        return (k @ self.value(x).flatten(2)).softmax(2).reshape(b, h * w, h, w)


class Around(nn.Module):
    def __init__(self, call: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.stem = conv_bn(3, 6), conv_bn(6, 12)
        self.block, self.out = Block(12), nn.Conv2d(64, 4, 1)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.call(self.block, self.stem(self.first(x))))


CALLS = {
    "position": lambda f, x: f(x),
    "keyword": lambda f, x: f(x=x),
    "dict": lambda f, x: f(state={"x": x}),
    "list": lambda f, x: f(parts=[x]),
    "dict in position": lambda f, x: f(None, state={"x": x, "n": None}),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_width_of_the_input_is_found_however_it_is_given(call: str) -> None:
    graph, expected = read(Around(CALLS[call])), read(Around(CALLS["position"]))
    assert {g.name: (g.size, g.pinned) for g in graph.groups} == {g.name: (g.size, g.pinned) for g in expected.groups}
    assert graph.choices == expected.choices
    assert free(graph) == {"first.0": 6}


def test_hooks_of_the_user_stay_alone_on_their_modules() -> None:
    model = Around(CALLS["keyword"])
    seen: list[Any] = []
    model.block.register_forward_pre_hook(lambda m, args, kwargs: seen.append(kwargs.keys()), with_kwargs=True)
    before = {n: list(m._forward_pre_hooks) for n, m in model.named_modules()}
    read(model)
    assert {n: list(m._forward_pre_hooks) for n, m in model.named_modules()} == before
    assert seen
    assert all(len(m._forward_pre_hooks_with_kwargs) == len(m._forward_pre_hooks) for m in model.modules())


class Finder(nn.Module):
    """A detector that finds nothing on an example: lists of tensors without elements."""

    def __init__(self, find: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.body, self.out = conv_bn(3, 12), conv_bn(12, 10), nn.Conv2d(10, 5, 1)
        self.find = find

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.out(self.body(self.stem(x))).flatten(2).transpose(1, 2)
        return found, self.find(found).double().sum()


@pytest.mark.parametrize(
    "find",
    [
        lambda x: torch.cat([x[:, :0], x[:, :0]]),
        lambda x: torch.cat([x[:, :0], x[:, :0]], 1),
        lambda x: torch.cat([x.new_empty(0), x.new_empty(0)]),
        lambda x: torch.cat([x.new_zeros(0), x[0, :0, 0]]),
        lambda x: torch.stack([x[:, :0], x[:, :0]]),
        lambda x: x[:, torch.zeros(0, dtype=torch.int64, device=x.device)],
        lambda x: torch.where(x[:, :0] > 0, x[:, :0], x[:, :0] * 2).sum(1),
        lambda x: x[x > 1e9],
        lambda x: torch.cat([one[one[:, 0] > 1e9] for one in x]),
        lambda x: torch.stack(list(torch.where(x > 1e9)), 1),
        lambda x: x[:, :0].flatten(1) @ x.new_ones(0, 2),
        lambda x: x[:, :0].reshape(-1, 5).topk(0, 0)[0],
        lambda x: x[:, :0].flatten(0, 1).split([0, 0])[0],
        lambda x: x[:, :0].unbind(0)[1].gather(0, x.new_zeros(0, 5).long()),
    ],
)
def test_a_detector_that_finds_nothing_is_read(find: Callable[[Tensor], Tensor]) -> None:
    graph = read(Finder(find))
    assert free(graph) == {"stem.0": 12, "body.0": 10}
