"""Sentences on variants: who gets which, what it says, and what it tells to do."""

import json
import math
from dataclasses import asdict

import pytest

from prunit.edge.comparing.verdicts import KINDS, Verdict, told, verdicts
from prunit.edge.portfolio import Portfolio, Variant
from tests.report.portfolios import answers, dense, latency, mixed, portfolio, variant


def on(name: str, *variants: Variant) -> list[Verdict]:
    return [verdict for verdict in verdicts(portfolio(*variants)) if verdict.variant == name]


def only(name: str, *variants: Variant) -> Verdict:
    (found,) = on(name, *variants)
    return found


def test_each_kind_once_and_nothing_on_what_is_good() -> None:
    assert [(v.variant, v.kind) for v in verdicts(mixed())] == [
        ("slow", "slower"),
        ("lost", "chance"),
        ("beaten", "beaten"),
        ("busy", "noisy"),
    ]
    assert verdicts(portfolio()) == ()


def test_slower_at_both_batch_sizes() -> None:
    found = only(
        "a",
        dense(latencies=(latency(4), latency(57, batch=32))),
        variant("a", latencies=(latency(5), latency(151, batch=32))),
    )
    assert found.sentence == (
        "“a” is 1.25× slower than the dense model at batch 1 and 2.6× at batch 32: this engine gains nothing from its"
        " widths; build it with --round-to auto, see what plans take with prunit plan --measure, or try another budget."
    )
    assert (found.kind, found.than, found.batch, found.factor) == ("slower", "dense", 32, pytest.approx(151 / 57))


def test_slower_at_one_and_faster_at_the_other() -> None:
    found = only(
        "a",
        dense(latencies=(latency(4), latency(57, batch=32))),
        variant("a", latencies=(latency(2), latency(151, batch=32))),
    )
    assert "2.6× slower than the dense model at batch 32 (though 2.0× faster at batch 1):" in found.sentence


@pytest.mark.parametrize(
    "mine",
    [
        latency(4.1, p90=1.01),  # as fast, within 5 %
        latency(5, p90=1.6),  # noisy, and no further from dense than that
        latency(5, threads=2),  # not comparable
    ],
)
def test_what_is_not_slower_beyond_doubt_is_not_called_so(mine: object) -> None:
    small = variant("a", cost=10, latencies=(mine,))  # pyright: ignore[reportArgumentType]
    assert "slower" not in {v.kind for v in on("a", dense(latencies=(latency(4, p90=1.01),)), small)}


def test_what_is_slower_by_more_than_the_noise_is_called_so_on_a_busy_machine_too() -> None:
    busy = variant("a", cost=10, latencies=(latency(4), latency(240, batch=32, p90=3)))
    found = on("a", dense(latencies=(latency(4), latency(100, batch=32))), busy)
    assert [(v.kind, v.batch) for v in found] == [("slower", 32), ("noisy", 32)]
    few = variant("a", cost=10, latencies=(latency(4), latency(240, batch=32, p90=3, n=20)))
    found = on("a", dense(latencies=(latency(4), latency(100, batch=32))), few)
    assert [v.kind for v in found] == ["noisy"]


def test_guessing_tells_both_shares() -> None:
    lost = variant("a", cost=10, answers=answers((0, 105)))
    assert only("a", dense(answers=answers((0, 900))), lost).sentence == (
        "“a” is hardly better than guessing: 10.5 % of 1,000 test images are right, and naming the commonest class"
        " every time gets 10.0 %; train it longer, or give it a looser budget, before you use or compare it."
    )
    assert (
        "no better than guessing: 9.5 %" in only("a", dense(), variant("a", cost=10, answers=answers((0, 95)))).sentence
    )


def test_how_little_better_than_guessing_is_told_in_the_words() -> None:
    for right, images, word in ((17, 51, "no better"), (23, 51, "not measurably better"), (350, 1000, "hardly better")):
        lost = variant("a", cost=10, answers=answers((0, right), images=images, commonest=round(images / 3)))
        assert f"“a” is {word} than guessing: " in only("a", dense(), lost).sentence


def test_where_the_dense_model_guesses_the_budget_is_not_to_blame() -> None:
    whole, small = dense(accuracy=0.1), variant("a", cost=10, accuracy=0.1)
    assert only("dense", whole, small).sentence == (
        "“dense” is no better than guessing: 10.0 % of the test images are right, and guessing among 10 classes gets"
        " 10.0 %; train longer, and compare nothing with it before."
    )
    assert only("a", whole, small).sentence.endswith(
        "so is the dense model: train longer before you use or compare it."
    )


def test_a_dense_model_that_was_kept_needs_trained_weights_and_no_longer_training() -> None:
    small = variant("a", cost=10, accuracy=0.8).model_copy(update={"seconds": {"train": 9.0}})
    for seconds, do in (
        (
            {"train": 0.0},
            "; it was kept as it was given, and not trained in this build: give trained weights, or train",
        ),
        ({"train": 9.0}, "; train longer, and compare nothing with it before."),
    ):
        whole = dense(accuracy=0.1).model_copy(update={"seconds": seconds})
        assert do in only("dense", whole, small).sentence


