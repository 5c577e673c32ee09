"""What budgets in cycles bring on an Ethos-U, beside budgets in multiply-adds: `python -m bench.mcu --data-dir DATA`.

Four networks (`bench/_tiny_nets.py`) on one part, cells of six kinds, written one by one; a cell that is there is not
done again:

plan     what an untrained plan takes by Vela and TensorFlow Lite Micro, of each way to prune and each budget
budget   how much of a limit the plan uses, and how long deciding takes
arena    what a dense network takes of an arena, and plans within a budget of it: as it was lowered and as it is written
decide   where the time of a decision goes, with tables of layers empty and filled
dense    a network trained as it is
trained  a network cut after that by one of the ways and trained further, the same for all ways: float and int8 on the
         same test images, answers of TensorFlow Lite Micro beside LiteRT's reference kernels, the compiled file

Ways: `cycles` is prunit with budgets in cycles, `cycles-balanced` the same with the recipe `balanced`, `macs`
the default recipe with budgets in multiply-adds, `macs-1` that
without rounding of widths, `torch-pruning` group norms over all layers, no rounding, `torch-pruning-even` the same with
equal shares of every layer, which is its default. Widths of prunit's are decided before training, and the channels and
weights that stay are those of the trained network (`--start trained`). Torch-Pruning decides on the trained network.
"""

import argparse
import copy
import cProfile
import json
import os
import pstats
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

import prunit
from bench._common import RESULTS, record, write
from bench._tiny_nets import NETS, TinyNet
from bench.coverage.theirs import classifiers
from prunit.allocate import Budget
from prunit.batches import Dataset
from prunit.cut.plans import choose
from prunit.errors import BudgetError, PrunitError
from prunit.export import export_onnx
from prunit.export.tflite import Twin, integer_twin
from prunit.graph import ChannelGraph
from prunit.mcu.flatbuffer import flatbuffer_of
from prunit.mcu.litert import answers
from prunit.mcu.memory import ALIGNED, lives, most_at_once
from prunit.mcu.micro import file_for, tflm_file
from prunit.mcu.network import IntegerNetwork
from prunit.mcu.numbers import quantised
from prunit.mcu.parts import part
from prunit.mcu.placing import offsets_of
from prunit.mcu.session import IntegerSession
from prunit.mcu.tflm import arena, tflm_answers
from prunit.mcu.tools import named
from prunit.mcu.unpadding import unpadded
from prunit.mcu.vela import compiled, version
from prunit.prices.costs import cost_of, width_array
from prunit.recipe.blueprint import Blueprint
from prunit.recipe.config import PruneConfig
from prunit.recipe.deciding import decide_here
from prunit.recipe.on_parts import figures_of
from prunit.recipe.quality import compared
from prunit.recipe.recipes import example_batch
from prunit.recipe.starting import channel_scores
from prunit.recipe.twins import judged_by, opened, training_images
from prunit.train import TrainConfig, fitted_to, resolved_precision, train
from prunit.train.accuracy import Judged

PART: Final = "ethos-u55-128"
EVEN: Final = "torch-pruning-even"
CYCLES: Final = ("3/4", "1/2", "1/3", "1/4")
MACS: Final = ("3/4", "1/2", "1/3", "1/4", "1/6", "1/8", "1/16")
TRAINED: Final[Mapping[str, Sequence[str]]] = {
    "cycles": ("3/4", "1/2", "1/3"),
    "cycles-balanced": ("3/4", "1/2", "1/3"),
    "macs": ("1/2", "1/4", "1/8"),
    "macs-1": ("1/2", "1/4", "1/8"),
    "torch-pruning": ("1/2", "1/4", "1/8"),
    "torch-pruning-even": ("1/2", "1/4", "1/8"),
}
"""Budgets of the ways whose networks are trained."""
LIMITS: Final = (
    *(f"arena={share}@tflm" for share in ("3/4", "1/2", "1/3")),
    *(f"flash={share}@tflm" for share in ("1/2", "1/4")),
    *(f"cycles={share}@{PART}" for share in CYCLES),
    *("cycles=1/2@ethos-u65-256", "cycles=1/2@ethos-u85-256", "sram=1/2@ethos-u55-128"),
)
COMPARED: Final = 64
"""Images of the test set that TensorFlow Lite Micro answers."""
CALIBRATION: Final = 512
"""Training images that ranges are taken from, and as many that choose among ways to find them, as a build does."""
_STEPS: Final = 100
"""In so many steps Torch-Pruning would drop everything; the first one within the budget is taken."""

