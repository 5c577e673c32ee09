"""The sentence above the figures: it rests on variants that deserve it, and says so where none does."""

import pytest

from prunit.edge.answers import Answers
from prunit.edge.portfolio import TaskRecord, Variant
from prunit.report import numbers, summary_rows
from prunit.report.headline import headline, pick
from tests.report.portfolios import answers, dense, latency, mixed, portfolio, usual, variant


def sentence(*variants: Variant) -> str:
    found = portfolio(*variants)
    return headline(found, summary_rows(found))[1].replace(numbers.SPACE, " ")


def named(*variants: Variant) -> tuple[str, str] | None:
    found = pick(summary_rows(portfolio(*variants)))
    return found and (found[0].name, found[1])


def test_the_fastest_variant_near_the_dense_accuracy_is_named():
    title, said = headline(usual(), summary_rows(usual()))
    assert title == "resnet20 on cifar10: 4 variants"
    assert said.replace(numbers.SPACE, " ") == (
        "“quarter”, the fastest variant within 3 points of the dense accuracy, is 4.0× smaller on disk and 4.0× faster "
        "than the dense model at batch 1 (1 thread); accuracy 88.0 % against 90.0 %."
    )


def test_what_is_slower_guesses_is_beaten_or_noisy_is_not_named():
    said = headline(mixed(), summary_rows(mixed()))[1].replace(numbers.SPACE, " ")
    assert said == (
        "“good”, the fastest variant within 3 points of the dense accuracy, is 2.0× smaller on disk and 2.0× faster "
        "than the dense model at batch 1 (1 thread); accuracy 89.5 % against 90.0 %: no measurable difference (95 % "
        "interval −1.7 to +0.7 points, 1,000 test images). How fast some variants are cannot be told: the machine was "
        "busy while they were measured."
    )


@pytest.mark.parametrize(
    ("right", "said"),
    [
        # 30 of 1000 fewer right, of 70 that differ; and the same the other way round.
        (((50, 920),), "accuracy 87.0 % against 90.0 %: −3.0 points (95 % interval −4.7 to −1.4 points, 1,000 test"),
        (((20, 950),), "accuracy 93.0 % against 90.0 %: +3.0 points (95 % interval +1.4 to +4.7 points, 1,000 test"),
        (((0, 900),), "accuracy 90.0 % against 90.0 %: no measurable difference (95 % interval −0.4 to +0.4 points,"),
        # 6 of 10 that differ: the exact test is told as well.
        (((2, 908),), "90.6 % against 90.0 %: no measurable difference (95 % interval"),
        (((2, 908),), "1,000 test images, exact McNemar p = 0.11)"),
    ],
)
def test_the_difference_in_accuracy_has_its_interval(right: tuple[tuple[int, int], ...], said: str):
    fast = variant("a", cost=4000, latencies=(latency(2),), answers=answers(*right))
    assert said in sentence(dense(latencies=(latency(4),), answers=answers((0, 900))), fast)


def test_a_dense_model_that_was_not_trained_beside_its_variant_is_said_to_be_none():
    whole = dense(latencies=(latency(4),), answers=answers((0, 900)))
    small = variant("a", cost=4000, latencies=(latency(2),), answers=answers((20, 950)))
    trained, kept = {"train": 60.0}, {"train": 0.0}
    said = "; the dense model was not trained in this build."
    further = small.model_copy(update={"seconds": trained})
    assert sentence(whole.model_copy(update={"seconds": kept}), further).endswith(said)
    assert said not in sentence(whole.model_copy(update={"seconds": trained}), further)
    assert said not in sentence(whole.model_copy(update={"seconds": kept}), small.model_copy(update={"seconds": kept}))


def test_without_answers_to_the_same_images_there_is_no_interval():
    first, other = answers((0, 900)), answers((0, 890), test_set="f" * 16)
    for mine, theirs in ((first, other), (first, None), (None, first)):
        small = variant("a", cost=4000, accuracy=0.89, answers=theirs)
        assert "interval" not in sentence(dense(answers=mine), small)


def test_what_was_not_measured_is_left_out():
    assert sentence(dense(accuracy=None), variant("a", cost=4000, accuracy=None)) == (
        "“a” is 2.0× smaller on disk than the dense model, with 2.0× fewer macs."
    )
    assert sentence(dense()) == "Only the dense model: accuracy 90.0 %, 8.00 KB on disk."
    assert sentence(variant("a", accuracy=None)) == (
        "No dense model to compare with. “a”: accuracy not measured, 1.00 KB on disk."
    )
    assert sentence() == "The portfolio holds no variant yet."


def test_a_variant_that_is_slower_is_not_praised_for_its_size():
    slow = variant("a", cost=4000, latencies=(latency(5),))
    assert sentence(dense(latencies=(latency(4),)), slow) == (
        "No variant is worth using instead of the dense model yet: “a” is 1.25× slower than the dense model at batch 1."
    )


def test_a_variant_that_is_slower_in_batches_is_not_named_for_being_faster_alone():
    slow = variant("a", cost=4000, latencies=(latency(2), latency(200, batch=32)))
    said = sentence(dense(latencies=(latency(4), latency(100, batch=32))), slow)
    assert said.endswith("yet: “a” is 2.0× slower than the dense model at batch 32.")


def test_where_none_deserves_it_each_is_told_why():
    whole = dense(latencies=(latency(4),))
    said = sentence(
        whole,
        variant("slow", cost=4000, accuracy=0.95, latencies=(latency(5),)),
        variant("lost", cost=3000, accuracy=0.1, latencies=(latency(1),)),
        variant("large", cost=8000, accuracy=0.92, latencies=(latency(4),)),
        variant("worse", cost=8000, accuracy=0.8, latencies=(latency(4),)),
    )
    assert said == (
        "No variant is worth using instead of the dense model yet: “large” is neither smaller nor faster than the"
        " dense model, “worse” is not better than “large” in anything, “slow” is 1.25× slower than the dense model"
        " at batch 1, “lost” is no better than guessing."
    )


