"""Budgets as users write them: every form, every mistake, and the amount that comes out."""

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from prunit.allocate import KEYS, Budget, Limit
from prunit.errors import ConfigError, UnknownNameError
from prunit.prices.costs import Cost

DENSE = Cost(params=160_000, macs=40_000_000, activation_bytes=65_536, weight_bytes=1_000_000).as_dict()


def most(text: str, dense: Mapping[str, float] = DENSE) -> int:
    """The amount that a budget of one limit allows."""
    (limit,) = Budget.parse(text).limits
    return limit.of(dense)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("params=1/16", 10_000),
        ("params=0.0625", 10_000),
        ("params=6.25%", 10_000),
        ("params=16x", 10_000),
        ("params=16X", 10_000),
        ("params=16×", 10_000),
        ("params= 1 / 16 ", 10_000),
        (" params =1/16", 10_000),
        ("params=2/32", 10_000),
        ("params=1", 160_000),
        ("params=100%", 160_000),
        ("params=1x", 160_000),
        ("params=1e-3", 160),
        ("macs=0.5", 20_000_000),
        ("macs=25%", 10_000_000),
        ("macs=20M", 20_000_000),
        ("macs=20 m", 20_000_000),
        ("macs=0.02G", 20_000_000),
        ("macs=1.5k", 1_500),
        ("macs=2e7", 20_000_000),
        ("macs=20000000", 20_000_000),
        ("params=1.01", 1),
        ("params=1B", 1_000_000_000),
        ("weights=500KB", 500_000),
        ("weights=500KiB", 512_000),
        ("weights=500kib", 512_000),
        ("weights=1MB", 1_000_000),
        ("weights=1MiB", 2**20),
        ("weights=2GB", 2_000_000_000),
        ("weights=2GiB", 2**31),
        ("weights=512B", 512),
        ("activations=16K", 16_000),
        ("ram=16k", 16_000),
        ("ram=16KiB", 16_384),
        ("ram=16Ki", 16_384),
        ("weights=1M", 1_000_000),
        ("weights=0.5g", 500_000_000),
        ("weights=1B", 1),
        ("activations=32768", 32_768),
        ("activations=1/2", 32_768),
    ],
)
def test_every_form(text: str, amount: int) -> None:
    assert most(text) == amount


@pytest.mark.parametrize(
    ("value", "amount", "text"),
    [
        (1 / 16, 10_000, "1/16"),
        (0.25, 40_000, "1/4"),
        (0.1, 16_000, "1/10"),
        (1, 160_000, "1"),
        (1.0, 160_000, "1"),
        (5_000, 5_000, "5000"),
        (5e3, 5_000, "5000.0"),
        (Fraction(1, 16), 10_000, "1/16"),
        (np.float64(0.5), 80_000, "1/2"),
        (np.float32(0.5), 80_000, "1/2"),
        (np.int64(5_000), 5_000, "5000"),
        ("16x", 10_000, "16x"),
        (1e-5, 1, "1e-05"),
        (0.123456789, 19_753, "0.123456789"),
    ],
)
def test_values_of_a_mapping(value: Any, amount: int, text: str) -> None:
    (limit,) = Budget.parse({"params": value}).limits
    assert limit.of(DENSE) == amount
    assert limit.text == text


@pytest.mark.parametrize("value", [1e-5, 1 / 3, 0.123456789, 1 / 16, 1.0, 3e7, "25%", 4097 / 4099])
def test_a_written_budget_reads_back_the_same(value: float | str) -> None:
    budget = Budget.parse({"params": value, "macs": "20M"})
    again = Budget.parse(str(budget))
    assert [limit.of(DENSE) for limit in again.limits] == [limit.of(DENSE) for limit in budget.limits]
    assert Budget.parse(again.as_dict) == again


@pytest.mark.parametrize("divisor", [3, 7, 16, 49, 1000, 999_983])
@pytest.mark.parametrize("unit", [1, 20_000_003, 5 * 10**12])
def test_a_share_of_what_it_divides_is_exact(divisor: int, unit: int) -> None:
    dense = Cost(params=divisor * unit, macs=0, activation_bytes=0, weight_bytes=0).as_dict()
    assert most(f"params=1/{divisor}", dense) == unit
    assert most(f"params={divisor}x", dense) == unit
    assert Budget.parse({"params": 1 / divisor}).limits[0].of(dense) == unit


def test_a_share_is_rounded_down() -> None:
    dense = Cost(params=100, macs=0, activation_bytes=0, weight_bytes=0).as_dict()
    assert [most(f"params={text}", dense) for text in ("1/3", "2/3", "33.3%", "0.999", "1/101")] == [33, 66, 33, 99, 0]


