"""What came of a build in a sentence or two. It rests on variants that deserve it, and says so where none does."""

from collections.abc import Sequence
from typing import Final

from prunit.edge.comparing.paired import FEW
from prunit.edge.comparing.verdicts import NEAR, interval, is_kept, not_measurable
from prunit.edge.portfolio import Latency, Portfolio
from prunit.report import numbers
from prunit.report.summary import SummaryRow, latency_key

_NAMED: Final = 4
"""Of so many variants that do not deserve the headline it is said why."""


def headline(portfolio: Portfolio, rows: Sequence[SummaryRow]) -> tuple[str, str]:
    """A title (what was built) and a sentence (what came of it)."""
    variants = f"{len(rows)} variant{'' if len(rows) == 1 else 's'}"
    return f"{portfolio.model} on {portfolio.data}: {variants}", " ".join(filter(None, (_sentence(rows), _noise(rows))))


def pick(rows: Sequence[SummaryRow]) -> tuple[SummaryRow, str] | None:
    """The pruned variant to name, and why: of those that deserve it the fastest one near the dense accuracy.

    None deserves it that is no better than guessing, slower than the dense model, or not better than another variant in
    anything; nor one that is smaller or faster in nothing. Of a speed that a noisy machine gave nothing is made.
    """
    dense = next((row for row in rows if row.is_dense), None)
    pruned = [row for row in rows if not row.is_dense]
    found = [row for row in pruned if not _unworthy(row, dense)]
    if not found or (dense and dense.verdict("chance")):
        return None
    if len(pruned) == 1:
        return found[0], ""
    rated = [row for row in found if row.accuracy is not None]
    if not rated:
        return min(found, key=lambda row: row.file_bytes), "the smallest variant"
    near = [row for row in rated if row.accuracy_change is not None and row.accuracy_change >= -NEAR]
    if dense is None or not near:
        which = "pruned variant" if len(found) == len(pruned) else "variant worth using"
        return max(
            rated, key=lambda row: row.accuracy or 0
        ), f"the {'most accurate' if rated[0].metric == 'accuracy' else 'best'} {which}"
    metric = near[0].metric
    within = f"within {NEAR if metric in numbers.PLAIN else f'{100 * NEAR:.0f} points'} of the dense {metric}"
    timed = [(latency.p50_ms, row) for row in near if row.pace in ("faster", "same") and (latency := row.latency())]
    if timed:
        return min(timed, key=lambda pair: pair[0])[1], f"the fastest variant {within}"
    return min(near, key=lambda row: row.file_bytes), f"the smallest variant {within}"


def _unworthy(row: SummaryRow, dense: SummaryRow | None) -> str:
    """Why the variant does not deserve to be named, after its name; '' if it does."""
    if row.verdict("chance"):
        return "is no better than guessing"
    slower = row.verdict("slower")
    if slower:
        whom = "the dense model" if dense and slower.than == dense.name else f"“{slower.than}”"
        return f"is {numbers.factor(slower.factor or 1)} slower than {whom} at batch {slower.batch}"
    beaten = row.verdict("beaten")
    if beaten:
        whom = "the dense model" if dense and beaten.than == dense.name else f"“{beaten.than}”"
        return f"is not better than {whom} in anything"
    if dense and not row.better:
        return "is neither smaller nor faster than the dense model"
    return ""


def _sentence(rows: Sequence[SummaryRow]) -> str:
    if not rows:
        return "The portfolio holds no variant yet."
    dense = next((row for row in rows if row.is_dense), None)
    guess, guessing = dense.verdict("chance") if dense else None, ""
    if guess and guess.blind:
        guessing = (
            "All test images are of one class, so that no accuracy tells anything: test on images of every class."
        )
    elif guess:
        guessing = f"The dense model is no better than guessing: {_instead(rows)} before comparing anything with it."
    if len(rows) == 1 and dense:
        return f"Only the dense model: {_figures(dense)}." + (f" {guessing}" if guessing else "")
    if guessing:
        return guessing
    if dense and dense.accuracy is not None and dense.accuracy <= 0:
        found = numbers.score(dense.metric, dense.accuracy)
        return f"The dense model's {dense.metric} is {found}: {_instead(rows)} before comparing."
    named = pick(rows)
    if named is None:
        return _none_of([row for row in rows if not row.is_dense], dense)
    row, why = named
    subject = f"“{row.name}”, {why}," if why else f"“{row.name}”"
    if dense is None:
        return f"No dense model to compare with. {subject.rstrip(',')}: {_figures(row)}."
    return f"{subject} is {_comparison(row)}{_accuracy(row, dense)}."