Cell = dict[str, Any]
Widths = Mapping[str, int]


def figures(network: IntegerNetwork) -> dict[str, float]:
    """What a network of integers takes on the part, and on a microcontroller."""
    on_part, on_tflm = (figures_of(file_for(network, part(name)), part(name)) for name in (PART, "tflm"))
    return {**on_part, "arena_bytes": on_tflm["arena_bytes"], "file_bytes": on_tflm["flash_bytes"]}


@dataclass(frozen=True)
class Case:
    """An untrained network with one seed: what plans are made of."""

    name: str
    seed: int

    @property
    def net(self) -> TinyNet:
        return NETS[self.name]

    @cached_property
    def model(self) -> nn.Module:
        return self.net.made(self.seed)

    @cached_property
    def graph(self) -> ChannelGraph:
        return prunit.trace(self.model, self.net.example)

    @cached_property
    def blueprint(self) -> Blueprint:
        return Blueprint(self.model, self.graph, self.net.example)

    def decided(
        self, budget: str, *, round_to: int | str = "auto", recipe: str | None = None
    ) -> tuple[Widths, dict[str, float], float]:
        """The default recipe's widths within a budget, how much of each limit they use, and the seconds it took."""
        named = {"recipe": recipe} if recipe else {}
        config = PruneConfig.model_validate({"round_to": round_to, "seed": self.seed, **named})
        found = decide_here(
            *(self.model, self.graph, self.net.example, [example_batch(self.net.example)]),
            *(Budget.parse(budget), config),
            measure=False,
            blueprint=self.blueprint,
        ).decision
        return found.plan.widths, dict(found.used), found.seconds

    def widths(self, way: str, share: str) -> Widths:
        """Those that one of prunit's ways decides on."""
        if way == "cycles":
            return self.decided(f"cycles={share}@{PART}")[0]
        if way == "cycles-balanced":
            return self.decided(f"cycles={share}@{PART}", recipe="balanced")[0]
        return self.decided(f"macs={share}", round_to=1 if way == "macs-1" else "auto")[0]

    def told(self, widths: Widths) -> Cell:
        """What these widths take, untrained."""
        cost = cost_of(self.graph, choose_any(self.graph, widths))
        found = figures(self.blueprint.at(width_array(self.graph, widths)))
        return {"widths": list(widths.values()), "macs": cost.macs, "params": cost.params, **found}


def choose_any(graph: ChannelGraph, widths: Widths) -> prunit.Plan:
    """A plan with these widths, whichever channels stay."""
    return choose(graph, {group.name: torch.ones(group.size) for group in graph.groups}, widths)


