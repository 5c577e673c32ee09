"""The trials of a sweep: short trainings whose accuracy on held-out images is left in a file."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from prunit.batches import Dataset, stratified
from prunit.cut.plans import Plan
from prunit.cut.surgery import check_runs, compact, rectify
from prunit.errors import TrainingError
from prunit.files import write_atomically
from prunit.graph import ChannelGraph
from prunit.recipe.config import BuildConfig, PruneConfig
from prunit.recipe.entrants import HELD_OUT, settings_of
from prunit.recipe.folder import STATE, read_json, read_plan
from prunit.recipe.gradual import of_length
from prunit.recipe.places.handed import Handed, handed_for
from prunit.recipe.places.pieces import Piece
from prunit.recipe.progress import Progress
from prunit.recipe.source import Source, example_of, rectifier_for
from prunit.train import fitted_to, train
from prunit.train.config import final_accuracy

TRY: Final = "try"


def own_settings(config: BuildConfig, variant: str, recipe: Mapping[str, str]) -> dict[str, Any]:
    """A variant's own settings, with those of a recipe on top."""
    return {**config.by_variant.get(variant, {}), **recipe}


def held(dataset: Dataset, share: float | None, seed: int) -> Dataset:
    """The data set whose test images are a share of the training images, as many of each class as can be.

    Without a share its watched images are, where it has some, and it trains on all training images; else a fifth.
    """
    if share is None and dataset.watched is not None:
        return dataset.watching
    share = HELD_OUT if share is None else share
    y_B = dataset.train.y_B
    judging = stratified(dataset.task.strata(y_B), max(round(share * len(y_B)), 1), seed=seed)
    rest = torch.ones(len(y_B), dtype=torch.bool)
    rest[judging] = False
    return replace(dataset, train=dataset.train.taken(rest), test=dataset.train.taken(judging), watched=None)


@dataclass(frozen=True)
class TrialBench:
    """Trains what recipes made of a budget for a few epochs, and says how good that is."""

    config: BuildConfig
    folder: Path
    dataset: Dataset
    held: Dataset
    """What is trained on, and judged by."""
    graph: ChannelGraph
    source: Source
    progress: Progress
    held_out: float | None

    def piece(self, variant: str, recipe: str, epochs: int, *, done: int, of: int) -> Piece:
        """The trial of a recipe for a budget, `done` of so many being over."""
        return Piece(TRY, variant, {"recipe": recipe, "epochs": epochs, "done": done, "of": of})

    def do(self, piece: Piece) -> None:
        """The accuracy, or why the training failed."""
        recipe, epochs = piece.arguments["recipe"], piece.arguments["epochs"]
        note = f"{recipe}, {epochs} epochs"
        self.progress(piece.name, TRY, piece.arguments["done"], piece.arguments["of"], note)
        if self.has(piece):
            return
        prune, dense = self.prune_of(piece.name, recipe), self.source.make()
        plan = read_plan(self._plan(piece.name, recipe))
        small = compact(dense, self.graph, plan)
        check_runs(dense, small, example_of(self.dataset))
        rectify(small, dense, rectifier_for(prune, self.source.named), seed=prune.seed)
        short = of_length(fitted_to(self.config.train, self.dataset), epochs)
        file = self._file(piece)
        checkpoint = file.with_suffix(".checkpoint.safetensors")
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        found: dict[str, float | str]
        try:
            *_, last = train(small, self.held, short, checkpoint=checkpoint)
            found = {"accuracy": final_accuracy([last])}
        except TrainingError as error:
            found = {"out": str(error)}
        write_atomically(file, json.dumps(found))
        with suppress(OSError):
            checkpoint.unlink()

    def has(self, piece: Piece) -> bool:
        """As `Bench.has`."""
        return self._file(piece).exists()

    def handed(self) -> Handed:
        """As `Bench.handed`."""
        pin, more = self.config.prune.pin, {"held_out": self.held_out}
        return handed_for("sweep", self.folder, self.config, self.source, self.dataset, pin=pin, more=more)

    def found(self, piece: Piece) -> float | str:
        """What a trial came to: the accuracy, or why there is none."""
        read = read_json(self._file(piece))
        return str(read["out"]) if "out" in read else float(read["accuracy"])

    def prune_of(self, variant: str, recipe: str) -> PruneConfig:
        """The settings of `prune` of a recipe for a budget."""
        own = own_settings(self.config, variant, settings_of(recipe))
        return self.config.model_copy(update={"by_variant": {variant: own}}).prune_of(variant)

    def keep(self, variant: str, recipe: str, plan: Plan) -> None:
        """Leave a plan for the trials that need it."""
        write_atomically(self._plan(variant, recipe), plan.to_json())

    def _plan(self, variant: str, recipe: str) -> Path:
        return self._state(f"{variant} {recipe}.plan.json")

    def _file(self, piece: Piece) -> Path:
        return self._state(f"{piece.name} {piece.arguments['recipe']} {piece.arguments['epochs']}.json")

    def _state(self, name: str) -> Path:
        return self.folder / STATE / "trials" / name.replace(" ", "_").replace(":", "-")


def bench_again(
    handed: Handed, config: BuildConfig, dataset: Dataset, source: Source, graph: ChannelGraph, progress: Progress
) -> TrialBench:
    """The bench of a sweep in another process."""
    share = handed.more["held_out"]
    judged = held(dataset, share, config.seed)
    return TrialBench(config, Path(handed.folder), dataset, judged, graph, source, progress, share)