def test_of_many_the_first_are_told_why():
    slow = [variant(f"v{i}", cost=100 + i, accuracy=0.5 + i / 100, latencies=(latency(5 - i / 10),)) for i in range(6)]
    said = sentence(dense(latencies=(latency(4),)), *slow)
    assert said.count("slower") == 4
    assert said.endswith("2 more are no better off.")


def test_a_noisy_machine_makes_no_one_fast():
    """The median of the noisy one is the best by far; what is named is smaller on disk, which needs no clock."""
    busy = variant("busy", cost=2000, accuracy=0.89, latencies=(latency(1, p90=1.6),))
    whole = dense(latencies=(latency(4),))
    assert sentence(whole, busy) == (
        "“busy” is 4.0× smaller on disk than the dense model, with 4.0× fewer macs; accuracy 89.0 % against 90.0 %. "
        "How fast the variants are cannot be told: the machine was busy while they were measured."
    )
    calm = variant("calm", cost=4000, accuracy=0.9, latencies=(latency(2),))
    assert named(whole, busy, calm) == ("calm", "the fastest variant within 3 points of the dense accuracy")
    noisy = dense(latencies=(latency(4, p90=2.0),))
    assert named(noisy, busy, calm) == ("busy", "the smallest variant within 3 points of the dense accuracy")


def test_as_fast_is_said_where_no_difference_can_be_measured():
    near = variant("a", cost=4000, latencies=(latency(3.9),), accuracy=0.9)
    assert "2.0× smaller on disk and as fast as the dense model at batch 1" in sentence(
        dense(latencies=(latency(4),)), near
    )


def test_what_only_takes_less_memory_deserves_to_be_named_for_that():
    whole = dense(latencies=(latency(4),))
    lean = variant("ram-1-2", cost=8000, accuracy=0.9, latencies=(latency(4),))
    few = lean.metrics.model_copy(update={"activation_bytes": 32, "peak_memory_bytes": 4000})
    assert sentence(whole, lean.model_copy(update={"metrics": few})) == (
        "“ram-1-2” is as large on disk and as fast as the dense model at batch 1 (1 thread), but better in activations"
        " and peak memory; accuracy 90.0 % against 90.0 %."
    )


@pytest.mark.parametrize(
    ("accuracies", "name", "why"),
    [
        ((0.6, 0.5), "first", "the most accurate pruned variant"),
        ((None, None), "second", "the smallest variant"),
        ((0.89, 0.88), "second", "the smallest variant within 3 points of the dense accuracy"),
        ((0.05, 0.5), "second", "the most accurate variant worth using"),
        ((0.05, 0.06), None, ""),
    ],
)
def test_pick(accuracies: tuple[float | None, float | None], name: str | None, why: str):
    first, second = accuracies
    small = (variant("first", accuracy=first, cost=20), variant("second", accuracy=second, cost=10))
    assert named(dense(), *small) == (name and (name, why))


@pytest.mark.parametrize(
    ("held", "guessing"),
    [
        (0.0, True),
        (0.1, True),
        (0.11, True),
        (0.12, False),
        (0.9, False),
        (None, False),
        (answers((0, 300), commonest=400), True),
        (answers((0, 500), commonest=400), False),
    ],
)
def test_a_dense_model_that_guesses_is_all_that_is_said(held: float | Answers | None, guessing: bool):
    whole = dense(answers=held) if isinstance(held, Answers) else dense(accuracy=held)
    small = variant("a", accuracy=0.1, cost=10)
    assert ("no better than guessing" in sentence(whole)) is guessing
    said = sentence(whole, small)
    assert said.startswith("The dense model is no better than guessing: train it longer") is guessing


def test_images_of_one_class_tell_nothing_however_many_are_right():
    for right in (0, 300, 1000):
        whole = dense(answers=answers((0, right), commonest=1000))
        small = variant("small", cost=10, answers=answers((0, 1000), commonest=1000))
        for said in (sentence(whole), sentence(whole, small)):
            assert said.endswith(
                "All test images are of one class, so that no accuracy tells anything: test on images of every class."
            )


def test_without_a_dense_model_a_guess_is_not_named():
    assert sentence(variant("a", accuracy=0.1)) == "No variant is worth using yet: “a” is no better than guessing."


def test_where_the_dense_model_is_worth_nothing_nothing_is_compared_with_it():
    found = portfolio(dense(accuracy=0.0), variant("half", accuracy=0.0))
    found = found.model_copy(update={"task": TaskRecord(name="detection", metric="mAP")})
    said = headline(found, summary_rows(found))[1].replace(numbers.SPACE, " ")
    assert said == "The dense model's mAP is 0.0 %: train it longer before comparing."


def test_a_dense_model_that_was_kept_is_not_to_be_trained_longer():
    small = variant("half", accuracy=0.8, cost=10).model_copy(update={"seconds": {"train": 9.0}})
    for untrained in ({"train": 0.0}, {}):
        whole = dense(accuracy=0.1).model_copy(update={"seconds": untrained})
        assert sentence(whole, small) == (
            "The dense model is no better than guessing: it was kept as it was given, and not trained in this build:"
            " give trained weights, or train it, before comparing anything with it."
        )
    trained = dense(accuracy=0.1).model_copy(update={"seconds": {"train": 9.0}})
    assert "guessing: train it longer before" in sentence(trained, small)
