"""What another process needs to do pieces: settings as JSON, and the data set as arrays and what to know of them.

No model is sent: it is made anew by its name, and has to have the same initial weights. Nothing is pickled.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunit.batches import Dataset, Split
from prunit.errors import ConfigError
from prunit.recipe.config import BuildConfig, validated
from prunit.recipe.places.pieces import Bench
from prunit.recipe.source import Source, digest_of_weights, task_of
from prunit.tasks import Task
from prunit.zoo.data.streamed import ImageFiles

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Handed:
    """Settings that a bench is made of, in plain values that JSON has.

    `kind` says which bench ('build', 'sweep', 'ladder', or MODULE:FUNCTION that makes another one), `more` what only
    that one needs. `home` is the working folder by which names of files are meant.
    """

    kind: str
    folder: str
    home: str
    config: Mapping[str, Any]
    model: str
    weights: str
    """Digest of the initial weights."""
    pin: tuple[str, ...]
    threads: int
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def handed_for(
    kind: str,
    folder: Path,
    config: BuildConfig,
    source: Source,
    dataset: Dataset,
    *,
    pin: tuple[str, ...],
    more: Mapping[str, Any],
) -> Handed:
    """What a bench says of itself; `ConfigError` for a model or a task that no other process can make."""
    if not source.named:
        raise ConfigError(
            f"variants are to be trained in processes of their own, which make the model anew, and {source.name} was"
            " passed in: name it instead (a name of `prunit models`, FILE.py:FACTORY or PACKAGE:FACTORY), or jobs=1"
        )
    task_again(task_name(config, dataset), dataset)
    return Handed(
        kind,
        *(str(folder.resolve()), str(Path.cwd())),
        config.model_dump(mode="json"),
        source.named,
        digest_of_weights(source.make()),
        pin,
        torch.get_num_threads(),
        more,
    )


def task_name(config: BuildConfig, dataset: Dataset) -> str:
    """By which name the data set's task can be made."""
    return config.task if ":" in config.task else dataset.task.name


def task_again(name: str, dataset: Dataset) -> Task:
    """The task as another process makes it; `ConfigError` where that would be another one than the data set's."""
    asked, sent = dataset.task, "cannot be made anew in another process"
    found = task_of(name).fitted(dataset.train.y_B, dataset.image_size) if ":" in name or _known(name) else None
    if found is None or type(found).__name__ != type(asked).__name__ or _own(found) != _own(asked):
        raise ConfigError(
            f"the task of data set '{dataset.name}', {asked!r}, {sent} as '{name}': give its factory"
            " (--task FILE.py:FACTORY), or jobs=1"
        )
    return found


def _known(name: str) -> bool:
    from prunit.tasks import TASKS

    return name in TASKS


def _own(task: Task) -> dict[str, Any]:
    """What makes a task what it is: its settings, and which functions it was given."""
    functions = {name: getattr(value, "__name__", "") for name, value in vars(task).items() if callable(value)}
    return {"settings": dict(task.settings()), "functions": functions}


def packed(dataset: Dataset, task: str) -> tuple[dict[str, Any], Arrays]:
    """The data set as plain values and arrays; `task` is the name of its task."""
    parts: dict[str, Any] = {}
    arrays: Arrays = {}
    for name, part in dataset.parts.items():
        arrays[f"{name}.y"] = _array(part.y_B)
        x: Any = part.x_BCHW
        if isinstance(x, ImageFiles):
            parts[name] = {"paths": [str(path.resolve()) for path in x.paths], "size": x.size, "fit": x.fit}
        else:
            parts[name] = {}
            arrays[f"{name}.x"] = _array(x)
    about = {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "mean": list(dataset.mean_C),
        "std": list(dataset.std_C),
        "flip": dataset.flip,
        "told": dataset.told,
        "task": task,
        "parts": parts,
    }
    return about, arrays


def images_of(bench: Bench, handed: Handed) -> tuple[dict[str, Any], Arrays]:
    """The data set of a bench as `packed`; nothing where its pieces find their own."""
    if bench.dataset is None:
        return {}, {}
    return packed(bench.dataset, task_name(validated(handed.config), bench.dataset))


def unpacked(about: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Dataset:
    """The data set again, on the arrays themselves: who gets them from shared memory copies them before."""
    parts: dict[str, Split] = {}
    for name, told in about["parts"].items():
        x = (
            cast("Tensor", ImageFiles([Path(path) for path in told["paths"]], told["size"], told["fit"]))
            if told
            else torch.from_numpy(arrays[f"{name}.x"])
        )
        parts[name] = Split(x, torch.from_numpy(arrays[f"{name}.y"]))
    train = parts["train"]
    size = int(train.x_BCHW.shape[2])
    return Dataset(
        *(about["name"], train, parts["test"], tuple(about["classes"]), tuple(about["mean"]), tuple(about["std"])),
        flip=about["flip"],
        task=task_of(about["task"]).fitted(train.y_B, size),
        told=about["told"],
        watched=parts.get("watched"),
    )


def write_arrays(arrays: Arrays, folder: Path) -> dict[str, str]:
    """The arrays as files in the folder, by name: a machine has them in memory once, however many processes read."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    for name, array in arrays.items():
        file = folder / f"{name}.npy"
        np.save(file, array)
        files[name] = str(file.resolve())
    return files


def read_arrays(files: Mapping[str, str]) -> Arrays:
    """The arrays in the files, mapped: what is changed in one is a copy of this process."""
    return {name: np.load(file, mmap_mode="c") for name, file in files.items()}


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    return tensor.detach().cpu().contiguous().numpy()
