"""A trained model cut down to a variant in rounds, each followed by training: gradual pruning.

A network that loses few channels at a time recovers from each loss before the next (Molchanov et al., "Pruning
convolutional neural networks for resource efficient inference", ICLR 2017; Zhu and Gupta, "To prune, or not to prune",
2017). The last round has half of the epochs, since only what it trains is left in the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prunit.cut.plans import Plan
from prunit.errors import ConfigError
from prunit.train import Epoch, Fitted


@dataclass(frozen=True)
class Round:
    """The widths after a cut, and how what is left is trained."""

    widths: Mapping[str, int]
    settings: Fitted


def rounds_of(plan: Plan, settings: Fitted, rounds: int) -> list[Round]:
    """The rounds to a plan's widths, every group narrowed by the same factor in each; `ConfigError` for too many.

    `settings` are those of all rounds together; their epochs are shared out, and a warm-up of a set length like them.
    """
    epochs = settings.epochs
    if epochs < rounds:
        several = "s" * (epochs != 1)
        raise ConfigError(
            f"start.rounds={rounds} are more than the {epochs} epoch{several} of a variant: each takes at least one"
        )
    before = max(1, epochs // (2 * (rounds - 1))) if rounds > 1 else 0
    parts = [before] * (rounds - 1) + [epochs - before * (rounds - 1)]
    found: list[Round] = []
    for number, part in enumerate(parts, start=1):
        reached = number / rounds
        widths = {n: max(w, round(plan.dense[n] * (w / plan.dense[n]) ** reached)) for n, w in plan.widths.items()}
        found.append(Round(widths, of_length(settings, part)))
    return found


def of_length(settings: Fitted, epochs: int) -> Fitted:
    """The settings of a training of so many epochs instead; a warm-up of a set length goes with them."""
    warm_up = settings.warmup_epochs and settings.warmup_epochs * epochs / settings.epochs
    return settings.model_copy(update={"epochs": epochs, "warmup_epochs": warm_up})


def in_one(parts: Sequence[Sequence[Epoch]]) -> list[Epoch]:
    """The epochs of several trainings as those of one, numbered through."""
    total = sum(map(len, parts))
    epochs = [epoch for part in parts for epoch in part]
    return [replace(epoch, index=i, epochs=total) for i, epoch in enumerate(epochs, start=1)]
