"""Sparse trainings that become small models: DNNShifter's portfolio (Eccles et al. 2024).

`imp` is iterative magnitude pruning with weight rewinding (Frankle et al., "Linear mode connectivity and the lottery
ticket hypothesis", ICML 2020): train, drop the smallest of the weights that are left, everywhere together, take the
others back to what they were early in the first training, and train again. One run passes every density on its way.
Each level leaves a file when it is done, so a ladder that was killed at any moment goes on with `resume=True`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from prunit.batches import Dataset
from prunit.cut.plans import keep_all
from prunit.cut.zeros import without_small_filters
from prunit.edge.portfolio import Portfolio, Variant
from prunit.errors import FileError
from prunit.export.translation import Translation
from prunit.files import write_atomically
from prunit.graph import ChannelGraph
from prunit.graph.computed import effective
from prunit.prices.costs import cost_of
from prunit.recipe.config import BuildConfig
from prunit.recipe.deciding import Clock, Watches
from prunit.recipe.folder import STATE, held, open_folder, read_history, read_json
from prunit.recipe.lowering import lowered
from prunit.recipe.opening import configured, opened
from prunit.recipe.outs import Out
from prunit.recipe.padding import Padding, again, with_origin, without_zeros
from prunit.recipe.places.asked import executor_for
from prunit.recipe.places.benches import OfWork
from prunit.recipe.places.handed import Handed, handed_for
from prunit.recipe.places.pieces import Executor, Here, Piece
from prunit.recipe.places.threads import keep, told, working
from prunit.recipe.progress import OnStep, Progress
from prunit.recipe.rungs import IMP, Rung, rewind_of, rungs_of
from prunit.recipe.source import (
    ModelLike,
    Source,
    check_exports,
    check_trains,
    example_of,
)
from prunit.recipe.work import DENSE, Work
from prunit.scores import score_weights
from prunit.train import Epoch, device_named, fitted_to
from prunit.train.checkpoint import model_tensors
from prunit.train.sparse import Masks

RECIPE: Final = "dnnshifter"
LEVEL_0: Final = "level 0"
"""The training of the dense model."""


def ladder(
    model: ModelLike,
    data: str | Dataset,
    out: Path | str,
    *,
    config: BuildConfig | Mapping[str, Any] | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
    watches: Watches | None = None,
    jobs: int | Executor = 1,
    work: Path | str | None = None,
) -> Portfolio:
    """The portfolio in folder `out`: the dense model, and for each density a sparse model without its zeros.

    Arguments and folder are those of `build`; of the configuration, `sparse` takes the place of `budgets` and `prune`.
    A variant has the outputs of the sparse model that was trained (see `remove_zeros`), unless `sparse.tolerance` is
    more than 0. How much smaller it is depends on how many filters the training emptied. `watches` makes the stopwatch
    for `sparse.pad`; None is `Stopwatch`. `jobs` as for `build`, where masks come from a score: by `imp` each training
    starts from the one before. `out` may be an address, with `work`, as for `build`.
    """
    config, into = configured(model, config), Out.of(out, work)
    rungs = rungs_of(config)
    executor = executor_for(jobs, config, len(rungs) + 1, what="ladder")
    into.check()
    with into.naming(), working(executor, len(rungs) + 1, into.folder) as threads:
        portfolio = _climbed(
            *(model, data, into.folder, config, rungs, executor, threads),
            resume=resume,
            on_step=on_step,
            watches=watches,
        )
    into.send(on_step=on_step)
    return portfolio


def _climbed(
    model: ModelLike,
    data: str | Dataset,
    out: Path,
    config: BuildConfig,
    rungs: list[Rung],
    executor: Executor,
    threads: int | None,
    *,
    resume: bool,
    on_step: OnStep | None,
    watches: Watches | None,
) -> Portfolio:
    device_named(config.train.device)
    begun = opened(config, model, data, out, resume=resume, on_step=on_step)
    dataset, graph = begun.dataset, begun.graph
    rewind = rewind_of(config.sparse, fitted_to(config.train, dataset).epochs)
    settings = {**begun.settings, "kind": "ladder"}
    translation = None
    if not begun.goes_on:
        check_trains(begun.source.make(), dataset)
        translation = check_exports(begun.dense, dataset)
    with held(out, resume=resume):
        folder = open_folder(out, settings, resume=resume, defaults=BuildConfig().model_dump(mode="json"))
        keep(threads, folder / STATE)
        work = Work(config, folder, dataset, begun.source, graph, begun.progress)
        if translation is not None:
            work.keep_template(begun.dense, translation)
        if not isinstance(executor, Here):  # `auto` would be timed in each training, beside others
            work = work.with_precision(begun.dense)
        climb = _Climb(work, prunable(graph), rewind, translation, watches)
        portfolio = work.measure(*lowered(work, climb.variants(rungs, executor, threads)))
        work.report(portfolio)
        return portfolio


def prunable(graph: ChannelGraph) -> list[str]:
    """Weights of which single ones may go: of all convolutions and linear layers but the classifier at the end."""
    names = list(dict.fromkeys(layer.weight for layer in graph.layers))
    last = graph.layers[-1] if graph.layers else None
    return [n for n in names if last is None or last.kind != "linear" or n != last.weight] or names


def smallest_dropped(model: nn.Module, names: list[str], masks: Masks, fraction: float) -> dict[str, Tensor]:
    """Masks without the fraction of the remaining weights that is smallest, over all layers together."""
    named = effective(model, dict(model.named_parameters()))
    sizes = {n: named[n].detach().abs().float().cpu() for n in names}
    alive = {n: masks.get(n, torch.ones_like(sizes[n], dtype=torch.bool)) for n in names}
    values = torch.cat([sizes[n][alive[n]] for n in names])
    gone = round(fraction * len(values))
    threshold = values.kthvalue(gone).values if gone else -1.0
    return {n: alive[n] & (sizes[n] > threshold) for n in names}


@dataclass(frozen=True)
class _Climb(OfWork):
    """The trainings of a ladder; each leaves its weights and its epochs in the folder's state."""

    names: list[str]
    """Of the weights of which single ones may go."""
    rewind: int
    """Epochs after which weights are kept, to start each level of `imp` from."""
    translation: Translation | None = None
    """What exporting the dense model gave, if that was done."""
    watches: Watches | None = None

    def do(self, piece: Piece) -> None:
        """As `Bench.do`: the dense model's training, or that of one density by the mask of a score."""
        if piece.name == LEVEL_0:
            self._dense()
        else:
            self._trained(piece.name, self._mask(piece.arguments["density"]), self.work.source.make(), 0)

    def has(self, piece: Piece) -> bool:
        """As `Bench.has`."""
        file = self._file(piece.name)
        return file.exists() and file.with_suffix(".json").exists()

    def handed(self) -> Handed:
        """As `Bench.handed`."""
        work = self.work
        more = {"rewind": self.rewind}
        return handed_for("ladder", self.folder, work.config, work.source, work.dataset, pin=(), more=more)

    def _elsewhere(self, rungs: list[Rung], executor: Executor, threads: int | None) -> None:
        """Have all trainings done at another place; what follows them, with timings in it, comes after."""
        self.progress("all", "plan", 0, 0, told(executor, threads))
        pieces = [Piece("rung", LEVEL_0), *(Piece("rung", r.name, {"density": r.density}) for r in rungs)]
        with executor.open(self) as run:
            for piece in run(pieces):
                self.progress.trained(piece.name)

    def variants(self, rungs: list[Rung], executor: Executor, threads: int | None) -> list[Variant]:
        """The records of all variants, the dense one first."""
        work, sparse = self.work, self.work.config.sparse
        imp = sparse.method == IMP
        levels = max(rung.level for rung in rungs) if imp else 0
        trainings = [f"level {n}" for n in range(levels + 1)] if imp else [LEVEL_0, *(r.name for r in rungs)]
        # A masked weight is computed with: each training costs what the dense one does.
        costs = dict.fromkeys(trainings, cost_of(work.graph).macs)
        names = ["dense", *(rung.name for rung in rungs)]
        work.progress.plan_to_train(
            costs, probe_s=2 * work.config.probe.seconds, exports=names, at_once=executor.at_once
        )
        if not isinstance(executor, Here):
            self._elsewhere(rungs, executor, threads)
        model, history = self._dense()
        work.put("dense", keep_all(work.graph), model, history)
        found = [work.export("dense", keep_all(work.graph), None, history)]
        masks: Masks = {}
        before = sum(epoch.seconds for epoch in history)
        by_level = {rung.level: rung for rung in rungs}
        if not imp:
            for rung in rungs:
                masks = self._mask(rung.density)
                model, history = self._trained(rung.name, masks, work.source.make(), 0)
                found.append(self._variant(rung, model, masks, history, 0.0))
            return found
        for level in range(1, levels + 1):
            masks = smallest_dropped(model, self.names, masks, sparse.fraction)
            rewound = work.source.make()
            _put(rewound, self._read("rewind"))
            model, history = self._trained(f"level {level}", masks, rewound, self.rewind)
            if level in by_level:
                found.append(self._variant(by_level[level], model, masks, history, before))
            before += sum(epoch.seconds for epoch in history)
        return found

    def _variant(self, rung: Rung, model: nn.Module, masks: Masks, history: list[Epoch], before_s: float) -> Variant:
        work, sparse = self.work, self.work.config.sparse
        if sparse.tolerance:
            model = without_small_filters(model, sparse.tolerance)
        padding = self._without_zeros(rung, model.eval())
        kept = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
        origin: dict[str, Any] = {"recipe": RECIPE, "method": sparse.method, "density": f"{kept:.4g}"}
        origin |= {"tolerance": sparse.tolerance} if sparse.tolerance else {}
        plan = with_origin(replace(padding.removed.plan, origin=origin), padding)
        work.put(rung.name, plan, padding.removed.model, history, seconds={"levels": before_s})
        return work.export(rung.name, plan, None, history)

    def _without_zeros(self, rung: Rung, model: nn.Module) -> Padding:
        """The small model; what was timed for it holds for a ladder that goes on, too."""
        work, example = self.work, example_of(self.work.dataset)
        file, probe = work.state_file(f"{rung.name}/padding.json"), work.config.probe
        if file.exists():
            return again(model, example, graph=work.graph, **read_json(file))
        # What an older version wrote down before it was stopped is not padded.
        written = (work.folder / f"{rung.name}.safetensors").exists()
        found = without_zeros(
            *(model, example),
            graph=work.graph,
            pad="off" if written else work.config.sparse.pad,
            engine=work.config.prune.engine,
            clock=Clock(probe.threads, probe.batch, translation=self.translation, watches=self.watches),
            on_timed=lambda done, total: work.progress(rung.name, "measure", done, total),
        )
        if work.config.sparse.pad != "off" and not written:
            write_atomically(file, json.dumps({"at_least": dict(found.at_least), "told": found.told}))
        return found

    def _dense(self) -> tuple[nn.Module, list[Epoch]]:
        """The dense model after its training; on the way the weights to rewind to are kept."""
        rewind, start, make = self.rewind, self._file("rewind"), self.work.source.make
        if self.work.config.sparse.method != IMP:
            return self._trained(LEVEL_0, {}, make(), 0)
        if not start.exists():  # without them a checkpoint is of no use: it is past that epoch, or starts anew anyway
            for file in (self._file(LEVEL_0), self._checkpoint(LEVEL_0)):
                file.unlink(missing_ok=True)
            if not rewind:
                self._write("rewind", make())
        return self._trained(LEVEL_0, {}, make(), 0, keep_at=rewind)

    def _mask(self, density: float) -> Masks:
        """The mask of a score at initialisation: the highest-scored weights of all layers together."""
        work, prune = self.work, self.work.config.prune
        batches = work.dataset.scoring_batches(per_class=prune.per_class, batch_size=256, seed=prune.seed)
        scores = score_weights(
            work.source.make(),
            work.graph,
            work.config.sparse.method,
            batches,
            density=density,
            seed=prune.seed,
            on_round=lambda done, total: work.progress(f"density {density:.3g}", "prune", done, total),
        )
        flat = torch.cat([scores[n].reshape(-1) for n in self.names])
        kept = torch.zeros(len(flat), dtype=torch.bool)
        kept[torch.argsort(flat, descending=True, stable=True)[: max(1, int(density * len(flat)))]] = True
        parts = kept.split([scores[n].numel() for n in self.names])
        return {n: part.view(scores[n].shape) for n, part in zip(self.names, parts, strict=True)}

    def _trained(
        self, name: str, masks: Masks, model: nn.Module, first: int, keep_at: int | None = None
    ) -> tuple[nn.Module, list[Epoch]]:
        """The model after its training, read back if it was trained before."""
        file, history = self._file(name), self._file(name).with_suffix(".json")
        if file.exists() and history.exists():
            _put(model, self._read(name))
            self.work.progress.trained(name)
            return model, read_history(history)
        epochs: list[Epoch] = []
        checkpoint = self._checkpoint(name)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        settings = self.work.settings_of(DENSE, self.work.settings.epochs)
        for epoch in self.work.epochs(name, model, checkpoint, settings, masks=masks, first=first):
            epochs.append(epoch)
            if epoch.index == keep_at and not self._file("rewind").exists():
                self._write("rewind", model)
        self._write(name, model)
        self.work.trained(name, history, epochs, checkpoint)
        return model, epochs

    def _file(self, name: str) -> Path:
        return self.work.folder / STATE / "ladder" / f"{name.replace(' ', '-')}.safetensors"

    def _checkpoint(self, name: str) -> Path:
        return self._file(name).with_suffix(".checkpoint.safetensors")

    def _write(self, name: str, model: nn.Module) -> None:
        file = self._file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = {n: t.detach().cpu().contiguous().clone() for n, t in model_tensors(model).items()}
        write_atomically(file, to_bytes(tensors))

    def _read(self, name: str) -> dict[str, Tensor]:
        file = self._file(name)
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise FileError(f"'{file}' is damaged ({error}); remove it and resume the ladder") from error


def _put(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in model_tensors(model).items():
            tensor.copy_(values[name])


def bench_again(
    handed: Handed, config: BuildConfig, dataset: Dataset, source: Source, graph: ChannelGraph, progress: Progress
) -> _Climb:
    """The bench of a ladder in another process."""
    work = Work(config, Path(handed.folder), dataset, source, graph, progress)
    return _Climb(work, prunable(graph), handed.more["rewind"])