def torch_pruning(
    model: nn.Module, net: TinyNet, shares: Sequence[str], *, even: bool = False, min_share: float = 0.02
) -> dict[str, nn.Module]:
    """By share of the multiply-adds the model as Torch-Pruning leaves it: by group norm, no rounding.

    Channels of all layers are ranked together, or every layer loses as large a share (`even`).

    In small steps, the first that is within the share counts. A share that it does not reach is missing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch-Pruning's own
        import torch_pruning as tp

        model = copy.deepcopy(model)
        dense = tp.utils.count_ops_and_params(model, net.example)[0]
        pruner = tp.pruner.BasePruner(
            model,
            net.example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=not even,
            pruning_ratio=1.0,
            max_pruning_ratio=1 - min_share,
            iterative_steps=_STEPS,
            ignored_layers=classifiers(model),
        )
        found: dict[str, nn.Module] = {}
        for _ in range(_STEPS):
            pruner.step()
            macs = tp.utils.count_ops_and_params(model, net.example)[0]
            for share in shares:
                if share not in found and macs <= dense * number_of(share):
                    found[share] = copy.deepcopy(model)
            if len(found) == len(shares):
                break
    return found


def number_of(share: str) -> float:
    """Of "1/2" a half."""
    above, below = share.split("/")
    return int(above) / int(below)


def widths_of(model: nn.Module, graph: ChannelGraph) -> dict[str, int]:
    """By group of the dense graph how many channels a model of the same modules has left."""
    modules = dict(model.named_modules())
    return {group.name: int(modules[group.name].weight.shape[0]) for group in graph.groups}  # type: ignore[arg-type]


# ── cells without training ──


def plans(case: Case) -> Iterator[tuple[dict[str, str], Callable[[], Cell]]]:
    """Plans of every way, the dense network first."""
    yield {"way": "dense", "share": "1"}, lambda: case.told({g.name: g.size for g in case.graph.groups})
    for way, shares in (("cycles", CYCLES), ("cycles-balanced", CYCLES), ("macs", MACS), ("macs-1", MACS)):
        for share in shares:
            yield {"way": way, "share": share}, lambda way=way, share=share: case.told(case.widths(way, share))
    made: dict[str, dict[str, nn.Module]] = {}

    def theirs(way: str, share: str) -> Cell:
        if way not in made:
            made[way] = torch_pruning(case.model, case.net, MACS, even=way == EVEN)
        if share not in made[way]:
            raise BudgetError(f"Torch-Pruning does not reach {share} of the multiply-adds")
        return case.told(widths_of(made[way][share], case.graph))

    for way in ("torch-pruning", EVEN):
        for share in MACS:
            yield {"way": way, "share": share}, lambda way=way, share=share: theirs(way, share)


def budgets(case: Case) -> Iterator[tuple[dict[str, str], Callable[[], Cell]]]:
    """How closely limits are met."""

    def met(limit: str) -> Cell:
        widths, used, seconds = case.decided(limit)
        return {"used": used[limit], "seconds": seconds, "widths": list(widths.values())}

    for limit in LIMITS:
        yield {"limit": limit}, lambda limit=limit: met(limit)


def arenas(case: Case) -> Iterator[tuple[dict[str, str], Callable[[], Cell]]]:
    """Arenas of files as they were lowered, with places of tensors, and without paddings too."""

    def both(share: str) -> Cell:
        widths = case.graph.sizes
        if share != "1":
            widths = width_array(case.graph, case.decided(f"macs={share}")[0])
        lowered = case.blueprint.at(widths)
        small = unpadded(lowered)
        files = {
            "lowered": flatbuffer_of(lowered),
            "placed": flatbuffer_of(lowered, offsets=offsets_of(lowered)),
            "written": tflm_file(small),
        }
        x = np.random.default_rng(0).integers(-128, 128, (8, *lowered.by_name[lowered.inputs[0]].shape[1:]))
        told = {name: tflm_answers(data, x.astype(np.int8))[0].tobytes() for name, data in files.items()}
        return {
            "arena_bytes": {name: arena(data).total_bytes for name, data in files.items()},
            "file_bytes": {name: len(data) for name, data in files.items()},
            "alive_bytes": most_at_once(lives(small).values(), aligned=ALIGNED),
            "paddings": [sum(o.code == "PAD" for o in net.operators) for net in (lowered, small)],
            "equal": len(set(told.values())) == 1,
        }

    for share in ("1", "1/2", "1/4"):
        yield {"share": share}, lambda share=share: both(share)


def deciding(case: Case) -> Cell:
    """Seconds of a decision in cycles with an empty and with a filled table, a model made anew each time."""
    found: Cell = {}
    before = os.environ.get("PRUNIT_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PRUNIT_CACHE"] = folder
        try:
            for table in ("empty", "filled"):
                fresh, profiler = Case(case.name, case.seed), cProfile.Profile()
                _ = fresh.graph
                profiler.enable()
                started = time.perf_counter()
                fresh.decided(f"cycles=1/2@{PART}")
                found[f"{table}_s"] = time.perf_counter() - started
                profiler.disable()
                found[f"{table}_parts_s"] = parts_of(profiler)
        finally:
            os.environ.pop("PRUNIT_CACHE")
            if before is not None:
                os.environ["PRUNIT_CACHE"] = before
    return found


_PARTS: Final = {
    "export": ("untrained.py", ("write_dense", "write", "__init__")),
    "table": ("tables.py", ("fill",)),
    "compiler": ("vela.py", ("compiled",)),
    "scores": ("score.py", ("score_weights",)),
    "prices": ("pricing.py", ("priced",)),
    "shapes": ("resizing.py", ("resized",)),
}
"""Functions whose time is told, by what they do; `compiler` is a part of `table` too."""


def parts_of(profiler: cProfile.Profile) -> dict[str, float]:
    """Seconds in each of `_PARTS`, with all that they call."""
    found = dict.fromkeys(_PARTS, 0.0)
    for (file, _, function), row in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        for name, (module, functions) in _PARTS.items():
            if function in functions and Path(file).name == module:
                found[name] += row[3]
    return {name: round(seconds, 2) for name, seconds in found.items()}


# ── cells with training ──


@dataclass(frozen=True)
class Training:
    """One network with one seed, its images, and the dense model after its training, kept in `folder`."""

    case: Case
    data_dir: Path
    folder: Path

    @cached_property
    def dataset(self) -> Dataset:
        return self.case.net.images(self.data_dir)

    @cached_property
    def precision(self) -> str:
        """What `auto` comes to for the dense network, asked once and then the same for all."""
        file = self.folder / f"{self.case.name}.precision"
        if not file.exists():
            file.write_text(resolved_precision(self.case.model, self.dataset, TrainConfig(device="cpu")))
        return file.read_text()

    def settings(self, epochs: int, **lr: float) -> TrainConfig:
        """prunit's defaults for so many epochs."""
        chosen = {"epochs": epochs, "device": "cpu", "seed": self.case.seed, "precision": self.precision}
        return TrainConfig.model_validate(chosen | lr)

    def trained(self, model: nn.Module, settings: TrainConfig) -> Cell:
        """Trains the model in place; how."""
        started = time.perf_counter()
        for _ in train(model, self.dataset, settings):
            pass
        return {"train_s": time.perf_counter() - started, "epochs": settings.epochs, "precision": self.precision}

    @cached_property
    def dense(self) -> nn.Module:
        """The trained dense network."""
        file = self.folder / f"{self.case.name}-{self.case.seed}.pt"
        model = self.case.net.made(self.case.seed)
        if file.exists():
            model.load_state_dict(torch.load(file, weights_only=True))
        else:
            self.trained(model, self.settings(self.case.net.epochs))
            torch.save(model.state_dict(), file)
        return model.eval()

    @cached_property
    def rate(self) -> float:
        """The highest rate after the cut: lower than the dense network's by as much as there are fewer epochs."""
        net = self.case.net
        return fitted_to(self.settings(net.epochs), self.dataset).lr * net.tuned / net.epochs

    @cached_property
    def theirs(self) -> dict[str, dict[str, nn.Module]]:
        """Torch-Pruning's networks, by way and share."""
        return {
            way: torch_pruning(self.dense, self.case.net, TRAINED[way], even=way == EVEN)
            for way in ("torch-pruning", EVEN)
        }

    def cut(self, way: str, share: str) -> tuple[nn.Module, Cell]:
        """The trained network, cut, and what it takes as an untrained plan."""
        if way.startswith("torch-pruning"):
            if share not in self.theirs[way]:
                raise BudgetError(f"Torch-Pruning does not reach {share} of the multiply-adds")
            model = copy.deepcopy(self.theirs[way][share])
            return model, self.case.told(widths_of(model, self.case.graph))
        widths = self.case.widths(way, share)
        return self.cut_to(widths), self.case.told(widths)

    def cut_to(self, widths: Widths) -> nn.Module:
        """The trained network at these widths: the channels stay that its weights score highest."""
        left = cost_of(self.case.graph, choose_any(self.case.graph, widths)).params / cost_of(self.case.graph).params
        dense = copy.deepcopy(self.dense)
        scores = channel_scores(
            *(dense, self.case.graph, self.dataset, PruneConfig(seed=self.case.seed)),
            score=None,
            share=left,
            device=torch.device("cpu"),
        )
        return prunit.compact(dense, self.case.graph, choose(self.case.graph, scores, widths))

    def cells(self) -> Iterator[tuple[dict[str, str], Callable[[], Cell]]]:
        """The dense network and every way to cut it."""
        yield {"kind": "dense", "way": "dense", "share": "1"}, self._dense
        for place in range(3):
            for way, shares in TRAINED.items():
                share = shares[place]
                yield (
                    {"kind": "trained", "way": way, "share": share},
                    lambda way=way, share=share: self._cut(way, share),
                )

    def _dense(self) -> Cell:
        widths = {g.name: g.size for g in self.case.graph.groups}
        return {"untrained": self.case.told(widths), "epochs": self.case.net.epochs, **self.judged(self.dense)}

    def _cut(self, way: str, share: str) -> Cell:
        model, untrained = self.cut(way, share)
        how = self.trained(model, self.settings(self.case.net.tuned, lr=self.rate))
        return {"untrained": untrained, **how, **self.judged(model)}

    def judged(self, model: nn.Module) -> Cell:
        """Float and int8 on the test images, what the compiled file takes, and are answers the same to the bit?"""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            artifact = export_onnx(model, self.case.net.example, folder, name="net")
            with opened(artifact, folder, "onnxruntime") as session:
                real = judged_by(session, self.dataset)
            images, held_out = training_images(self.dataset, CALIBRATION, self.case.seed)
            twin = integer_twin(
                *(folder / artifact.path, images),
                name=self.case.name,
                shape_CHW=artifact.input_shape,
                holdout_BCHW=held_out,
            )
        return {**_beside(twin, real, self.dataset), **_on_part(twin), **self._equal(twin)}

    def _equal(self, twin: Twin) -> Cell:
        x_BCHW = self.dataset.normalise(self.dataset.test.x_BCHW[:COMPARED]).numpy()
        inputs = quantised(x_BCHW, twin.network.by_name[twin.network.inputs[0]], layout="NCHW")
        theirs, ours = tflm_answers(twin.data, inputs)[0], answers(twin.data, inputs, kernels="reference")[0]
        equal = (theirs.reshape(len(inputs), -1) == ours.reshape(len(inputs), -1)).all(axis=1)
        return {"equal": int(equal.sum()), "compared": len(inputs)}


