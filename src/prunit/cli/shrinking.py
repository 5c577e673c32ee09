"""`prunit shrink`: a checkpoint with zeros as a small model, and what that took."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from prunit import zoo
from prunit.batches import Dataset
from prunit.cli.planning import model_and_image
from prunit.cli.progress import Bars
from prunit.costs import Cost, cost_of
from prunit.errors import FileError, ModelError
from prunit.export import EXPORTERS
from prunit.graph import trace
from prunit.recipe.source import example_of
from prunit.store import save
from prunit.train import evaluate
from prunit.zeros import remove_zeros, without_small_filters

_NESTED: Final = ("state_dict", "model_state_dict", "model")
"""Under which key trainers keep the state dict of a checkpoint."""
_PREFIXES: Final = ("module.", "model.", "_orig_mod.", "net.")
"""What DDP, Lightning and torch.compile put in front of every name."""
_ORIGINAL: Final = "_orig"
_MASK: Final = "_mask"
"""Endings that torch.nn.utils.prune gives to a weight and to its mask."""


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
    accuracy: tuple[float, float] | None = None

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
    tolerance: float,
    export: bool,
    bars: Bars,
) -> Shrunk:
    """Write the small model to `out`, and an ONNX file beside it with `export`.

    Raises `FileError` for a checkpoint that is none or not of this model.
    """
    if dataset is None:
        model, example = model_and_image(name, *built_for)
    else:
        size, channels = dataset.image_size, dataset.channels
        model = zoo.load(name, num_classes=len(dataset.classes), in_channels=channels, image_size=size)
        example = example_of(dataset)
    bars.tell(name, "check", 0, 0)
    fill(model, state_of(checkpoint), checkpoint)
    model.eval()
    started = perf_counter()
    graph = trace(model, example)
    source = without_small_filters(model, tolerance) if tolerance else model
    removed = remove_zeros(source, example, graph=graph)
    seconds = perf_counter() - started
    accuracy = None
    if dataset is not None:
        bars.tell(name, "evaluate", 0, 0)
        accuracy = (evaluate(model, dataset), evaluate(removed.model, dataset))
    save(removed.model, removed.plan, out)
    files = [str(out)]
    if export:
        bars.tell(name, "export", 0, 0)
        artifact = EXPORTERS["onnx"](removed.model, example, out.parent, name=out.stem)
        files.append(str(out.parent / artifact.path))
    weights = [dict(model.named_parameters())[layer.weight] for layer in graph.layers]
    zeros = sum(int((w == 0).sum()) for w in weights) / max(sum(w.numel() for w in weights), 1)
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
        accuracy=accuracy,
    )


def state_of(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; masks of torch.nn.utils.prune are applied."""
    try:
        found: Any = load_file(file) if file.suffix == ".safetensors" else _torch_file(file)
    except FileNotFoundError as error:
        raise FileError(f"there is no checkpoint '{file}'") from error
    except (SafetensorError, OSError) as error:
        raise FileError(f"'{file}' is no whole .safetensors file: {error}") from error
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        raise FileError(f"'{file}' holds no state dict: save it with torch.save(model.state_dict(), FILE)")
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    masked = [name.removesuffix(_ORIGINAL) for name in tensors if name.endswith(_ORIGINAL)]
    for name in masked:
        mask = tensors.pop(name + _MASK, None)
        original = tensors.pop(name + _ORIGINAL)
        tensors[name] = original if mask is None else original * mask
    return tensors


def fill(model: nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    """Put a state dict into the model; `FileError` names the first tensor that does not fit."""
    own = model.state_dict()
    prefix = next((p for p in _PREFIXES if all(n.startswith(p) for n in state) and not state.keys() & own.keys()), "")
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    for name, tensor in own.items():
        if name not in state and not name.endswith("num_batches_tracked"):
            raise FileError(f"'{file}' lacks '{name}' of shape {tuple(tensor.shape)}: is it of another model?")
        if name in state and state[name].shape != tensor.shape:
            shapes = f"{tuple(state[name].shape)} in it and {tuple(tensor.shape)} in the model"
            raise FileError(f"'{file}': '{name}' has shape {shapes}; shrink takes the dense shapes, with zeros in them")
    unknown = next((name for name in state if name not in own), None)
    if unknown:
        raise FileError(f"'{file}' has a tensor '{unknown}' that the model lacks: is it of another model?")
    bad = next((n for n, t in state.items() if t.is_floating_point() and not t.isfinite().all()), None)
    if bad:
        raise ModelError(f"'{file}': '{bad}' holds values that are not finite; the training diverged")
    model.load_state_dict(dict(state), strict=False)


def _torch_file(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:120]
        raise FileError(
            f"cannot read '{file}' as tensors alone ({why}): save a state dict, torch.save(model.state_dict(), FILE)"
        ) from error
