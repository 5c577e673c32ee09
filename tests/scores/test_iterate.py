"""The loops: the ranking holds the masks of every round, also while the network that is scored shrinks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

from prunit.batches import Batch
from prunit.graph import ChannelGraph, trace
from prunit.scores import SCORES, Score, score_weights
from prunit.scores.iterate import (
    _SAMPLE,
    _SAMPLE_EVERY,
    exponential,
    fraction,
    iterate,
    iterate_reviving,
    kth_smallest,
    median,
)
from prunit.scores.network import Network, untouched
from tests.nets import Concatenated, Flattened, Gated, Head, conv_bn, images
from tests.scores.toy import batches

Masks = list[dict[str, Tensor]]


class Row(nn.Module):
    """VGG in small."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(3, 24), conv_bn(24, 32), nn.MaxPool2d(2), conv_bn(32, 32), conv_bn(32, 24))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(24 * 16, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Bare(nn.Module):
    """No batch norm, under which the saliency of a filter's only weight would be rounding alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 32, 3, padding=1)
        self.c, self.head = nn.Conv2d(32, 24, 3), Head(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))))


class Residuals(nn.Module):
    """Two blocks on a stream, one projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv_bn(3, 16), Head(24)
        self.a = nn.Sequential(conv_bn(16, 24), conv_bn(24, 16, act=nn.Identity()))
        self.b = nn.Sequential(conv_bn(16, 24), conv_bn(24, 24, act=nn.Identity()))
        self.project = conv_bn(16, 24, 1, act=nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.a(x))
        return self.head(torch.relu(self.b(x) + self.project(x)))


class Depthwise(nn.Module):
    """Inverted residuals and a depthwise layer that makes two channels of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv_bn(3, 12), Head(40)
        self.a = nn.Sequential(conv_bn(12, 48, 1), conv_bn(48, 48, groups=48), conv_bn(48, 12, 1, act=nn.Identity()))
        self.b = nn.Sequential(conv_bn(12, 20, 1), conv_bn(20, 40, groups=20))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.b(x + self.a(x)))


NETS: dict[str, Callable[[], nn.Module]] = {
    "row": Row,
    "bare": Bare,
    "residual": Residuals,
    "depthwise": Depthwise,
    "concatenated": Concatenated,
    "flattened": Flattened,
    "gated": Gated,
}


@dataclass
class Spy:
    """A saliency that notes how many weights it was asked about."""

    score: Score
    asked: list[int] = field(default_factory=list)

    def __call__(
        self, net: Network, weights: Mapping[str, Tensor], data: Sequence[Batch], generator: torch.Generator
    ) -> dict[str, Tensor]:
        self.asked.append(sum(w.numel() for w in weights.values()))
        return self.score.saliency(net, weights, data, generator)


def built(net: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return NETS[net]().double()


def naive(model: nn.Module, graph: ChannelGraph, score: Score, schedule: Sequence[float], data: list[Batch]) -> Masks:
    """The loop of Synaptic-Flow and FORCE's code: always the dense network, the mask is `score > kth value`."""
    masks: Masks = []
    with untouched(model, batch_statistics=score.batch_statistics):
        net = Network(model, graph)
        dense = {n: w.abs() if score.absolute else w for n, w in net.weights.items()}
        mask = {n: torch.ones_like(w, dtype=torch.bool) for n, w in dense.items()}
        for share in schedule:
            found = score.saliency(net, {n: w * mask[n] for n, w in dense.items()}, data, torch.Generator())
            if not score.revive:
                found = {n: s * mask[n] for n, s in found.items()}
            flat = torch.cat([s.flatten() for s in found.values()])
            threshold = torch.kthvalue(flat, len(flat) - round(len(flat) * share)).values
            mask = {n: s > threshold for n, s in found.items()}
            masks.append(mask)
    return masks


# The last figure: how many sizes the network that is scored has at least on the way.
CASES = [
    ("synflow", "row", 0.004, 100, 5),
    ("synflow", "row", 0.02, 12, 2),
    ("synflow", "residual", 0.01, 60, 4),
    ("synflow", "depthwise", 0.03, 60, 4),
    ("synflow", "concatenated", 0.1, 40, 3),
    ("synflow", "flattened", 0.1, 40, 2),
    ("synflow", "gated", 0.1, 40, 2),
    ("iterative-snip", "bare", 0.01, 24, 2),
    ("iterative-snip", "residual", 0.1, 12, 1),
]