def _beside(twin: Twin, real: Judged, dataset: Dataset) -> Cell:
    """Accuracies, and the paired difference in points with its interval."""
    integers = judged_by(IntegerSession(twin.network, twin.data), dataset)
    drop = compared(integers, real)
    assert drop is not None
    found: Cell = {"float": 100 * real.main, "int8": 100 * integers.main, "images": len(dataset.test)}
    found |= {"drop": 100 * drop.value, "low": 100 * drop.low, "high": 100 * drop.high}
    agreement = float(np.mean(integers.evidence[:, 1] == real.evidence[:, 1]))
    return found | {"agreement": agreement, "method": twin.method}


def _on_part(twin: Twin) -> Cell:
    """What the trained network takes, with its own weights and ranges."""
    left = compiled(file_for(twin.lowered, part(PART)), part(PART)).left_to_cpu
    return {"left_to_cpu": len(left), "final": figures(twin.lowered)}


# ── all of it ──


def cells_of(
    name: str, seeds: Sequence[int], kinds: Sequence[str], data_dir: Path, folder: Path
) -> Iterator[tuple[Cell, Callable[[], Cell]]]:
    """What there is to measure of a network, cell by cell: what names it, and what measures it."""
    case = Case(name, 0)
    if "plan" in kinds:
        for key, measure in plans(case):
            yield {"kind": "plan", "net": name, "seed": 0, **key}, measure
    if "budget" in kinds:
        for key, measure in budgets(case):
            yield {"kind": "budget", "net": name, "seed": 0, **key}, measure
    if "arena" in kinds:
        for key, measure in arenas(case):
            yield {"kind": "arena", "net": name, "seed": 0, **key}, measure
    if "decide" in kinds:
        yield {"kind": "decide", "net": name, "seed": 0}, lambda: deciding(case)
    if "trained" in kinds:
        for seed in seeds:
            for key, measure in Training(Case(name, seed), data_dir, folder).cells():
                yield {"net": name, "seed": seed, **key}, measure


