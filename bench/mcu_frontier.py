"""How far from the best are widths that recipes choose for an Ethos-U? `python -m bench.mcu_frontier --data-dir DATA`

One network of `bench.mcu`, cut to widths drawn at random (multiples of half a block of channels), each trained as long
as the ways of `bench.mcu` are. A line through the logarithms of the widths is fitted to the accuracies; the widths that
this line ranks first within a number of cycles are trained too, with seeds that the fit has not seen, beside the plans
of prunit and of Torch-Pruning. It is an allocation that knows what accuracies cost: no recipe has that before training.

drawn    a random plan: widths, cycles by Vela, accuracy
chosen   the first of the fit within a number of cycles, and each way's plan within the same, with other seeds
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench._common import RESULTS, write
from bench._tiny_nets import NETS
from bench.mcu import EVEN, PART, Case, Cell, Training, number_of, run, torch_pruning, widths_of
from prunit.allocate import balance
from prunit.mcu.parts import part
from prunit.prices.costs import width_array
from prunit.recipe.on_parts import Asked, PartMeter
from prunit.train.accuracy import evaluate

STEP: Final = 4
"""Drawn widths are multiples of half a block."""
BAND: Final = (0.25, 0.8)
"""Cycles of drawn plans, as shares of the dense network's."""
LEVELS: Final = ("1/2", "1/3")
"""Cycles within which plans are compared."""
CANDIDATES: Final = 20_000
"""Plans that the fit ranks within each level, priced by the table of layers."""


def drawn(case: Case, amount: int) -> list[dict[str, int]]:
    """Plans at random, the same each time: a share for all groups, times one for each."""
    rng = np.random.default_rng(case.seed)
    asked = Asked(part(PART), case.blueprint)
    dense = asked.figures(case.graph.sizes)["cycles"]
    found: list[dict[str, int]] = []
    while len(found) < amount:
        widths = _random(case, rng)
        if BAND[0] <= asked.figures(widths)["cycles"] / dense <= BAND[1]:
            found.append(_named(case, widths))
    return found


def _random(case: Case, rng: np.random.Generator) -> np.ndarray:
    sizes = case.graph.sizes
    shares = rng.uniform(0.15, 0.95) * np.exp(rng.normal(0, 0.5, len(sizes)))
    widths = np.clip(np.rint(sizes * shares / STEP) * STEP, STEP, sizes).astype(int)
    return np.where(case.graph.free, widths, sizes)


def _named(case: Case, widths: np.ndarray) -> dict[str, int]:
    return {group.name: int(width) for group, width in zip(case.graph.groups, widths, strict=True)}


def fitted(case: Case, rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, float]:
    """Points of accuracy for each e-fold of a group's width (and the constant last), and the share explained.

    The share is of plans left out of the fit, each in turn.
    """
    sizes = case.graph.sizes
    return _line(np.array([np.log(np.array(row["widths"]) / sizes)[case.graph.free] for row in rows]), rows)