@pytest.mark.parametrize(
    "what",
    [
        "params=1/16,macs=20M",
        ["params=1/16", "macs=20M"],
        ("params=1/16", "macs=20M"),
        ["params=1/16,macs=20M"],
        {"params": "1/16", "macs": "20M"},
        iter(["params=1/16", "macs=20M"]),
        Budget.parse("params=1/16,macs=20M"),
    ],
)
def test_several_limits(what: Any) -> None:
    budget = Budget.parse(what)
    assert [(limit.key, limit.of(DENSE)) for limit in budget.limits] == [("params", 10_000), ("macs", 20_000_000)]
    assert str(budget) == "params=1/16,macs=20M"
    assert budget.as_dict == {"params": "1/16", "macs": "20M"}


def test_every_key_limits_its_figure() -> None:
    for key, figure in KEYS.items():
        assert most(f"{key}=1/2") == DENSE[figure] // 2


def test_tightest_limit() -> None:
    for text, key, share in (
        ("params=1/16,macs=20M,weights=500KB", "params", 1 / 16),
        ("macs=80M", "macs", 1.0),
        ("macs=4M,params=0.5", "macs", 0.1),
    ):
        limit, left = Budget.parse(text).tightest(DENSE)
        assert (limit.key, left) == (key, pytest.approx(share))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("", "budget '' is not KEY=LIMIT: write a share"),
        ("params", "budget 'params' is not KEY=LIMIT"),
        ("params=", "budget 'params=' is not KEY=LIMIT"),
        ("params=1/2,", "budget '' is not KEY=LIMIT"),
        ("1/16", "budget '1/16' is not KEY=LIMIT"),
        ([], "the budget is empty: write a share"),
        ({}, "the budget is empty"),
        ([0.5], "budget '0.5' is not KEY=LIMIT"),
        (0.5, 'a budget says what it limits, {"params": 0.5} for example; got 0.5 alone'),
        ("params=0", "params=0 is not a share of the dense cost between 0 and 1"),
        ("params=0%", "params=0% is not a share"),
        ("params=150%", "params=150% is not a share"),
        ("params=3/2", "params=3/2 is not a share"),
        ("params=0.5x", "params=0.5x is not a share"),
        ("params=-1/4", "params=-1/4 is not a share"),
        ("params=-5", "params=-5 is not a share"),
        ("params=-5M", "params=-5M is not an amount of at least 1"),
        ("params=0M", "params=0M is not an amount of at least 1"),
        ("weights=0.5B", "weights=0.5B is not an amount of at least 1"),
        ("params=1e999", "params=1e999 is not an amount"),
        ("params=abc", "params=abc is not a number"),
        ("params=1/0", "params=1/0 is not a number"),
        ("params=0x", "params=0x is not a number"),
        ("params=1.2.3", "params=1.2.3 is not a number"),
        ("params=.", "params=. is not a number"),
        ("params=1/2/3", "params=1/2/3 is not a number"),
        ("params=nan", "params=nan is not a number"),
        ("params=inf", "params=inf is not a number"),
        ({"params": math.nan}, "params=nan is not a number"),
        ({"params": True}, "params=True is not a number"),
        ({"params": None}, "params=None is not a number"),
        (
            "params=5KB",
            "params=5KB: unknown unit 'KB', known are k, M, G, B; in 'KB' are weights, act",
        ),
        ("macs=5ms", "macs=5ms: unknown unit 'ms', known are k, M, G, B; in 'ms' are latency"),
        ("weights=5kbb", "weights=5kbb: unknown unit 'kbb', known are B, KB, MB, GB, KiB, MiB, GiB; did you mean KB?"),
        ("ram=5MO", "unknown unit 'MO', known are B, KB, MB, GB, KiB, MiB, GiB; write MB"),
        ("macs=20MMACs", "unknown unit 'MMACs', known are k, M, G, B; write M"),
        ("params=2 million", "unknown unit 'million', known are k, M, G, B; write M"),
        ("macs=1GFLOPs", "'GFLOPs': flops are about twice as many as multiply-adds; half of it is macs=…"),
        ("latency=5 msec@pi.json", "unknown unit 'msec', known are us, ms, s; write ms"),
        ("params=1/2,params=1/4", "budget params=1/2, params=1/4 limits 'params' twice"),
        ("macs=1/2,params=1/2, params=1/4", "limits 'params' twice"),
        ("ram=1/2,activations=20KB", "limits 'ram' twice ('activations' and 'ram' are the same)"),
        ("energy=5mJ", "energy=5mJ needs the profile of a device: write energy=5mJ@FILE; prunit probe-device"),
        ("latency=5ms@", "needs the profile of a device"),
        ("macs=1/2@pi.json", "'@pi.json' names a device, but macs is the same on all of them"),
        ("latency=5 mss@pi.json", "unknown unit 'mss', known are us, ms, s"),
        ("latency=5@pi.json", "latency=5: say in what unit, us, ms, s"),
        ("latency=0ms@pi.json", "is not an amount of more than 0"),
        ("latency=5", "latency=5: say in what unit, us, ms, s"),
        ("latency=0ms", "is not an amount of more than 0"),
        ("latency=1/2,faster=2x", "limits 'latency' twice ('latency' and 'faster' are the same)"),
        ("faster=1x", "faster=1x: write how many times faster than the dense model, more than 1: faster=2x"),
        ("faster=0.5", "faster=0.5: write how many times faster"),
        ("faster=0", "write how many times faster"),
        ("faster=-2x", "write how many times faster"),
        ("faster=1/2", "faster=1/2: write how many times faster than the dense model, more than 1: faster=2x; a share"),
        ("faster=50%", "write how many times faster"),
        ("faster=3ms", "write how many times faster"),
        ("faster=nan", "write how many times faster"),
        ("faster=" + "9" * 400, "write how many times faster"),
        ("faster=2x@", "faster=2x@ needs the profile of a device"),
        ({"faster": 0.5}, "write how many times faster"),
        ("energy=5ms@pi.json", "unknown unit 'ms', known are uJ, mJ, J; in 'ms' are latency"),
    ],
)
def test_mistakes_say_what_and_how(what: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Budget.parse(what)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "time=5ms",
            "'time': write latency=5ms, .*or latency=5ms@FILE.*Known: activations, arena, cycles, energy, faster",
        ),
        ("parms=1/2", "unknown budget key 'parms'; did you mean 'params'"),
        ("Params=1/2", "did you mean 'params'"),
        ("weight=1/2", r"write weights=…, the bytes of all weights"),
        ("weigths=1/2", "did you mean 'weights'"),
        (
            "flops=40M",
            r"unknown budget key 'flops': write macs=…; one multiply-add is about two flops, so that flops=40M",
        ),
        ("GFLOPs=1", "one multiply-add is about two flops"),
        ("mac=1/2", "write macs=…, multiply-adds"),
        ("parameters=1/2", "write params=…, how many weights"),
        ("num_params=1/2", "write params=…"),
        ("size=500KB", "write weights=…"),
        ("Model-Size=500KB", "write weights=…"),
        ("memory=1/2", "write ram=…, the most bytes that activations take at once; the weights' bytes are weights="),
        ("peak memory=1/2", "write ram=…"),
        ("speedup=2x", "write faster=2x, for at most half of the time that the dense model takes on this machine"),
        ("speed=2x", "write faster=2x"),
        ("fps=30", "write latency=33ms, for 30 images a second"),
        ("power=2mJ", "write energy=2mJ@FILE"),
        ("sparsity=0.9", "say what of, params=1/4 for example: a budget is the share that is kept"),
        ("accuracy=0.9", "a budget limits what a model costs"),
        ("rom=256KB", "write flash=256KB@PART"),
        ("tensor_arena=64KB", "write arena=64KB@tflm"),
        ("=1/2", "unknown budget key ''"),
    ],
)
def test_an_unknown_key_names_the_nearest(text: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        Budget.parse(text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("5ms", 5),
        ("5s", 5000),
        ("0.5 MS", 0.5),
        ("300us", 0.3),
        ("300µs", 0.3),
        ("1/4", 2.0),
        ("25%", 2.0),
        ("4x", 2.0),
    ],
)
def test_what_a_device_takes_is_limited_with_its_profile(text: str, amount: float) -> None:
    (limit,) = Budget.parse(f"latency={text}@profiles/pi 4.json").limits
    assert (limit.figure, limit.profile) == ("latency_ms", "profiles/pi 4.json")
    assert limit.of({"latency_ms": 8.0}) == pytest.approx(amount)
    assert str(limit) == f"latency={text}@profiles/pi 4.json"
    (limit,) = Budget.parse(f"energy=2{'mJ' if text.endswith('ms') else 'J'}@pi.json").limits
    assert limit.of({}) == (2 if text.endswith("ms") else 2000)