_KEYS: Final = ("kind", "net", "seed", "way", "share", "limit")


def key_of(cell: Cell) -> tuple[str, ...]:
    """What tells a cell from all others."""
    return tuple(str(cell.get(name, "")) for name in _KEYS)


def run(
    todo: Iterator[tuple[Cell, Callable[[], Cell]]], file: Path, config: Mapping[str, Any], *, name: str = "mcu"
) -> None:
    """Measures what the file does not hold yet, and writes it after every cell."""
    rows: list[Cell] = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    done = {key_of(row) for row in rows}
    for key, measure in todo:
        if key_of(key) in done:
            continue
        started = time.perf_counter()
        try:
            found = measure()
        except PrunitError as error:
            found = {"error": str(error)}
        rows.append({**key, **found, "cell_s": round(time.perf_counter() - started, 2)})
        print({k: v for k, v in rows[-1].items() if k != "widths"}, flush=True)
        n = len({(row["net"], row["seed"]) for row in rows})
        write(record(name, rows, config=config, n=n, percentile="networks and seeds", threads=1), file)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mcu", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--json", type=Path, default=RESULTS / "mcu.json", metavar="FILE", help="where to write")
    parser.add_argument("--folder", type=Path, default=None, help="where trained dense networks are kept; default: no")
    parser.add_argument("--nets", nargs="*", default=list(NETS))
    parser.add_argument("--kinds", nargs="*", default=["plan", "budget", "arena", "decide", "trained"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    options = parser.parse_args()
    config = {"part": part(PART).described, "vela": version(), "tflm": named("tflite-micro")}
    config |= {"litert": named("ai-edge-litert"), "calibration": CALIBRATION}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as own:
        folder = options.folder or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.nets:
            run(cells_of(name, options.seeds, options.kinds, options.data_dir, folder), options.json, config)


if __name__ == "__main__":
    main()
