"""What a build works on: a model that can be made anew, and the data that it is trained on."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from prunit import user, zoo
from prunit.batches import Dataset
from prunit.cut.surgery import Rectify, copied
from prunit.edge.tasks import DeviceTask
from prunit.errors import ConfigError, ModelError, PrunitError
from prunit.recipe.config import BuildConfig, PruneConfig, StartConfig
from prunit.tasks import Task, task_named

if TYPE_CHECKING:
    from prunit.export.translation import Translation

ModelLike = str | nn.Module | Callable[[], nn.Module]
"""A name that `zoo.load` knows, a model, or a callable that returns one."""


@dataclass(frozen=True)
class Source:
    """A dense model by the name that reports show, and a function that makes it with the same weights each time."""

    name: str
    make: Callable[[], nn.Module]
    named: str = ""
    """The name by which `zoo.load` makes it; '' for a module or a callable, whatever they are called."""
    redrawn: tuple[str, ...] = ()
    """Tensors of the head that a file of weights for other classes did not have."""
    told: str = ""
    """Which weights were taken from a file, in words; '' where there is nothing to say."""

    @staticmethod
    def of(model: ModelLike, dataset: Dataset, *, seed: int, start: StartConfig | None = None) -> "Source":
        """The source of a name (built for the data set's classes, channels and size), a model or a callable.

        With weights in `start` those of that file, see `checkpoints.read_weights`, which raises what is wrong with it.
        A head of other classes stays as it was drawn.
        """
        source = Source._bare(model, dataset, seed=seed)
        return source.with_weights(Path(start.weights), start.key) if start and start.weights else source

    def with_weights(self, file: Path, key: str | None = None) -> "Source":
        """The same model with the weights in a file."""
        from prunit.checkpoints import read_weights

        found = read_weights(file, self.make(), key=key, other_classes=True)

        def make() -> nn.Module:
            model = self.make()
            model.load_state_dict(found.tensors, strict=False)
            return model

        return replace(self, make=make, redrawn=found.redrawn, told=found.told)

    @staticmethod
    def _bare(model: ModelLike, dataset: Dataset, *, seed: int) -> "Source":
        if isinstance(model, str):
            factory = zoo.factory(
                model,
                num_classes=len(dataset.classes),
                in_channels=dataset.channels,
                image_size=dataset.image_size,
                seed=seed,
            )
            return Source(model, factory, named=model)
        if isinstance(model, nn.Module):
            return Source(type(model).__name__, partial(_copied, model))
        return Source(_name(model), lambda: _seeded(model, seed))


def rectifier_for(prune: PruneConfig, model_name: str) -> Rectify:
    """The rectifier of a model by its name in `zoo.load` ('' for one without): what `auto` means for it.

    The networks of prunit's zoo begin He-normal, as what `reinit` draws does. Others begin as their authors meant, and
    the dense model of a build keeps that: what is drawn for its variants is drawn alike.
    """
    if prune.rectifier != "auto":
        return prune.rectifier
    return "reinit" if model_name in zoo.models() else "own"


def _copied(model: nn.Module) -> nn.Module:
    return copied(model).cpu()


def _name(factory: Callable[[], nn.Module]) -> str:
    inner = factory.func if isinstance(factory, partial) else factory
    name = getattr(inner, "__name__", type(inner).__name__)
    return name if name.isidentifier() else "model"  # a lambda has no name to show


def _seeded(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        model = factory()
    if not isinstance(model, nn.Module):
        raise ModelError(f"{factory!r} returned a {type(model).__name__}, not an nn.Module")
    return model


def example_of(dataset: Dataset) -> Tensor:
    """One normalised test image: x_BCHW with B = 1."""
    return dataset.normalise(dataset.test.x_BCHW[:1])


def loaded(data: str | Dataset, config: BuildConfig) -> Dataset:
    """The data set by that name, or the one given; cut to `config.subset` and found complete."""
    from prunit.train.accuracy import check_split

    task = task_of(config.task)
    if isinstance(data, str):
        dataset = zoo.data.load(
            data, subset=config.subset, image_size=config.image_size, task=task, skip_broken=config.skip_broken
        )
    else:
        dataset = data
        if config.image_size not in (None, dataset.image_size):
            raise ConfigError(
                f"image_size={config.image_size}, but the images of '{dataset.name}' have {dataset.image_size} pixels a"
                " side and a Dataset that is passed in is not resized: load it by its name, or resize it before"
            )
    if dataset.task.name == "classification" and task.name != "classification":
        dataset = replace(dataset, task=task)  # a factory, or arrays, of which only the settings say what they are for
    if config.subset and len(dataset.train) > config.subset:
        dataset = dataset.subset(config.subset, seed=0)
    for part in dataset.parts:
        check_split(dataset, part)
    return zoo.data.measured(dataset)


def task_of(name: str) -> Task:
    """The task of that name, or what a factory of the user's (FILE.py:FACTORY) returns, found to be complete."""
    if ":" not in name:
        return task_named(name)
    made = user.call(name, {}, error=ConfigError)
    needed = [n for n in (*vars(Task), *vars(DeviceTask)) if not n.startswith("_")]
    missing = sorted({n for n in needed if not hasattr(made, n)})
    if missing:
        raise ConfigError(
            f"task '{name}' is an object of type {type(made).__name__} without {', '.join(missing)}: inherit from one"
            " of prunit.tasks, or from prunit.tasks.Judging, and add them"
        )
    return cast("Task", made)


def check_exports(dense: nn.Module, dataset: Dataset) -> "Translation":
    """What torch makes of the model for ONNX; `ModelError` if it cannot be exported.

    Better known now than when it is trained. A `Stopwatch` of the same model takes the translation, to save doing it
    again.
    """
    from prunit.export import export_onnx

    found: list[Translation] = []
    with TemporaryDirectory(prefix="prunit-") as folder:
        export_onnx(dense, example_of(dataset), Path(folder), name="dense", on_translated=found.append)
    return found[0]


def check_trains(model: nn.Module, dataset: Dataset) -> None:
    """`ModelError` unless the model in training mode, too, gives what its task has a loss for; statistics may change.

    And `ConfigError` unless that loss is one finite number, which can be lowered.
    """
    task, images = dataset.task, min(2, len(dataset.train))
    x_BCHW, y_B = dataset.normalise(dataset.train.x_BCHW[:images]), dataset.train.y_B[:images]
    where = f"in training mode the model fails on images of shape {tuple(x_BCHW.shape)}"
    with torch.random.fork_rng(devices=[]):
        try:
            found = model.train()(x_BCHW)
        except PrunitError:
            raise
        except Exception as error:
            raise ModelError(f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
        task.check_training_outputs(found, images, dataset.classes, dataset.image_size, where="in training mode")
        _check_loss(task, found, y_B)


def _check_loss(task: Task, outputs: Any, y_B: Tensor) -> None:
    where = f"the loss of task '{task.name}' on {len(y_B)} training images (targets {tuple(y_B.shape)})"
    try:
        loss = task.loss(outputs, y_B, smoothing=0.0)
    except PrunitError:
        raise
    except Exception as error:
        raise ConfigError(f"{where} fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        given = f"{loss.dtype} {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise ConfigError(f"{where} is {given}: it must be one floating-point number, their mean")
    if not bool(torch.isfinite(loss)):
        raise ConfigError(f"{where} is {float(loss.detach())} before any training: nothing can be learnt from it")
    if not loss.requires_grad:
        raise ConfigError(f"{where} does not depend on the model's weights: compute it from what the model returned")


def digest_of_weights(model: nn.Module) -> str:
    """16 hex digits that differ for models with different parameters or buffers."""
    digest = hashlib.sha256()
    for name, tensor in (dict(model.named_parameters()) | dict(model.named_buffers())).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def digest_of_data(dataset: Dataset) -> str:
    """16 hex digits that differ for data sets with different labels, or other pixels in some of their images."""
    from prunit.train.accuracy import digest_of_images

    return digest_of_images(*dataset.parts.values())


def settings_of_build(config: BuildConfig, source: Source, dense: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """What a resumed build must have in common with the one that it continues."""
    from prunit.train import fitted_to

    training = fitted_to(config.train, dataset)
    # In numbers and by name: another version might find others for the same data set and model.
    train = config.train.model_copy(update={"epochs": training.epochs, "batch_size": training.batch_size})
    prune = config.prune.model_copy(update={"rectifier": rectifier_for(config.prune, source.named)})
    return config.model_copy(update={"train": train, "prune": prune}).model_dump(mode="json") | {
        "model": source.name,
        "data": dataset.name,
        "images": [len(part) for part in dataset.parts.values()],
        "digest of the images": digest_of_data(dataset),
        "digest of the initial weights": digest_of_weights(dense),
    }