@pytest.mark.parametrize(("name", "net", "density", "rounds", "sizes"), CASES)
def test_the_ranking_holds_the_mask_of_every_round(
    name: str, net: str, density: float, rounds: int, sizes: int
) -> None:
    model = built(net, 0)
    graph, spy = trace(model, images()), Spy(SCORES[name])
    score = replace(SCORES[name], saliency=spy)
    order = score_weights(model, graph, score, batches(), density=density, rounds=rounds)
    for k, mask in enumerate(naive(model, graph, SCORES[name], exponential(density, rounds), batches()), start=1):
        for n in mask:
            assert torch.equal(order[n] >= k, mask[n]), f"round {k}, {n}"
    # The speed-up took part: what was asked about got smaller.
    assert len(spy.asked) == rounds + 1
    assert spy.asked == sorted(spy.asked, reverse=True)
    assert len(set(spy.asked)) >= sizes


def test_weights_that_the_cut_takes_out_compete_in_the_next_round() -> None:
    """Round 4 silences more weights than round 5 shall prune; all of saliency 0 tie, in the cut network or not."""
    model = nn.Sequential(*(nn.Linear(i, o, bias=False) for i, o in ((1, 8), (8, 8), (8, 1)))).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(1, 1.1, generator=generator)
        # Nothing but weak weights reads channels 0 to 3 of the first layer or makes 4 to 7 of the second. The last of
        # them, two in each row and column, go in round 4.
        middle, i = model.get_parameter("1.weight"), torch.arange(4)
        middle[:4, :4] *= 1e-6
        middle[4:] *= 1e-6
        middle[4 + i, i] *= 100
        middle[4 + i, (i + 1) % 4] *= 100
    data = [(torch.ones(1, 1), torch.empty(0))]
    graph, schedule = trace(model, torch.ones(1, 1).double()), [n / 80 for n in (67, 54, 41, 32, 29, 8)]
    spy = Spy(SCORES["synflow"])

    def rescore(net: Network, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return spy(net, weights, data, torch.Generator())

    with untouched(model, batch_statistics=False):
        start = {n: w.abs() for n, w in Network(model, graph).weights.items()}
        order = iterate(model, graph, rescore, start, schedule=schedule)
    assert spy.asked == [80, 80, 80, 80, 44, 44, 44]
    for k, mask in enumerate(naive(model, graph, SCORES["synflow"], schedule, data), start=1):
        assert all(torch.equal(order[n] >= k, mask[n]) for n in mask), k


def test_also_within_a_round_the_order_is_that_of_the_saliencies() -> None:
    """A threshold between two rounds prunes the lowest saliencies of the round that is under way."""
    model = built("row", 1)
    graph = trace(model, images())
    order = score_weights(model, graph, "synflow", batches(), density=0.1, rounds=4)
    first = score_weights(model, graph, "synflow", batches(), rounds=1)
    gone = {n: o < 1 for n, o in order.items()}
    going = torch.cat([order[n][gone[n]].double() for n in order])
    saliency = torch.cat([first[n][gone[n]] for n in order])
    assert (saliency[going.argsort()].diff() >= -1e-4 * saliency.max()).all()
    assert len(going.unique()) > 0.9 * len(going)
    lasting = torch.cat([o[o >= 4] for o in order.values()])
    assert len(lasting.unique()) > 0.9 * len(lasting)


def test_the_share_that_is_left_is_the_one_asked_for() -> None:
    model = built("row", 2)
    order = score_weights(model, trace(model, images()), "synflow", batches(), density=0.05, rounds=10)
    flat = torch.cat([o.flatten() for o in order.values()])
    for k in range(1, 11):
        assert int((flat >= k).sum()) == round(len(flat) * 0.05 ** (k / 10))


@pytest.mark.parametrize("net", ["row", "residual"])
def test_force_ends_with_the_mask_of_the_plain_loop(net: str) -> None:
    model = built(net, 0)
    graph = trace(model, images())
    order = score_weights(model, graph, "force", batches(), density=0.1, rounds=12)
    masks = naive(model, graph, SCORES["force"], exponential(0.1, 12), batches())
    assert all(torch.equal(order[n] >= 12, masks[-1][n]) for n in order)
    back = sum(int((masks[k][n] & ~masks[k - 1][n]).sum()) for k in range(1, 12) for n in order)
    assert back > 0
    snip = naive(model, graph, SCORES["iterative-snip"], exponential(0.1, 12), batches())
    assert not any((snip[k][n] & ~snip[k - 1][n]).any() for k in range(1, 12) for n in order)
    assert any(not torch.equal(snip[-1][n], masks[-1][n]) for n in order)


def test_a_revived_weight_ranks_by_the_last_round_that_prunes_it() -> None:
    saliencies = iter([[1.0, 2, 3, 4], [4.0, 1, 2, 3], [9.0, 1, 2, 3]])

    def rescore(net: Network, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        seen.append(weights["w"].tolist())
        return {"w": torch.tensor(next(saliencies))}

    seen: list[list[float]] = []
    net = Network(nn.Linear(1, 1), trace(nn.Linear(1, 1), torch.zeros(1, 1)))
    order = iterate_reviving(
        net, rescore, {"w": torch.tensor([5.0, 6, 7, 8])}, schedule=[0.75, 0.5, 0.25], on_round=None
    )["w"]
    assert seen == [[5, 6, 7, 8], [0, 6, 7, 8], [5, 0, 0, 8]]  # the first one goes and comes back with its weight
    assert order[0] >= 3
    assert 1 <= order[1] < order[2] < 2
    assert 2 <= order[3] < 3


def test_a_network_that_falls_apart_is_ranked_to_the_end() -> None:
    """All saliencies equal: one threshold takes them all, and nothing is left to score in later rounds."""
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 4, bias=False)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.5)
    for name in ("synflow", "iterative-snip", "force"):
        data = [(torch.ones(4, 4), torch.arange(4))]
        order = score_weights(model, trace(model, torch.ones(4, 4).double()), name, data, density=0.1, rounds=9)
        assert all(torch.isfinite(o).all() for o in order.values())


