"""`prunit shrink`: a checkpoint with zeros as a small model, and what that took."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from prunit import zoo
from prunit.batches import Dataset
from prunit.checkpoints import read_weights
from prunit.cli.planning import model_and_image
from prunit.cli.progress import Bars
from prunit.cut.store import save
from prunit.cut.zeros import without_small_filters
from prunit.export import EXPORTERS
from prunit.graph import trace
from prunit.graph.computed import effective
from prunit.prices.costs import Cost, cost_of
from prunit.recipe.config import PadTo
from prunit.recipe.padding import with_origin, without_zeros
from prunit.recipe.source import example_of
from prunit.train import evaluate


@dataclass(frozen=True)
class Shrunk:
    """What was removed, and what the model costs before and after; accuracies where a data set was given."""

    dense: Cost
    small: Cost
    zeros: float
    """Share of the weights of convolutions and linear layers that were zero in the checkpoint."""
    unread: int
    constants: int
    merged: int
    channels: tuple[int, int]
    """Before and after."""
    error: float
    tolerance: float
    seconds: float
    files: tuple[str, ...]
    weights: str = ""
    """Which weights of the checkpoint were taken, '' where there is nothing to say."""
    accuracy: tuple[float, float] | None = None
    padding: dict[str, Any] = field(default_factory=dict)
    """Channels that stayed for the engine's sake, of how many groups, how many times faster, and that in a line."""

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def shrunk(
    name: str,
    checkpoint: Path,
    out: Path,
    dataset: Dataset | None,
    built_for: tuple[str, int],
    *,
    key: str | None = None,
    tolerance: float,
    export: bool,
    pad: PadTo = "off",
    bars: Bars,
) -> Shrunk:
    """Write the small model to `out`, and an ONNX file beside it with `export`; `pad` as in `without_zeros`.

    `key` says which weights of the checkpoint, see `read_weights`, which raises what is wrong with it.
    """
    if dataset is None:
        model, example = model_and_image(name, *built_for)
    else:
        size, channels = dataset.image_size, dataset.channels
        model = zoo.load(name, num_classes=len(dataset.classes), in_channels=channels, image_size=size)
        example = example_of(dataset)
    bars.tell(name, "check", 0, 0)
    weights = read_weights(checkpoint, model, key=key)
    model.load_state_dict(weights.tensors, strict=False)
    model.eval()
    started = perf_counter()
    graph = trace(model, example)
    source = without_small_filters(model, tolerance) if tolerance else model
    padding = without_zeros(
        source, example, graph=graph, pad=pad, on_timed=lambda done, total: bars.tell(name, "measure", done, total)
    )
    removed, plan = padding.removed, with_origin(padding.removed.plan, padding)
    seconds = perf_counter() - started
    accuracy = None
    if dataset is not None:
        bars.tell(name, "evaluate", 0, 0)
        accuracy = (evaluate(model, dataset), evaluate(removed.model, dataset))
    save(removed.model, plan, out)
    files = [str(out)]
    if export:
        bars.tell(name, "export", 0, 0)
        artifact = EXPORTERS["onnx"](removed.model, example, out.parent, name=out.stem)
        files.append(str(out.parent / artifact.path))
    named = effective(model, dict(model.named_parameters()))
    layers = [named[layer.weight] for layer in graph.layers]
    zeros = sum(int((w == 0).sum()) for w in layers) / max(sum(w.numel() for w in layers), 1)
    return Shrunk(
        dense=cost_of(graph),
        small=cost_of(graph, removed.plan),
        zeros=zeros,
        unread=removed.unread,
        constants=removed.constants,
        merged=removed.merged,
        channels=(sum(removed.plan.dense.values()), sum(removed.plan.widths.values())),
        error=removed.error,
        tolerance=tolerance,
        seconds=seconds,
        files=tuple(files),
        weights=weights.told,
        accuracy=accuracy,
        padding=padding.as_dict(),
    )
