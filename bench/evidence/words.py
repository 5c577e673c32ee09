"""Figures of the cells as words in a table."""

from collections.abc import Sequence

from bench.evidence.arms import DEFAULT
from bench.evidence.cells import Cell
from bench.evidence.pairs import Compared, Spread


def to_pruned_s(cell: Cell) -> float:
    """Seconds from the untrained dense model to the pruned one, with a training of the dense one if it takes that."""
    return cell["seconds"]["prune"] + cell["seconds"].get("train_dense", 0.0)


def shown(arm: str) -> str:
    """An arm's name in a table; the default stands out."""
    return f"**{arm}**" if arm == DEFAULT else arm


def percent(found: Spread, scale: float = 100) -> str:
    """Mean ± deviation (number) of accuracies, in percent."""
    deviation = f" ± {scale * found.sd:.2f}" if found.n > 1 else ""
    return f"{scale * found.mean:.2f}{deviation} ({found.n})"


def difference(test: Compared) -> Sequence[str]:
    """Mean, interval and number of pairs."""
    interval = f"{test.low:+.2f} to {test.high:+.2f}" if test.n > 1 else "–"
    return f"{test.mean:+.2f}", interval, str(test.n)


def missing(what: str) -> str:
    """The words that stand where a figure would."""
    return f"**Not measured yet**: {what} are missing."
