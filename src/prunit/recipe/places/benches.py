"""What pieces are done with: those of a build here; and any bench made anew in another process."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from prunit.allocate import Budget
from prunit.batches import Dataset
from prunit.edge.portfolio import Variant
from prunit.errors import ConfigError
from prunit.graph import ChannelGraph, trace
from prunit.recipe.config import BuildConfig, validated
from prunit.recipe.effort import Pacer
from prunit.recipe.folder import intact_variant, read_history, read_plan
from prunit.recipe.places.handed import Arrays, Handed, handed_for, unpacked
from prunit.recipe.places.pieces import Bench, Piece, Run
from prunit.recipe.progress import Progress
from prunit.recipe.request import check_request
from prunit.recipe.source import Source, digest_of_weights, example_of
from prunit.recipe.starting import Start
from prunit.recipe.work import DENSE, Work

TRAIN: Final = "train"
EXPORT: Final = "export"


@dataclass(frozen=True)
class OfWork:
    """What a bench says of the work whose steps its pieces are."""

    work: Work

    @property
    def folder(self) -> Path:
        """Of the portfolio."""
        return self.work.folder

    @property
    def dataset(self) -> Dataset:
        """Of the build."""
        return self.work.dataset

    @property
    def progress(self) -> Progress:
        """Of the build."""
        return self.work.progress


@dataclass(frozen=True)
class VariantBench(OfWork):
    """Trains and exports variants whose plans lie in the folder of a build."""

    budgets: Mapping[str, Budget | None]

    def do(self, piece: Piece) -> None:
        """'train': weights and epochs; 'export': the model, its self-test and its record."""
        if piece.kind == TRAIN:
            self.work.train(piece.name, self._plan(piece.name), piece.arguments["epochs"])
        else:
            self.made(piece.name)

    def has(self, piece: Piece) -> bool:
        """As `Bench.has`; a record that older versions wrote is made again."""
        record = self.work.state_file(f"{piece.name}/variant.json")
        if piece.kind == TRAIN:
            return self._history(piece.name).exists() and (self.folder / f"{piece.name}.safetensors").exists()
        found = intact_variant(record, self.folder) if record.exists() else None
        return bool(found and found.metrics.scores)

    def handed(self) -> Handed:
        """As `Bench.handed`."""
        config, work = self.work.config, self.work
        return handed_for("build", self.folder, config, work.source, work.dataset, pin=config.prune.pin, more={})

    def made(self, name: str) -> Variant:
        """The record of a variant that is trained; exported now, unless it was."""
        return self.work.export(name, self._plan(name), self.budgets[name], self.epochs(name))

    def epochs(self, name: str) -> Any:
        """Those of a variant that is trained."""
        return read_history(self._history(name))

    def _plan(self, name: str) -> Any:
        plan = read_plan(self.folder / f"{name}.plan.json")
        plan.check(self.work.graph)
        return plan

    def _history(self, name: str) -> Path:
        return self.work.state_file(f"{name}/history.json")


def made_variants(bench: VariantBench, names: Sequence[str], pacer: Pacer, run: Run) -> list[Variant]:
    """The records of these variants, trained and exported; none of them begins with the weights of another one."""
    work = bench.work
    taught = bool(work.settings.distill)
    evidence = work.dataset.task.name != "classification"

    def pieces() -> Iterator[Piece]:
        for name in names:
            epochs = 0 if name == DENSE and work.start.kept else pacer.epochs(name)
            # What is learnt from the dense variant, or compared with its outputs, waits for it.
            first = (f"{TRAIN} {DENSE}",) if name != DENSE else ()
            yield Piece(TRAIN, name, {"epochs": epochs}, after=first if taught else ())
            yield Piece(EXPORT, name, after=(f"{TRAIN} {name}", *(first if evidence else ())))

    variants: dict[str, Variant] = {}
    for piece in run(pieces()):
        if piece.kind == TRAIN:
            work.progress.trained(piece.name)
            pacer.trained(piece.name, bench.epochs(piece.name))
        else:
            variants[piece.name] = bench.made(piece.name)
    return [variants[name] for name in names]


def bench_again(handed: Handed, about: Mapping[str, Any], arrays: Arrays, progress: Progress) -> Bench:
    """The bench made anew, its images from `packed`; `ConfigError` where the model is another one here."""
    module, _, function = handed.kind.partition(":")
    if function:
        bench: Bench = getattr(import_module(module), function)(handed, progress)
        return bench
    return _with_model(handed, unpacked(about, arrays), progress)


def _with_model(handed: Handed, dataset: Dataset, progress: Progress) -> Bench:
    config = validated(handed.config)
    source = Source.of(handed.model, dataset, seed=config.seed, start=config.start)
    dense = source.make()
    if digest_of_weights(dense) != handed.weights:
        raise ConfigError(
            f"model '{handed.model}' has other initial weights when another process makes it: let its factory draw"
            " them by torch alone, which is seeded, or read them from a file (--weights); or jobs=1"
        )
    graph = trace(dense, example_of(dataset), pin=handed.pin)
    del dense
    return _KINDS[handed.kind](handed, config, dataset, source, graph, progress)


def _of_build(
    handed: Handed, config: BuildConfig, dataset: Dataset, source: Source, graph: ChannelGraph, progress: Progress
) -> Bench:
    start = Start.of(config.start, source)
    work = Work(config, Path(handed.folder), dataset, source, graph, progress, start)
    return VariantBench(work, check_request(config))


def _of(
    module: str,
    handed: Handed,
    config: BuildConfig,
    dataset: Dataset,
    source: Source,
    graph: ChannelGraph,
    progress: Progress,
) -> Bench:
    """That of a sweep or a ladder, which are above this module."""
    bench: Bench = import_module(f"prunit.recipe.{module}").bench_again(
        handed, config, dataset, source, graph, progress
    )
    return bench


_Maker = Callable[[Handed, BuildConfig, Dataset, Source, ChannelGraph, Progress], Bench]
_KINDS: Final[Mapping[str, _Maker]] = {
    "build": _of_build,
    "sweep": partial(_of, "trials"),
    "ladder": partial(_of, "ladders"),
}
