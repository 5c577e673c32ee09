"""A training between two epochs as one safetensors file: written whole or not at all, read back or refused in one line.

Tensors are named `model.<parameter or buffer>` and `momentum.<parameter>` (with AdamW `exp_avg.`, `exp_avg_sq.` and
`step.<parameter>`), with an average of the weights `live.<parameter or buffer>` too; the metadata holds the finished
epochs, a fingerprint of what is trained on what and how, and a digest of the tensors. Nothing is pickled.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from prunit.batches import Dataset
from prunit.errors import FileError
from prunit.files import write_atomically
from prunit.train.config import Epoch
from prunit.train.defaults import Fitted

KIND: Final = "prunit training checkpoint 1"

_ELSEWHERE: Final = ("device", "devices", "channels_last")
_TAUGHT: Final = ("distill", "temperature")
LATER: Final = ("optimizer", "clip", "ema", "balance", "flip", "jitter", "mixup", "cutmix")
"""Settings that older versions did not have: as they are by default they say nothing."""

Fingerprint = dict[str, dict[str, object]]
"""'setting', 'tensor' and 'data' → name → value, in values that JSON gives back as they were."""


@dataclass(frozen=True, eq=False)
class State:
    """A training after some epochs; the tensors are on the CPU and belong to nobody else."""

    tensors: dict[str, Tensor]
    history: tuple[Epoch, ...]
    scaler: dict[str, float]
    """State of the loss scaler of 16-mixed precision, else empty."""
    place: tuple[str, str] = ("", "")
    """Type of the device and precision that it ran in; '' in checkpoints that are older than this note."""


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers (those that a state_dict leaves out, too) by name, each once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def fingerprint(
    model: nn.Module,
    dataset: Dataset,
    config: Fitted,
    *,
    masks: Mapping[str, Tensor] | None = None,
    first: int = 0,
    teacher: nn.Module | None = None,
) -> Fingerprint:
    """What must be the same for a training to be continued; where it runs may differ."""
    later = {name for name in LATER if getattr(config, name) == type(config).model_fields[name].default}
    settings = config.model_dump(mode="json", exclude={*_ELSEWHERE, *(() if config.distill else _TAUGHT), *later})
    settings |= {"weight_decay": config.decay, "label_smoothing": config.smoothing}
    # Where there are none it says nothing, so that trainings of older versions can be continued.
    settings |= {"digest of the masks": _digest(dict(masks))} if masks else {}
    settings |= {"epochs left out": first} if first else {}
    settings |= {"digest of the teacher": _digest(model_tensors(teacher))} if teacher is not None else {}
    tensors = {
        name: f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in model_tensors(model).items()
    }
    data: dict[str, object] = {
        "name": dataset.name,
        "training images": len(dataset.train),
        "test images": len(dataset.test),
        "image shape": list(dataset.train.x_BCHW.shape[1:]),
        "mean": list(dataset.mean_C),
        "deviation": list(dataset.std_C),
        "mirroring": dataset.flip,
        "digest of the labels": _digest({"y": dataset.train.y_B}),
    }
    data |= {"watched images": len(dataset.watched)} if dataset.watched is not None else {}
    return {"setting": settings, "tensor": dict(tensors), "data": data}


def save(path: Path, state: State, mark: Fingerprint) -> None:
    """Write `state` so that, whenever the process or the machine stops, `path` holds all of the old or of the new."""
    metadata = {
        "kind": KIND,
        "fingerprint": json.dumps(mark),
        "history": json.dumps([asdict(epoch) for epoch in state.history]),
        "scaler": json.dumps(state.scaler),
        "place": json.dumps(state.place),
        "digest": _digest(state.tensors),
    }
    write_atomically(path, to_bytes(state.tensors, metadata))


def load(path: Path, mark: Fingerprint) -> State | None:
    """The training that `path` holds, or None without such a file; FileError if it is broken or another's."""
    try:
        path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"cannot read the checkpoint '{path}': {error.strerror or error}") from error
    state, found = _read(path)
    settings = found.get("setting", {})
    if settings.get("precision") == "auto" != mark.get("setting", {}).get("precision"):
        settings["precision"] = state.place[1] or "32-true"  # what it came to; long ago, on a CPU, always that
    _compare(path, found, mark)
    return state


def _read(path: Path) -> tuple[State, Fingerprint]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise FileError(
            f"the checkpoint '{path}' cannot be read ({error}): remove it to train from the start"
        ) from error
    if metadata.get("kind") != KIND:
        raise FileError(f"'{path}' is not a {KIND}: give another path or remove it")
    try:
        history = tuple(Epoch(**record) for record in json.loads(metadata["history"]))
        device, precision = json.loads(metadata.get("place", '["", ""]'))
        state = State(tensors, history, json.loads(metadata["scaler"]), (str(device), str(precision)))
        found: Fingerprint = json.loads(metadata["fingerprint"])
        intact = metadata["digest"] == _digest(tensors)
    except (KeyError, TypeError, ValueError):
        intact, state, found = False, None, {}
    if state is None or not intact:
        raise FileError(f"the checkpoint '{path}' is damaged: remove it to train from the start")
    return state, found


def _compare(path: Path, found: Fingerprint, mark: Fingerprint) -> None:
    # Through JSON, so that both sides have passed it (tuples are lists, 1.0 and 1 stay apart).
    now: Fingerprint = json.loads(json.dumps(mark))
    for kind, values in now.items():
        there = found.get(kind, {})
        for name in [*values, *(name for name in there if name not in values)]:
            if there.get(name) != values.get(name):
                raise FileError(
                    f"the checkpoint '{path}' belongs to another training: {kind} '{name}' is "
                    f"{_shown(there, name)} there and {_shown(values, name)} here; "
                    f"remove the file, or do not resume"
                )


def _shown(values: Mapping[str, object], name: str) -> str:
    return str(values[name]) if name in values else "missing"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