@pytest.mark.parametrize("text", ["2x", "2", "2.0", "2X", "2×", " 2 x"])
def test_times_faster_is_a_share_of_the_time(text: str) -> None:
    (limit,) = Budget.parse(f"faster={text}").limits
    assert (limit.figure, limit.share, limit.amount, limit.timed) == ("latency_ms", 0.5, None, True)
    assert Budget.parse(str(limit)).limits == (limit,)
    (limit,) = Budget.parse(f"faster={text}@pi.json").limits
    assert (limit.figure, limit.of({"latency_ms": 8.0}), limit.timed) == ("latency_ms", 4.0, False)


def test_times_faster_may_be_a_number() -> None:
    assert Budget.parse({"faster": 4}).limits[0].share == 0.25
    assert Budget.parse({"faster": 1.5}).limits[0].share == pytest.approx(2 / 3)


def test_what_is_timed_here_is_told_from_what_is_known() -> None:
    budget = Budget.parse("params=1/4,latency=3ms,macs=20M")
    assert budget.timed == Limit("latency", "3ms", amount=3.0)
    assert str(budget.known) == "params=1/4,macs=20M"
    for text in ("params=1/4", "latency=3ms@pi.json", "faster=2x@pi.json"):
        assert Budget.parse(text).timed is None
        assert Budget.parse(text).known == Budget.parse(text)
    assert Budget.parse("faster=2x").known.limits == ()
    (share,) = Budget.parse("latency=1/3").limits
    assert (share.timed, share.of({"latency_ms": 9.0})) == (True, pytest.approx(3.0))


