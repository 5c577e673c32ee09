"""Operators that look at all channels at once: the masked model computes them on the kept ones.

Networks as in `test_readings`: the code under test stands in `inner`.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.reading import Code, Net, free, read


def last(code: Code) -> Code:
    """The code on x_BHWC."""
    return lambda m, x: code(m, x.movedim(1, -1)).movedim(-1, 1)


def tokens(code: Code) -> Code:
    """The code on x_BNC."""
    return lambda m, x: code(m, x.flatten(2).mT).mT.unflatten(2, (8, 8))


def standardised(m: Any, x: Tensor) -> Tensor:
    mean = m.weight.mean((1, 2, 3), keepdim=True)
    return F.conv2d(x, (m.weight - mean) / m.weight.std((1, 2, 3), keepdim=True), padding=1)


def by_batch_norm(m: Any, x: Tensor) -> Tensor:
    flat = m.weight.reshape(1, m.weight.shape[0], -1)
    return F.conv2d(x, F.batch_norm(flat, None, None, training=True, momentum=0.0).reshape_as(m.weight), padding=1)


def dual(m: Any, x: Tensor) -> Tensor:
    """Attention written with einsum, over the channels as they lie."""
    q, k, v = m.q(x), m.k(x), m.v(x)
    return torch.einsum("bnm,bmc->bnc", (torch.einsum("bnc,bmc->bnm", q, k) * 0.3).softmax(-1), v)


ALONG = {"conv": nn.Conv1d(1, 1, 3, padding=1)}
WEIGHT = {"weight": nn.Parameter(torch.ones(12, 12, 3, 3))}
MIXING: list[tuple[str, Code, dict[str, Any], str]] = [
    ("layer norm", last(lambda m, x: m.norm(x)), {"norm": nn.LayerNorm(12)}, "statistics over channels"),
    ("layer norm of images", lambda m, x: F.layer_norm(x, x.shape[1:]), {}, "statistics over channels"),
    ("group norm", lambda m, x: m.norm(x), {"norm": nn.GroupNorm(4, 12)}, "statistics over channels"),
    ("rms norm", last(lambda m, x: m.norm(x)), {"norm": nn.RMSNorm(12)}, "mean over channels"),
    ("instance norm of tokens", lambda m, x: F.instance_norm(x.flatten(2).mT).mT.unflatten(2, (8, 8)), {}, "statis"),
    ("softmax", lambda m, x: x.softmax(1), {}, "_softmax over channels"),
    ("softmax of all", lambda m, x: x.flatten(1).softmax(1).view_as(x), {}, "_softmax over channels"),
    ("mean", lambda m, x: x - x.mean(1, keepdim=True), {}, "mean over channels"),
    ("mean of all", lambda m, x: x - x.mean(), {}, "mean over channels"),
    ("variance", lambda m, x: x / x.var(1, keepdim=True), {}, "var over channels"),
    ("deviation", lambda m, x: x / x.std((1, 2), keepdim=True, correction=0), {}, "std over channels"),
    ("variance and mean", lambda m, x: torch.mul(*torch.var_mean(x, 1, keepdim=True)) * x, {}, "var_mean over"),
    ("deviation and mean", lambda m, x: torch.mul(*torch.std_mean(x, 1, keepdim=True)) * x, {}, "std_mean over"),
    ("largest", lambda m, x: x - x.amax(1, keepdim=True), {}, "amax over channels"),
    ("smallest", lambda m, x: x - x.amin((1, 3), keepdim=True), {}, "amin over channels"),
    ("both", lambda m, x: torch.mul(*x.aminmax(dim=1, keepdim=True)) * x, {}, "aminmax over channels"),
    ("product", lambda m, x: x * x.sigmoid().prod(1, keepdim=True), {}, "prod over channels"),
    ("count", lambda m, x: x * (x > 0).sum(1, keepdim=True), {}, "sum over channels"),
    ("any", lambda m, x: x * (x > 1).any(1, keepdim=True), {}, "any over channels"),
    ("unit length", lambda m, x: F.normalize(x, dim=1), {}, "norm over channels"),
    ("length in another measure", lambda m, x: F.normalize(x, p=1.0, dim=1), {}, "norm over channels"),
    ("similarity", lambda m, x: x * F.cosine_similarity(x, m.a(x))[:, None], {"a": nn.Conv2d(12, 12, 1)}, "norm over"),
    ("response norm", last(lambda m, x: x * x.norm(dim=(1, 2), keepdim=True).softmax(-1)), {}, "_softmax over"),
    ("standardised weights", standardised, WEIGHT, "mean over channels"),
    ("standardised by batch norm", by_batch_norm, WEIGHT, "statistics over channels"),
    ("along channels", lambda m, x: x * m.conv(x.mean((2, 3))[:, None])[:, 0, :, None, None], ALONG, "convolved along"),
    ("gram matrix", tokens(lambda m, x: x @ (x.mT @ x).softmax(-1)), {}, "_softmax over channels"),
]


@pytest.mark.parametrize(
    ("code", "attributes", "why"), [case for _, *case in MIXING], ids=[name for name, *_ in MIXING]
)
def test_the_mask_computes_it_on_what_is_left(code: Code, attributes: dict[str, Any], why: str) -> None:
    graph = read(Net(code, **copy.deepcopy(attributes)))
    stem = graph.group("stem.0")
    assert stem.pinned == ""
    assert why in stem.mixed


def test_only_what_is_mixed_says_so() -> None:
    """Queries and keys are multiplied over their channels, values and the input are not."""
    graph = read(Net(tokens(dual), **{name: nn.Linear(12, 10) for name in "qkv"}, out=10))
    assert {g.name: g.mixed for g in graph.groups} == {
        "stem.0": "",
        "inner.q": "bmm multiplies two activations in 'inner'",
        "inner.v": "",
        "out": "",
    }
    assert free(graph) == {"stem.0": 12, "inner.q": 10, "inner.v": 10}


@pytest.mark.xfail(strict=True, reason="mixing is given up for another reading of a view, though all of those pin")
def test_attention_as_wide_as_its_input() -> None:
    assert free(read(Net(tokens(dual), **{name: nn.Linear(12, 12) for name in "qkv"})))