def _instead(rows: Sequence[SummaryRow]) -> str:
    """What to do with a dense model that has learnt nothing."""
    given = any(is_kept(row.seconds, other.seconds) for row in rows if row.is_dense for other in rows)
    if given:
        return "it was kept as it was given, and not trained in this build: give trained weights, or train it,"
    return "train it longer"


def _none_of(pruned: Sequence[SummaryRow], dense: SummaryRow | None) -> str:
    reasons = [f"“{row.name}” {_unworthy(row, dense)}" for row in pruned[:_NAMED]]
    if len(pruned) > _NAMED:
        reasons.append(f"{len(pruned) - _NAMED} more are no better off")
    instead = " instead of the dense model" if dense else ""
    return f"No variant is worth using{instead} yet: {', '.join(reasons)}."


def _noise(rows: Sequence[SummaryRow]) -> str:
    """That speeds were left out of account, if so."""
    if not any(row.pace == "unclear" for row in rows) or any(row.is_dense and row.verdict("chance") for row in rows):
        return ""
    of_all = all(row.pace == "unclear" for row in rows if not row.is_dense)
    which = "the variants are" if of_all else "some variants are"
    return f"How fast {which} cannot be told: the machine was busy while they were measured."


def _accuracy(row: SummaryRow, dense: SummaryRow) -> str:
    """'; accuracy 88.0 % against 90.0 %: −2.0 points (95 % interval −2.9 to −1.1)', as far as it was measured."""
    if row.accuracy is None:
        return ""
    said = f"; {row.metric} {numbers.score(row.metric, row.accuracy)}"
    if dense.accuracy is None:
        return said
    said += f" against {numbers.score(dense.metric, dense.accuracy)}"
    found = row.difference
    if found is None:
        return said
    remarks = interval(found, row.metric) + ("" if row.metric in numbers.PLAIN else " points")
    remarks += f", {found.images:,} test images" if found.images else ""
    if found.p is not None and found.differing < FEW:
        remarks += f", exact McNemar p = {found.p:.2g}"
    word = numbers.gain(row.metric, found.value) if found.measurable else not_measurable(found, row.metric)
    # Its score is of weights that came from elsewhere; the variant's of a training that it never had.
    kept = is_kept(dense.seconds, row.seconds)
    return f"{said}: {word} ({remarks})" + ("; the dense model was not trained in this build" if kept else "")


def _comparison(row: SummaryRow) -> str:
    """'3.6× smaller on disk and 2.9× faster than the dense model at batch 1 (1 thread)', as far as was measured."""
    disk = numbers.times(row.times_less.get("file_bytes", 1), less="smaller", more="larger")
    disk = "as large" if disk == "same" else disk
    speed, latency = row.times_less.get(latency_key(1)), row.latency()
    if speed is None or latency is None or row.pace not in ("faster", "same"):
        than = "as" if disk == "as large" else "than"
        return f"{disk} on disk {than} the dense model, with {_fewer_macs(row)}"
    at = f"the dense model at batch 1 ({_threads(latency)})"
    if row.pace == "same":
        only = f", but better in {_all(row.better)}" if disk == "as large" else ""
        return f"{disk} on disk and as fast as {at}{only}"
    return f"{disk} on disk and {numbers.times(speed, less='faster', more='slower')} than {at}"


def _all(names: Sequence[str]) -> str:
    """'params, macs and activations'."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _fewer_macs(row: SummaryRow) -> str:
    macs = numbers.times(row.times_less.get("macs", 1), less="fewer macs", more="more macs")
    return "as many macs" if macs == "same" else macs


def _figures(row: SummaryRow) -> str:
    accuracy = f"{row.metric} " + ("not measured" if row.accuracy is None else numbers.score(row.metric, row.accuracy))
    latency = row.latency()
    speed = f", {numbers.milliseconds(latency.p50_ms)} at batch 1 ({_threads(latency)})" if latency else ""
    return f"{accuracy}, {numbers.size(row.file_bytes)} on disk{speed}"


def _threads(latency: Latency) -> str:
    return f"{latency.threads} thread{'' if latency.threads == 1 else 's'}"
