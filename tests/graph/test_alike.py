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