def explained(case: Case, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What share of the variance of accuracy single figures of a plan tell, of plans left out of the fit."""
    names = [group.name for group in case.graph.groups]
    figures = {
        "balance": [balance(case.graph, dict(zip(names, row["widths"], strict=True))) for row in rows],
        **{name: [float(np.log(row[name])) for row in rows] for name in ("cycles", "macs", "params")},
    }
    found = {name: _line(np.array(values)[:, None], rows)[1] for name, values in figures.items()}
    both = np.array([figures["macs"], figures["params"]]).T
    return {**found, "macs and params": _line(both, rows)[1], "widths": fitted(case, rows)[1]}


def _line(x: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, float]:
    x, y = np.c_[x, np.ones(len(x))], np.array([row["accuracy"] for row in rows])
    ridge = 1e-3 * np.eye(x.shape[1])
    weights = np.linalg.solve(x.T @ x + ridge, x.T @ y)
    hat = x @ np.linalg.solve(x.T @ x + ridge, x.T)
    left_out = (y - x @ weights) / (1 - np.diag(hat))
    return weights, float(1 - (left_out**2).sum() / ((y - y.mean()) ** 2).sum())


def first(case: Case, weights: np.ndarray, share: float) -> dict[str, int]:
    """Of many plans within a share of the cycles the one that the fit ranks first, held by Vela's own word."""
    rng, asked = np.random.default_rng(1), Asked(part(PART), case.blueprint)
    meter, limit = PartMeter("cycles", asked), share * asked.figures(case.graph.sizes)["cycles"]
    ranked: list[tuple[float, tuple[int, ...]]] = []
    for widths in {tuple(map(int, _random(case, rng))) for _ in range(CANDIDATES)}:
        free = np.log(np.array(widths) / case.graph.sizes)[case.graph.free]
        ranked.append((float(free @ weights[:-1]), widths))
    for _, widths in sorted(ranked, reverse=True):
        if meter(np.array(widths)) <= 1.02 * limit and meter.exact(np.array(widths)) <= limit:
            return _named(case, np.array(widths))
    raise ValueError(f"no plan within {share} of the cycles")


def theirs(training: Training, level: str) -> Iterator[tuple[str, Callable[[], dict[str, int]]]]:
    """Each way's plan within the cycles of a level; of ways by multiply-adds the one that has most of them."""
    case = training.case
    asked = Asked(part(PART), case.blueprint)
    limit = number_of(level) * asked.figures(case.graph.sizes)["cycles"]

    def ours(round_to: int | str) -> dict[str, int]:
        low, high, found = 1, 64, None
        while low <= high:
            middle = (low + high) // 2
            widths = dict(case.decided(f"macs={middle}/64", round_to=round_to)[0])
            if asked.figures(width_array(case.graph, widths))["cycles"] <= limit:
                low, found = middle + 1, widths
            else:
                high = middle - 1
        if found is None:
            raise ValueError(f"no budget in multiply-adds leaves {level} of the cycles")
        return found

    def pruned(even: bool) -> dict[str, int]:
        shares = [f"{k}/64" for k in range(48, 2, -1)]
        made = torch_pruning(training.dense, case.net, shares, even=even)
        for share in shares:
            if share in made:
                widths = widths_of(made[share], case.graph)
                if asked.figures(width_array(case.graph, widths))["cycles"] <= limit:
                    return widths
        raise ValueError(f"Torch-Pruning leaves no plan within {level} of the cycles")

    yield "cycles", lambda: dict(case.decided(f"cycles={level}@{PART}")[0])
    yield "macs", lambda: ours("auto")
    yield "torch-pruning", lambda: pruned(even=False)
    yield EVEN, lambda: pruned(even=True)


def trained_at(training: Training, widths: Mapping[str, int]) -> Cell:
    """The trained network cut to these widths and trained further: what it takes, how good it is."""
    model = training.cut_to(widths)
    told = training.case.told(widths)
    how = training.trained(model, training.settings(training.case.net.tuned, lr=training.rate))
    return {
        **{name: told[name] for name in ("widths", "macs", "params", "cycles")},
        **how,
        "accuracy": 100 * evaluate(model, training.dataset, device="cpu"),
    }


def cells(
    name: str, amount: int, seeds: Sequence[int], data_dir: Path, folder: Path, rows: Callable[[], list[Cell]]
) -> Iterator[tuple[Cell, Callable[[], Cell]]]:
    """Drawn plans first, then those that are chosen by them."""
    first_seed = Training(Case(name, 0), data_dir, folder)
    for index, widths in enumerate(drawn(first_seed.case, amount)):
        yield (
            {"kind": "drawn", "net": name, "seed": 0, "limit": index},
            lambda widths=widths: trained_at(first_seed, widths),
        )
    for level in LEVELS:
        known = [row for row in rows() if row["net"] == name and row["kind"] == "drawn"]
        weights, explained = fitted(first_seed.case, known)
        named = [g.name for g in first_seed.case.graph.groups if not g.pinned]
        fit = {"points_per_e_fold": dict(zip(named, weights[:-1].tolist(), strict=True)), "explained": explained}
        best = first(first_seed.case, weights, number_of(level))
        for seed in seeds:
            training = Training(Case(name, seed), data_dir, folder)
            key = {"kind": "chosen", "net": name, "seed": seed, "share": level}
            yield {**key, "way": "fit"}, lambda t=training, best=best, fit=fit: {**trained_at(t, best), "fit": fit}
            for way, widths_at in theirs(training, level):
                yield {**key, "way": way}, lambda t=training, widths_at=widths_at: trained_at(t, widths_at())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mcu_frontier", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--json", type=Path, default=RESULTS / "mcu_frontier.json", metavar="FILE")
    parser.add_argument("--folder", type=Path, default=None, help="where trained dense networks are kept; default: no")
    parser.add_argument("--nets", nargs="*", default=["resnet8"], choices=list(NETS))
    parser.add_argument("--drawn", type=int, default=72, metavar="N", help="random plans of each network")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = {"part": part(PART).described, "step": STEP, "band": BAND, "drawn": options.drawn}
    with tempfile.TemporaryDirectory() as own:
        folder = options.folder or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.nets:

            def rows() -> list[Cell]:
                return json.loads(options.json.read_text("utf-8"))["rows"] if options.json.exists() else []

            todo = cells(name, options.drawn, options.seeds, options.data_dir, folder, rows)
            run(todo, options.json, config, name="mcu_frontier")
            known = [row for row in rows() if row["net"] == name and row["kind"] == "drawn"]
            told = {key: round(share, 3) for key, share in explained(Case(name, 0), known).items()}
            print(f"{name}: of the variance of accuracy, plans left out of the fit: {told}")
            result = json.loads(options.json.read_text("utf-8"))
            result["config"].setdefault("explained", {})[name] = told
            write(result, options.json)


if __name__ == "__main__":
    main()