def test_images_of_one_class_are_to_blame_and_not_the_training() -> None:
    for images, right, share in ((1000, 300, "30.0 %"), (1, 1, "100.0 %")):
        found = only("dense", dense(answers=answers((0, right), images=images, commonest=images)))
        assert (found.kind, found.blind) == ("chance", True)
        assert found.sentence == (
            "“dense” was tested on images of one class only, and naming that class every time gets 100.0 %:"
            f" its {share} tell nothing; test it on images of every class."
        )
    assert not only("dense", dense(accuracy=0.1)).blind


def test_who_guesses_is_not_compared_with_others() -> None:
    first, second = variant("a", cost=10, accuracy=0.1), variant("b", cost=20, accuracy=0.09)
    assert [v.kind for v in on("b", dense(), first, second)] == ["chance"]


def test_beaten_names_the_better_one() -> None:
    good, poor = variant("good", cost=100, accuracy=0.8), variant("poor", cost=200, accuracy=0.7)
    found = only("poor", dense(), good, poor)
    assert found.sentence == (
        "“poor” is not better than “good” in anything that was measured: use “good” instead, or try another recipe or"
        " budget."
    )
    assert found.than == "good"
    worse = only("poor", dense(accuracy=0.8), variant("poor", cost=9000, accuracy=0.7))
    assert worse.sentence.startswith("“poor” is not better than the dense model in anything")


def test_beaten_though_a_little_more_accurate_is_admitted() -> None:
    found = only(
        "more",
        variant("less", cost=100, answers=answers((0, 900))),
        variant("more", cost=200, answers=answers((4, 905))),
    )
    assert "(that it has 0.1 points more: no measurable difference, 95 % interval −" in found.sentence


def test_noise_is_told_at_its_worst() -> None:
    found = only("a", variant("a", latencies=(latency(1, p90=2.1, p99=50), latency(9, batch=32, p90=8.4, p99=9))))
    assert found.sentence == (
        "“a” was measured on a busy machine: one answer in ten took 8.4× the median or more at batch 32 (from 1.5× on"
        " no latency is to be trusted); measure again when it is idle, with prunit bench --save."
    )
    assert (found.batch, found.factor) == (32, pytest.approx(8.4))


def test_a_p99_far_out_is_told_where_the_rest_is_calm() -> None:
    calm, noisy = latency(1, p90=1.1, p99=42), latency(9, batch=32, p90=3, p99=9)
    found = only("a", variant("a", latencies=(calm,)))
    assert found.kind == "tail"
    assert "p99 is 42.0× the median at batch 1" in found.sentence
    assert [(v.kind, v.batch) for v in on("a", variant("a", latencies=(calm, noisy)))] == [("noisy", 32), ("tail", 1)]
    assert on("a", variant("a", latencies=(latency(1, p99=3),))) == []


def test_the_same_of_several_measurements_is_said_once_and_last() -> None:
    busy = [variant(f"v{i}", cost=10 - i, accuracy=0.5, latencies=(latency(1, p90=2 + i),)) for i in range(3)]
    found = told(verdicts(portfolio(dense(latencies=(latency(1),)), *busy, variant("lost", cost=1, accuracy=0.1))))
    assert [kind for kind, _ in found] == ["beaten", "beaten", "chance", "noisy"]
    assert found[-1][1].startswith(
        "“v0”, “v1” and “v2” were measured on a busy machine: one answer in ten took 2.0× to 4.0× the median or more at"
        " batch 1 (from 1.5×"
    )


def test_of_many_measurements_some_are_named() -> None:
    busy = [variant(f"v{i}", accuracy=None, latencies=(latency(1, p90=2),)) for i in range(20)]
    ((_, sentence),) = told(verdicts(portfolio(*busy)))
    assert sentence.startswith("“v0”, ")
    assert "“v7” and 12 more were measured" in sentence


def test_names_with_braces_are_only_names() -> None:
    odd = [variant(name, accuracy=None, latencies=(latency(1, p90=2),)) for name in ("{times}", "{0}")]
    ((_, sentence),) = told(verdicts(portfolio(*odd)))
    assert "“{times}” and “{0}” were measured" in sentence


def test_a_portfolio_shows_them_in_a_word() -> None:
    lines = {line.split()[0]: line.split() for line in repr(mixed()).splitlines()[2:]}
    assert lines["good"][-1] == "KB"
    assert (lines["slow"][-1], lines["lost"][-1], lines["beaten"][-2:]) == ("slower", "guessing", ["not", "better"])


def test_verdicts_are_one_line_each_and_plain_data() -> None:
    found = verdicts(mixed())
    assert {v.kind for v in found} < set(KINDS)
    for verdict in found:
        assert "\n" not in verdict.sentence
        assert verdict.sentence.endswith(".")
        assert json.loads(json.dumps(asdict(verdict), allow_nan=False)) == asdict(verdict)


def test_a_manifest_of_an_older_version_is_judged_as_far_as_it_goes() -> None:
    text = mixed().model_dump(mode="json")
    for each in text["variants"]:
        del each["metrics"]["answers"]
    older = Portfolio.model_validate_json(json.dumps(text), strict=True)
    assert [(v.variant, v.kind) for v in verdicts(older)] == [(v.variant, v.kind) for v in verdicts(mixed())]


def test_latencies_of_zero_are_no_fault() -> None:
    found = verdicts(portfolio(dense(latencies=(latency(0),)), variant("a", cost=10, latencies=(latency(1),))))
    assert all(v.factor is None or math.isfinite(v.factor) for v in found)
