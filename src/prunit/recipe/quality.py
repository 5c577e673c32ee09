"""What the manifest says of a variant: how it came about, what it costs, and how good it is on the test images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from prunit.allocate import Budget
from prunit.cut.plans import Plan
from prunit.edge.answers import Answers, pairs
from prunit.edge.comparing.paired import Difference, difference
from prunit.edge.comparing.resampling import interval, paired_difference
from prunit.edge.portfolio import Artifact, Comparison, Metrics, Variant
from prunit.edge.records import StoredFile
from prunit.prices.costs import Cost
from prunit.train.accuracy import Judged

_TOLD: Final = (
    "start",
    "channels",
    "method",
    "density",
    "tolerance",
    "padded",
    "score",
    "evaluator",
    "mode",
    "draw",
    "shares",
    "residual",
    "constraints",
)
"""What a plan's origin says that the manifest tells of a variant."""


@dataclass(frozen=True)
class Quality:
    """The main metric and all others; for another task than classification also how sure they are."""

    main: float | None
    """None: nobody said."""
    scores: dict[str, float]
    answers: Answers | None = None
    """Of a classifier: its answers say image by image what intervals and comparisons are computed from."""
    interval: tuple[float, float] | None = None
    against: Comparison | None = None

    @classmethod
    def of(cls, judged: Judged, dense: Judged | None = None) -> Self:
        """What the judgement of a variant says, and how it compares with that of the dense one on the same images."""
        answers = judged.answers
        if answers is not None:
            return cls(answers.accuracy, judged.metrics, answers)
        main = judged.main
        found = compared(judged, dense) if dense is not None else None
        against = found and comparison(found, "dense")
        return cls(main, judged.metrics, None, interval(judged.task, judged.evidence), against)


def compared(mine: Judged, other: Judged) -> Difference | None:
    """The main metric less the other's, with its interval, of the same test images; None where there are too few."""
    found = pairs(mine.answers, other.answers)
    if found is not None:
        return difference(found)
    ends = paired_difference(mine.task, mine.evidence, other.evidence)
    return None if ends is None else Difference(*ends, images=len(mine.evidence))


def comparison(found: Difference, of: str) -> Comparison:
    """A difference to the variant called `of` as the manifest has it."""
    return Comparison(of=of, difference=found.value, low=found.low, high=found.high)


def variant_record(
    name: str,
    plan: Plan,
    budget: Budget | None,
    cost: Cost,
    artifact: Artifact,
    quality: Quality,
    *,
    rectifier: str,
    folder: Path,
    seconds: Mapping[str, float],
    epochs: int,
    seed: int,
) -> Variant:
    """The record of a variant whose files lie in `folder`, without what is measured on a device.

    `rectifier` is '' where nobody knows what its training began with.
    """
    return Variant(
        name=name,
        recipe=str(plan.origin.get("recipe", "dense")),
        settings={n: str(plan.origin[n]) for n in _TOLD if n in plan.origin}
        | ({"rectifier": rectifier} if budget and rectifier else {})
        | ({"timed": str(plan.origin["measured"])} if "measured" in plan.origin else {}),
        budget=budget.as_dict if budget else {},
        keep=sum(plan.widths.values()) / sum(plan.dense.values()),
        widths={n: (plan.dense[n], len(c)) for n, c in plan.keep.items()},
        plan=StoredFile.of(folder, f"{name}.plan.json"),
        weights=StoredFile.of(folder, f"{name}.safetensors"),
        artifact=artifact,
        metrics=Metrics(
            accuracy=quality.main,
            answers=quality.answers,
            scores=quality.scores,
            interval=quality.interval,
            against=quality.against,
            params=cost.params,
            macs=cost.macs,
            weight_bytes=cost.weight_bytes,
            activation_bytes=cost.activation_bytes,
            file_bytes=artifact.bytes,
        ),
        seconds=dict(seconds),
        epochs=epochs,
        seed=seed,
    )
