"""Instances of a class that run alike are read alike, in the same pass: a deep model takes no more of them."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunit.graph import findings, trace
from prunit.graph.passes import Passes


class _Attention(nn.Module):
    """Reads its heads off one reshape, so that what it splits into is rejected, and found out to be three wholes."""

    def __init__(self, channels: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(b, n, c))


class _Deep(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, 4)
        self.blocks = nn.ModuleList(_Attention() for _ in range(depth))
        self.fc = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = x + block(x)
        return self.fc(x.mean(1))


class _Gate(nn.Module):
    """Halves its channels at a number that is written out, or at one that an attribute says."""

    def __init__(self, channels: int, *, fixed: bool = False) -> None:
        super().__init__()
        self.hidden, self.fixed = channels, fixed
        self.fc = nn.Conv2d(channels, 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        a, b = (y[:, :16], y[:, 16:]) if self.fixed else (y[:, : self.hidden], y[:, self.hidden :])
        return x + self.out(a * b.sigmoid())


class _Heads(nn.Module):
    """Splits its channels into so many heads, or into heads of such a width; four of four look the same."""

    def __init__(self, *, by_width: bool) -> None:
        super().__init__()
        self.by_width = by_width
        self.query = nn.Conv2d(16, 16, 1)
        self.out = nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        split = (-1, 4) if self.by_width else (4, -1)
        return x + self.out(self.query(x).view(b, *split, h * w).softmax(-1).reshape(b, -1, h, w))


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([_Gate(16, fixed=True), _Gate(16), _Gate(16)], {"1.fc": 16, "2.fc": 16}),
        ([_Heads(by_width=False), _Heads(by_width=True), _Heads(by_width=False)], {"1.query": 4}),
    ],
    ids=["gates", "heads"],
)
def test_what_another_way_of_the_same_class_needs_is_not_done_to_it(
    blocks: list[nn.Module], expected: dict[str, int]
) -> None:
    model = nn.Sequential(nn.Sequential(*blocks), nn.Conv2d(16, 4, 1)).double()
    graph = trace(nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *model), torch.zeros(1, 3, 8, 8))
    found = {g.name.removeprefix("1."): g.size for g in graph.groups if not g.pinned}
    assert expected.items() <= found.items()


def _passes(depth: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, set[int]]:
    """How often the model is read, and the readings that its attentions come to."""
    ran = 0
    evaluate = Passes._evaluate

    def counted(self: Passes, *args: object, **kwargs: object) -> object:
        nonlocal ran
        ran += 1
        return evaluate(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Passes, "_evaluate", counted)
        graph = trace(_Deep(depth), torch.zeros(1, 3, 32, 32))
    readings = [n for module, what, n in graph.choices if module.startswith("blocks.") and what == "view"]
    assert len(readings) == depth
    return ran, set(readings)


def test_a_deeper_model_is_read_no_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    shallow, deep = _passes(2, monkeypatch), _passes(9, monkeypatch)
    assert deep == shallow
    assert deep[0] > 3  # there was something to be read otherwise
    assert len(deep[1]) == 1


@pytest.mark.parametrize("seed", range(8))
def test_millions_of_edges_join_the_same_channels_as_few(seed: int) -> None:
    pytest.importorskip("scipy", reason="scipy comes with the extra 'train'")
    rng = np.random.default_rng(seed)
    count, edges = int(rng.integers(2, 300)), int(rng.integers(1, 400))
    a, b = rng.integers(0, count, edges), rng.integers(0, count, edges)
    few = findings._joined(count, a, b)
    many = findings._joined_by_scipy(count, a, b)
    assert many is not None
    assert np.array_equal(few, many)
    assert (few[a] == few[b]).all()
