"""What a model from elsewhere must have in common with the portfolio that it joins: found out before all writing.

The first model settles it: the task, the classes, the size of the images and how they become the model's input.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from prunit.edge.names import portfolio_name
from prunit.edge.portfolio import Portfolio, Preprocessing, TaskRecord
from prunit.edge.problems import first_problem
from prunit.errors import ConfigError, ModelError
from prunit.graph.running import tensors_in
from prunit.recipe.quality import Quality
from prunit.recipe.source import task_of
from prunit.tasks import TASKS, Task, task_named
from prunit.version import VERSION

_MODES: Final = {1: "L", 3: "RGB"}
_NEEDED: Final = ("name", "metric", "fit", "output", "settings", "check_outputs")


@dataclass(frozen=True)
class Joining:
    """A model that is about to join: what the user said of it, beside what is there (`before`, None: nothing yet)."""

    folder: Path
    model: nn.Module
    example: Tensor
    before: Portfolio | None

    @classmethod
    def of(cls, folder: Path, model: nn.Module, example: Any, before: Portfolio | None) -> Self:
        """`ModelError` for an example that is not of images, or of another size than those of the portfolio."""
        if not isinstance(example, Tensor) or example.ndim != 4 or 0 in example.shape:
            given = f"of shape {tuple(example.shape)}" if isinstance(example, Tensor) else type(example).__name__
            raise ModelError(f"the example is {given}: a portfolio's models take one tensor of images, (B, C, H, W)")
        found = cls(folder, model, example, before)
        for variant in before.variants if before else ():
            if variant.artifact.input_shape != found.shape:
                raise ConfigError(
                    f"the example has images of shape {found.shape}, those of '{variant.name}' in '{folder}' have"
                    f" {variant.artifact.input_shape}: variants of a portfolio take the same input"
                )
        return found

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.example.shape
        return channels, height, width

    def task(self, asked: str | Task | None) -> tuple[Task, TaskRecord]:
        """The task, and what the manifest says of it; `ConfigError` if the portfolio has another one."""
        known = self.before.task if self.before else None
        if asked is None or isinstance(asked, str):
            name = asked or (known.name if known else "classification")
            if known is None or name != known.name:
                task = task_of(name)
            elif name in TASKS:
                task = task_named(name, known.settings)
            else:
                raise ConfigError(f"the task '{name}' of '{self.folder}' is one of your own: give it again, task=…")
        else:
            task = asked
            missing = [part for part in _NEEDED if not hasattr(task, part)]
            if missing or isinstance(task, type):
                raise ConfigError(
                    f"task={asked!r} is no task{f': it lacks {missing[0]}' if missing else ''}; give a name"
                    f" ({', '.join(TASKS)}) or an object such as prunit.tasks.Detection()"
                )
        settings: dict[str, Any] = json.loads(json.dumps(dict(task.settings())))
        if "size" in settings and settings["size"] is None:
            _, height, width = self.shape  # by it a device compares shares with pixels
            settings["size"] = height if height == width else [height, width]
        record = TaskRecord(name=task.name, metric=task.metric, settings=settings)
        if known is not None and known != record:
            raise ConfigError(
                f"'{self.folder}' is of {_task_in_words(known)}, the model that is added of {_task_in_words(record)}:"
                " choose another folder, or leave out task="
            )
        return task, record

    def outputs(self) -> Any:
        """What the model returns for the example in evaluation mode; its modes stay as they were."""
        modes = [(module, module.training) for module in self.model.modules()]
        weight = next(self.model.parameters(), self.example)
        try:
            with torch.no_grad():
                return self.model.eval()(self.example.to(weight.device))
        except Exception as error:  # whatever the user's forward raises
            why = " ".join(str(error).split())[:200]
            shape = tuple(self.example.shape)
            raise ModelError(f"the model fails on images of shape {shape}: {type(error).__name__}: {why}") from error
        finally:
            for module, mode in modes:
                module.training = mode

    def portfolio(
        self,
        task: Task,
        record: TaskRecord,
        outputs: Any,
        *,
        classes: Sequence[str],
        preprocessing: Preprocessing | Mapping[str, Any] | None,
        data: str,
    ) -> Portfolio:
        """The portfolio before the model is in it; `ConfigError` or `ModelError` where both contradict each other."""
        if isinstance(classes, str):
            raise ConfigError(f"classes='{classes}' is one text: give a list of names")
        twice = next((name for name in classes if list(classes).count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"classes names '{twice}' twice: labels are matched by name, so each needs its own")
        names = tuple(map(str, classes)) or (self.before.classes if self.before else _numbered(task, record, outputs))
        if self.before is not None and names != self.before.classes:
            raise ConfigError(
                f"'{self.folder}' is of {_some(self.before.classes)}, the model that is added of {_some(names)}:"
                " variants of a portfolio tell the same classes apart, in the same order"
            )
        self._check_outputs(task, outputs, names)
        if self.before is not None and preprocessing is None:
            return self.before
        how = self._preprocessing(task, preprocessing)
        if self.before is None:
            model = type(self.model).__name__
            return Portfolio(
                name=portfolio_name(model, data),
                model=model,
                data=data,
                task=record,
                classes=names,
                preprocessing=how,
                prunit_version=VERSION,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        if how != self.before.preprocessing:
            field = next(f for f in type(how).model_fields if getattr(how, f) != getattr(self.before.preprocessing, f))
            raise ConfigError(
                f"'{self.folder}' has the preprocessing {field}={getattr(self.before.preprocessing, field)}, the model"
                f" that is added {getattr(how, field)}: all its variants get the same images"
            )
        return self.before

    def _check_outputs(self, task: Task, outputs: Any, classes: Sequence[str]) -> None:
        """Of several outputs the first is what the task looks at."""
        tensors = tensors_in(outputs)
        first = outputs if isinstance(outputs, Tensor) or not tensors else tensors[0]
        _, height, width = self.shape
        if height == width:  # tasks name the size of an image by one number
            task.check_outputs(first, len(self.example), classes, height, where="in evaluation mode")

    def _preprocessing(self, task: Task, asked: Preprocessing | Mapping[str, Any] | None) -> Preprocessing:
        channels, *size = self.shape
        default: dict[str, Any] = {
            "mean": (0.0,) * channels,
            "std": (1.0,) * channels,
            "channels": _MODES.get(channels, str(channels)),
            "size": tuple(size),
            "fit": task.fit,
        }
        given = asked.model_dump() if isinstance(asked, Preprocessing) else dict(asked or {})
        try:
            found = Preprocessing.model_validate({**default, **given})
        except ValidationError as error:
            raise ConfigError(f"preprocessing: {first_problem(error, Preprocessing)}") from None
        for part, numbers in (("mean", found.mean), ("std", found.std)):
            if len(numbers) != channels:
                raise ConfigError(f"preprocessing: {part} has {len(numbers)} numbers, the images {channels} channels")
        if found.size != tuple(size):
            raise ConfigError(f"preprocessing: size is {found.size}, but the example's images have {tuple(size)}")
        return found


def quality_of(metrics: Mapping[str, Any] | None, accuracy: float | None, task: TaskRecord) -> Quality:
    """What the user says of a model; `ConfigError` for what is no number, and where the main metric is missing."""
    given = dict(metrics or {})
    if accuracy is not None:
        if task.metric != "accuracy":
            raise ConfigError(f"accuracy={accuracy}: the main metric of {task.name} is {task.metric}, name that")
        given["accuracy"] = accuracy
    scores = {name: _number(name, value) for name, value in given.items()}
    if scores and task.metric not in scores:
        raise ConfigError(
            f"metrics has {', '.join(scores)} but not {task.metric}, the main metric of {task.name}: variants are"
            " compared by that"
        )
    main = scores.get(task.metric)
    if main is not None and main > 1:
        raise ConfigError(f"metrics: {task.metric}={main:g} is above 1, which is perfect: write shares, 0.91 for 91 %")
    return Quality(main, scores)


def _number(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"metrics: {name}={value!r} is not a number")
    return number


def _numbered(task: Task, record: TaskRecord, outputs: Any) -> tuple[str, ...]:
    """Names for the classes that nobody named, as many as the first output tells apart."""
    tensors = tensors_in(outputs)
    shape = tuple(tensors[0].shape) if tensors else ()
    turned = bool(record.settings.get("channels_first"))
    number = {
        "classification": shape[1] if len(shape) == 2 else 0,
        "multilabel": shape[1] if len(shape) == 2 else 0,
        "regression": shape[1] if len(shape) == 2 else 0,
        "segmentation": shape[1] if len(shape) == 4 else 0,
        "detection": shape[1 if turned else 2] - 4 if len(shape) == 3 else 0,
    }.get(task.name, 0)
    return tuple(map(str, range(max(number, 0))))


def _task_in_words(task: TaskRecord) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in task.settings.items() if value is not None)
    return f"{task.name}{f' ({settings})' if settings else ''}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    return f"{len(names)} classes ({shown})"
