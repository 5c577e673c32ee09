"""A portfolio with more, fewer, or just so many variants."""

from pathlib import Path

import pytest

from prunit.edge.portfolio import Latency, Portfolio
from prunit.errors import PortfolioError, UnknownNameError
from tests.edge.folders import portfolio_in


def at(portfolio: Portfolio, points: dict[str, tuple[float, float]]) -> Portfolio:
    """Variants of these names with these latencies in ms and accuracies."""
    first = portfolio.variants[0]
    variants = []
    for name, (ms, accuracy) in points.items():
        latency = Latency(batch=1, threads=1, n=5, p50_ms=ms, p90_ms=ms, p99_ms=ms)
        metrics = first.metrics.model_copy(update={"latencies": (latency,), "accuracy": accuracy})
        variants.append(first.model_copy(update={"name": name, "metrics": metrics}))
    return portfolio.model_copy(update={"variants": tuple(variants)})


def names(portfolio: Portfolio) -> list[str]:
    return [variant.name for variant in portfolio.variants]


def test_variants_are_added_replaced_and_removed(tmp_path: Path) -> None:
    found = portfolio_in(tmp_path)
    large, middle, small = found.variants
    assert names(found.without("middle")) == ["large", "small"]
    assert names(found.without("middle").adding(middle)) == ["large", "small", "middle"]
    better = small.model_copy(update={"epochs": 7})
    assert found.adding(better).variant("small").epochs == 7
    assert names(found.adding(better)) == ["large", "middle", "small"]
    assert names(found.adding(large, middle)) == ["large", "middle", "small"]  # each in its place
    assert names(found) == ["large", "middle", "small"]
    assert found.adding(large, middle).adding(small) == found
    with pytest.raises(UnknownNameError, match="did you mean 'small'"):
        found.without("smal")


def test_the_variants_that_cover_most_stay(tmp_path: Path) -> None:
    found = at(
        portfolio_in(tmp_path),
        {
            "slow": (10.0, 0.90),
            "near slow": (9.9, 0.899),
            "half": (5.0, 0.85),
            "near half": (4.9, 0.84),
            "fast": (1.0, 0.60),
            "beaten": (6.0, 0.5),
        },
    )
    assert names(found.thinned(6)) == ["slow", "near slow", "half", "near half", "fast"]
    assert names(found.thinned(3)) == ["slow", "half", "fast"]
    assert names(found.thinned(2)) == ["slow", "fast"]
    assert names(found.thinned(1)) == ["slow"]
    with pytest.raises(PortfolioError, match="at least one has to stay"):
        found.thinned(0)
