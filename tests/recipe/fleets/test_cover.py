"""The fewest candidates that serve everybody, beside all sets that there are."""

from collections.abc import Mapping
from itertools import chain, combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunit.recipe.fleets import cover
from prunit.recipe.fleets.cover import fewest, lost, served_by

Table = dict[str, dict[str, float]]
DEVICES = "abcdef"
TABLES = st.dictionaries(
    st.sampled_from("PQRSTUV"),
    st.dictionaries(st.sampled_from(DEVICES), st.integers(50, 130).map(lambda n: n / 100)),
    max_size=7,
)


def everybody(table: Mapping[str, Mapping[str, float]]) -> set[str]:
    return set(chain.from_iterable(table.values()))


def covers(table: Table) -> list[tuple[str, ...]]:
    """All sets of candidates that serve everybody whom any of them serves, in the order in which they are preferred."""
    every = chain.from_iterable(combinations(table, size) for size in range(len(table) + 1))
    return [each for each in every if everybody({name: table[name] for name in each}) == everybody(table)]


@settings(max_examples=300, deadline=None)
@given(TABLES)
def test_it_is_the_smallest_set_and_of_these_the_one_that_loses_least(table: Table) -> None:
    found, all_of_them = fewest(table), covers(table)
    assert found in all_of_them
    smallest = [each for each in all_of_them if len(each) == min(map(len, all_of_them))]
    assert found == min(smallest, key=lambda each: lost(table, each))  # of equals the first


@settings(max_examples=200, deadline=None)
@given(TABLES)
def test_greedy_covers_without_one_too_many(table: Table) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cover, "EXACT", 0)
        found = fewest(table)
    assert found in covers(table)
    for name in found:
        assert everybody({other: table[other] for other in found if other != name}) != everybody(table)


@settings(max_examples=200, deadline=None)
@given(TABLES)
def test_every_device_gets_the_best_and_every_chosen_one_is_of_use(table: Table) -> None:
    chosen = fewest(table)
    served = served_by(table, chosen)
    assert set(served) == everybody(table)
    assert set(served.values()) == set(chosen)
    for device, name in served.items():
        assert table[name][device] == max(table[other][device] for other in chosen if device in table[other])


def test_more_than_can_be_tried_are_covered() -> None:
    table: Table = {f"own {n}": {f"device {n}": 1.0} for n in range(20)}
    table["large"] = {f"device {n}": 0.95 for n in range(15)}
    assert fewest(table) == (*(f"own {n}" for n in range(15, 20)), "large")
    assert fewest({}) == ()
    assert fewest({"nobody's": {}}) == ()


def test_of_equals_the_first_is_taken() -> None:
    assert fewest({"larger": {"a": 1.0, "b": 1.2}, "smaller": {"a": 1.0, "b": 1.0}}) == ("larger",)
    assert fewest({"first": {"a": 0.9}, "second": {"a": 0.95}}) == ("second",)
