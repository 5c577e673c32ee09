"""What a person should know of a variant before using it: pure functions from a manifest to plain sentences.

A variant guesses, is slower than the dense model, is not better than another one in anything, or was measured on a
machine that did something else meanwhile. Why these rules and factors: docs/adr/025-verdicts.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from prunit.edge.comparing.compare import (
    NOISY,
    against,
    beaten,
    dense_of,
    guessed,
    is_hardly,
    is_noisy,
    is_slower,
    pace,
)
from prunit.edge.comparing.paired import LEVEL, Difference
from prunit.edge.portfolio import Portfolio, Variant
from prunit.shown import metric_amount, metric_change

NEAR: Final = 0.03
"""How much accuracy (3 points) a variant may lose and still count as near the dense model."""
TAIL: Final = 3.0
"""From more than this between p99 and p50 on, a p99 is said to tell of the machine."""

Kind = Literal["chance", "slower", "beaten", "noisy", "tail"]
KINDS: Final[Mapping[Kind, str]] = {
    "chance": "guessing",
    "slower": "slower",
    "beaten": "not better",
    "noisy": "too noisy",
    "tail": "noisy p99",
}
"""In a word or two, to put before the sentence."""


@dataclass(frozen=True)
class Verdict:
    """One sentence on one variant: what holds, what it means, what to do.

    `than` is the variant that it is compared with, `factor` how many times slower or noisier it is, `batch` at which
    batch size; where several are, the worst. `blind` is true where the test images, of one class, can tell nothing.
    """

    variant: str
    kind: Kind
    sentence: str
    than: str | None = None
    factor: float | None = None
    batch: int | None = None
    blind: bool = False


def verdicts(portfolio: Portfolio) -> tuple[Verdict, ...]:
    """All there is to say, in the order of the variants; what a manifest does not hold is not judged."""
    dense, beaten_by = dense_of(portfolio), beaten(portfolio)
    # What guessing gets is known of classes only.
    classes = len(portfolio.classes) if portfolio.task.name == "classification" else 0
    kept = dense is not None and any(is_kept(dense.seconds, each.seconds) for each in portfolio.variants)
    found: list[Verdict | None] = []
    for variant in portfolio.variants:
        chance = _chance(variant, dense, classes, kept=kept)
        found.append(chance)
        twin = portfolio.float_twin(variant)
        other = twin or dense
        if other and variant is not other:
            found.append(_slower(variant, other, dense, twin=twin is not None))
        if variant.name in beaten_by and not chance:
            found.append(_beaten(variant, beaten_by[variant.name], dense, portfolio.task.metric))
        found += [_noisy(variant), _tail(variant)]
    return tuple(filter(None, found))


def told(found: Iterable[Verdict]) -> list[tuple[Kind, str]]:
    """The sentences to show: what is to be said of several measurements alike is said once, at the end."""
    found = list(found)
    lines: list[tuple[Kind, str]] = [(v.kind, v.sentence) for v in found if v.kind not in _OF_MACHINE]
    for kind, sentence in _OF_MACHINE.items():
        alike = [v for v in found if v.kind == kind]
        if len(alike) == 1:
            lines.append((kind, alike[0].sentence))
        elif alike:
            lines.append((kind, _said_of(alike, sentence)))
    return lines


def _said_of(alike: Sequence[Verdict], sentence: str) -> str:
    low, high = (_factor(extreme(v.factor or 0 for v in alike)) for extreme in (min, max))
    return sentence.format(
        names=_listed([v.variant for v in alike]),
        were="were",
        where=f"batch {' and '.join(map(str, sorted({v.batch for v in alike if v.batch})))}",
        times=low if low == high else f"{low} to {high}",
    )


def is_kept(dense: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether the dense model was not trained in a build that trained another variant, by their `seconds`."""
    return bool(other.get("train")) and not dense.get("train")


def _chance(variant: Variant, dense: Variant | None, classes: int, *, kept: bool) -> Verdict | None:
    """`kept`: the dense model was not trained in this build."""
    share = guessed(variant, classes)
    if share is None:
        return None
    answers, accuracy = variant.metrics.answers, variant.metrics.accuracy or 0.0
    if answers and answers.commonest == answers.images:
        sentence = (
            f"{_quoted(variant)} was tested on images of one class only, and naming that class every time gets 100.0 %:"
            f" its {_percent(answers.accuracy)} tell nothing; test it on images of every class."
        )
        return Verdict(variant.name, "chance", sentence, blind=True)
    if answers:
        accuracy = answers.accuracy
        guess = f"of {answers.images:,} test images are right, and naming the commonest class every time gets"
    else:
        guess = f"of the test images are right, and guessing among {classes} classes gets"
    word = (
        "no better" if accuracy <= share else "hardly better" if is_hardly(accuracy, share) else "not measurably better"
    )
    if dense is variant and kept:
        do = (
            "it was kept as it was given, and not trained in this build: give trained weights, or train it, and compare"
            " nothing with it before"
        )
    elif dense is variant:
        do = "train longer, and compare nothing with it before"
    elif dense and guessed(dense, classes) is not None:
        do = "so is the dense model: train longer before you use or compare it"
    else:
        do = "train it longer, or give it a looser budget, before you use or compare it"
    sentence = f"{_quoted(variant)} is {word} than guessing: {_percent(accuracy)} {guess} {_percent(share)}; {do}."
    return Verdict(variant.name, "chance", sentence)