def test_a_limit_is_printed_as_it_was_written() -> None:
    assert str(Limit("macs", "20M", amount=2e7)) == "macs=20M"


def test_what_is_written_in_another_way_asks_for_the_same() -> None:
    for texts in (("params=1/4", "params=25%", "params=4x", "params=0.25"), ("faster=2x", "latency=1/2")):
        assert len({Budget.parse(text).asks for text in texts}) == 1
    assert Budget.parse("params=1/4,ram=1MB").asks == Budget.parse("activations=1000KB,params=4x").asks
    others = (
        "params=1/4",
        "macs=1/4",
        "params=1/5",
        "params=4",
        "params=1/4,macs=1/4",
        "faster=4x",
        "faster=4x@pi.json",
    )
    assert len({Budget.parse(text).asks for text in others}) == len(others)


@pytest.mark.parametrize(
    ("text", "figure", "amount", "part"),
    [
        ("arena=48KB@tflm", "arena_bytes", 48_000, "tflm"),
        ("arena=64KiB@tflm", "arena_bytes", 65_536, "tflm"),
        ("flash=1/4@tflm", "flash_bytes", 2, "tflm"),
        ("cycles=250k@ethos-u55-128", "cycles", 250_000, "ethos-u55-128"),
        ("sram=64KB@ethos-u65-256", "sram_bytes", 64_000, "ethos-u65-256"),
        ("latency=5ms@ethos-u55-32", "latency_ms", 5, "ethos-u55-32"),
    ],
)
def test_what_a_part_reports_is_limited_by_its_name(text: str, figure: str, amount: float, part: str) -> None:
    budget = Budget.parse(f"{text},macs=1/2")
    limit, other = budget.limits
    assert (limit.figure, limit.part, limit.timed) == (figure, part, False)
    assert limit.of({figure: 8.0}) == amount
    assert budget.on_parts == (limit,)
    assert other.part == ""
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cycles=250k", "needs a part: write cycles=250k@ethos-u55-32; parts that tell cycles are ethos-u55-32,"),
        ("flash=2MB", "(on every device alike: weights=…)"),
        ("arena=3KB@ethos-u55-128", "of 'ethos-u55-128' there is no arena; limit latency, cycles, sram, flash"),
        ("faster=2x@ethos-u55-128", "of 'ethos-u55-128' there is no faster; limit latency,"),
        ("energy=1mJ@tflm", "of 'tflm' there is no energy; limit arena, flash"),
        ("params=3@tflm", "'@tflm' names a device, but params is the same on all of them"),
        ("cycles=5ms@ethos-u55-128", "unknown unit 'ms', known are k, M, G, B; in 'ms' are latency"),
        ("latency=5@ethos-u55-128", "say in what unit, us, ms, s"),
        ("arena=0@tflm", "is not"),
    ],
)
def test_a_part_is_asked_what_it_tells(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Budget.parse(text)


def test_an_unknown_part_is_told() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown part 'ethos-u55-129'; did you mean 'ethos-u55-128'"):
        Budget.parse("cycles=1M@ethos-u55-129")
