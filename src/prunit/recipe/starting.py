"""What variants begin with: the initial weights, or those of a trained dense model.

init      cut layers are drawn anew (the rectifier) and the rest inherits: the papers' way
trained   the variant inherits the weights of the trained dense model. Its widths are those that were decided before
          training; which channels stay is decided again by the trained weights. Learning rate rewinding (Renda et al.,
          "Comparing rewinding and fine-tuning in neural network pruning", ICLR 2020) is the schedule of the training
          that follows; the shorter that is, the lower its rate, or as `start.lr` says.

The trained weights are the dense variant's: trained by this build, or those that were given and are kept.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from prunit.batches import Dataset
from prunit.cut.plans import Scores
from prunit.edge.answers import Answers
from prunit.edge.comparing.compare import by_luck
from prunit.errors import ConfigError, TrainingError
from prunit.graph import ChannelGraph
from prunit.recipe.config import PruneConfig, StartConfig
from prunit.recipe.recipes import method_of
from prunit.recipe.source import Source
from prunit.scores import find, per_channel, score_weights
from prunit.train import Fitted
from prunit.train.defaults import EPOCHS


@dataclass(frozen=True)
class Start:
    """How a build begins its variants, every `auto` decided."""

    trained: bool
    """Variants begin with the dense variant's weights."""
    kept: bool
    """The dense model is not trained."""

    @staticmethod
    def of(config: StartConfig, source: Source) -> "Start":
        """What the settings mean for this model; `ConfigError` where they contradict each other."""
        given = bool(config.weights)
        kept = config.dense == "keep" or (config.dense == "auto" and given and not source.redrawn)
        if kept and source.redrawn:
            raise ConfigError(
                f"start.dense=keep, but '{config.weights}' has other classes and the head is drawn anew"
                f" ({', '.join(source.redrawn)}): it has to be trained, with start.dense=train"
            )
        return Start(config.point == "trained" or (config.point == "auto" and given), kept)

    def rate(self, config: StartConfig, dense: Fitted, epochs: int) -> float:
        """The highest learning rate of a variant that begins trained and is trained for so many epochs.

        That of `dense`, the dense model's training, where it is as long as that; a shorter one begins lower by as much,
        since it has not the time to find again what a high rate makes it forget. Where the dense model is not trained
        the default length stands for its own. `start.lr` overrules it.
        """
        if config.lr is not None:
            return config.lr
        return dense.lr * min(1.0, epochs / (max(dense.epochs, EPOCHS) if self.kept else dense.epochs))


FROM_INIT: Final = Start(trained=False, kept=False)
"""The papers' way."""


def check_taught(answers: Answers | None, *, kept: bool, part: str) -> None:
    """Raise `TrainingError` if a dense model has nothing to pass on: it is no better than guessing.

    `part`: which images they answer, as `Dataset.watched_part` says.
    """
    share = by_luck(answers) if answers else None
    if answers is None or share is None:
        return
    do = (
        "give trained weights (--weights FILE), or train it (--dense train)"
        if kept
        else "train longer or at a lower rate, or begin with the initial weights (--start init)"
    )
    raise TrainingError(
        f"variants are to begin with the dense model's weights, and it is no better than guessing:"
        f" {answers.accuracy:.1%} of {answers.images:,} {part} images are right, naming the commonest class gets"
        f" {share:.1%}; {do}"
    )


def channel_scores(
    model: nn.Module,
    graph: ChannelGraph,
    dataset: Dataset,
    prune: PruneConfig,
    *,
    score: str | None,
    share: float,
    device: torch.device,
) -> Scores:
    """Scores of all channels by a trained model's weights: by `score`, else by that of `prune`.

    `share` of the parameters is left in the end; methods of many rounds thin out the weights beyond that.
    """
    method = find(score) if score else method_of(prune)[1]
    batches = dataset.scoring_batches(per_class=prune.per_class, batch_size=256, seed=prune.seed)
    model.to(device)
    try:
        weights = score_weights(
            *(model, graph, method, batches.to(device)),
            density=min(max(share / 8, 1e-4), 1.0),
            seed=prune.seed,
        )
    finally:
        model.to("cpu")
    return per_channel(graph, weights, method.gather)


def score_of(prune: PruneConfig, score: str | None) -> str:
    """The name of the score by which a trained model's channels stay."""
    return score or prune.score or method_of(prune)[0].score