def fixed_scores(score: Tensor, *, keep: float) -> Tensor:
    """The ranking after one round whose saliencies are `score`, of the weights of a linear layer."""
    model = nn.Linear(score.shape[1], score.shape[0], bias=False)
    graph = trace(model, torch.zeros(1, score.shape[1]))
    order = iterate(model, graph, lambda *_: {"weight": score}, {"weight": model.weight.detach()}, schedule=[keep])
    return order["weight"]


@pytest.mark.parametrize("keep", [0.999, 0.96, 0.5, 0.01, 0.0])
@pytest.mark.parametrize("shape", [(3, 5), (7, 400), (300, 1000)])  # the last is too large to look at all of it
def test_one_round_leaves_the_highest_scores(shape: tuple[int, int], keep: float) -> None:
    score = torch.randperm(shape[0] * shape[1], generator=torch.Generator().manual_seed(0)).view(shape).double().sqrt()
    order = fixed_scores(score, keep=keep)
    left = round(score.numel() * keep)
    wanted = torch.zeros(score.numel(), dtype=torch.bool)
    wanted[score.flatten().topk(left).indices] = True
    assert torch.equal((order >= 1).flatten(), wanted)


@pytest.mark.parametrize("seen", [0.0, 1.0])
def test_a_guess_that_is_far_off_changes_nothing(seen: float) -> None:
    """The weights that are looked at first are all very low, or all very high."""
    score = torch.rand((300, 1000), generator=torch.Generator().manual_seed(0)) / 2 + 0.25
    score.view(-1)[:: next(p for p in _SAMPLE_EVERY if p * _SAMPLE >= score.numel())] = seen
    order = fixed_scores(score, keep=0.6)
    assert int((order >= 1).sum()) == 180_000
    assert score[order >= 1].min() > score[order < 1].max()


def test_a_model_in_another_memory_format_is_ranked_the_same() -> None:
    model, same = built("row", 0), built("row", 0)
    same.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportArgumentType]
    graph = trace(model, images())
    found, wanted = (
        score_weights(m, graph, SCORES["synflow"], batches(), density=0.02, rounds=12) for m in (same, model)
    )
    assert all(torch.equal(found[n].floor(), wanted[n].floor()) for n in wanted)


def test_rounds_are_exponential() -> None:
    assert exponential(1 / 16, 4) == pytest.approx([1 / 2, 1 / 4, 1 / 8, 1 / 16])
    assert exponential(0.3, 1) == [0.3]


def test_kth_smallest() -> None:
    scores = [torch.tensor([3.0, 1.0]), torch.tensor([[2.0], [4.0]])]
    assert [kth_smallest(scores, n) for n in (0, 1, 2, 4, 9)] == [-float("inf"), 1, 2, 4, 4]
    assert scores[0].tolist() == [3, 1]
    assert kth_smallest([torch.empty(0)], 0) == -float("inf")
    assert [median(scores), median([torch.tensor([5.0, 1, 9])]), median([torch.empty(0)])] == [2, 5, 0]


@pytest.mark.parametrize("scale", [3.0, -3.0, 0.0, -float("inf")])
def test_fractions_keep_the_order_between_0_and_1(scale: float) -> None:
    values = torch.tensor([-1e6, -3.0, -0.1, 0.0, 0.1, 3.0, 1e6])
    found = fraction(values, scale)
    assert ((found >= 0) & (found < 1)).all()
    assert (found.diff() >= 0).all()
    if abs(scale) == 3:
        assert (found.diff() > 0).all()
        assert found[[1, 3, 5]].tolist() == pytest.approx([0.25, 0.5, 0.75])
    assert (99 + found).float().max() < 100