def _slower(variant: Variant, than: Variant, dense: Variant | None, *, twin: bool) -> Verdict | None:
    """Slower than the dense model; one of fewer bits than its float twin, whose widths it has."""
    slow: dict[int, float] = {}
    fast: dict[int, float] = {}
    for latency in sorted(variant.metrics.latencies, key=lambda each: each.batch):
        other = than.metrics.latency(batch=latency.batch)
        if is_slower(latency, other) and other and other.p50_ms:
            slow[latency.batch] = latency.p50_ms / other.p50_ms
        elif pace(latency, other) == "faster" and other and latency.p50_ms:
            fast[latency.batch] = other.p50_ms / latency.p50_ms
    if not slow:
        return None
    worst = max(slow, key=lambda batch: slow[batch])
    whom = "the dense model" if than is dense and not twin else _quoted(than)
    also = f" (though {_at(fast, 'faster')})" if fast else ""
    gains = (
        f"use {whom} at batch {' and '.join(map(str, slow))}."
        if twin and fast
        else f"layers as narrow as these gain nothing from {variant.precision} here; use {whom} where time counts."
        if twin
        else "this engine gains nothing from its widths; build it with --round-to auto, see what plans take with prunit"
        " plan --measure, or try another budget."
    )
    sentence = f"{_quoted(variant)} is {_at(slow, f'slower than {whom}')}{also}: {gains}"
    return Verdict(variant.name, "slower", sentence, than=than.name, factor=slow[worst], batch=worst)


def _beaten(variant: Variant, other: Variant, dense: Variant | None, metric: str) -> Verdict:
    mine, theirs = variant.metrics.accuracy or 0.0, other.metrics.accuracy or 0.0
    found, though = against(variant, other), ""
    if found and mine > theirs:
        more = metric_amount(metric, found.value)
        though = f" (that it has {more} more: {not_measurable(found, metric)}, {interval(found, metric)})"
    whom = "the dense model" if other is dense else _quoted(other)
    sentence = (
        f"{_quoted(variant)} is not better than {whom} in anything that was measured{though}: use {whom} instead,"
        " or try another recipe or budget."
    )
    return Verdict(variant.name, "beaten", sentence, than=other.name)


def interval(found: Difference, metric: str = "accuracy") -> str:
    """The interval, of a share in points: '95 % interval −2.9 to −1.1'."""
    return f"{100 * LEVEL:.0f} % interval {metric_change(metric, found.low)} to {metric_change(metric, found.high)}"


def not_measurable(found: Difference, metric: str = "accuracy") -> str:
    """What to call a difference that is not measurable.

    From an interval that is wider than what a variant may lose and still be near the dense model nothing follows but
    that there are too few images: half of it is about the least difference that they would have shown.
    """
    least = (found.high - found.low) / 2
    if least <= NEAR:
        return "no measurable difference"
    return f"too few images to tell, differences below {metric_amount(metric, least)} are not seen"


_OF_MACHINE: Final[Mapping[Kind, str]] = {
    "noisy": (
        "{names} {were} measured on a busy machine: one answer in ten took {times} the median or more at {where}"
        f" (from {NOISY}× on no latency is to be trusted); measure again when it is idle, with prunit bench --save."
    ),
    "tail": (
        "{names} {were} interrupted now and then: p99 is {times} the median at {where}"
        f" (from {TAIL:g}× on it says more of the machine than of the variant); go by the median, or measure again when"
        " the machine is idle, with prunit bench --save."
    ),
}
"""Sentences on measurements, for one variant or several."""


def _noisy(variant: Variant) -> Verdict | None:
    noisy = (latency for latency in variant.metrics.latencies if is_noisy(latency))
    return _of_machine(variant, "noisy", {each.batch: each.p90_ms / each.p50_ms for each in noisy})


def _tail(variant: Variant) -> Verdict | None:
    calm = (latency for latency in variant.metrics.latencies if not is_noisy(latency))
    long = (latency for latency in calm if 0 < TAIL * latency.p50_ms < latency.p99_ms)
    return _of_machine(variant, "tail", {each.batch: each.p99_ms / each.p50_ms for each in long})


def _of_machine(variant: Variant, kind: Kind, ratios: Mapping[int, float]) -> Verdict | None:
    if not ratios:
        return None
    worst = max(ratios, key=lambda batch: ratios[batch])
    where, times = f"batch {worst}", _factor(ratios[worst])
    sentence = _OF_MACHINE[kind].format(names=_quoted(variant), were="was", where=where, times=times)
    return Verdict(variant.name, kind, sentence, factor=ratios[worst], batch=worst)


def _quoted(variant: Variant) -> str:
    return f"“{variant.name}”"


def _listed(names: Sequence[str], most: int = 8) -> str:
    """'“a”, “b” and “c”'; of many the first ones."""
    shown = [f"“{name}”" for name in names[:most]]
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]


def _at(ratios: Mapping[int, float], word: str) -> str:
    """'1.40× slower at batch 1 and 2.7× at batch 32'."""
    (batch, ratio), *others = ratios.items()
    more = "".join(f" and {_factor(r)} at batch {b}" for b, r in others)
    return f"{_factor(ratio)} {word} at batch {batch}{more}"


def _factor(ratio: float) -> str:
    return f"{ratio:.2f}×" if ratio < 1.995 else f"{ratio:.1f}×" if ratio < 99.95 else f"{ratio:,.0f}×"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
