"""Which choices of a training go with which task."""

from prunit.batches import Dataset
from prunit.errors import ConfigError
from prunit.tasks import Classification
from prunit.train.config import TrainConfig


def check_choices(config: TrainConfig, dataset: Dataset) -> None:
    """`ConfigError` for a choice that means nothing for the data set's task."""
    task = dataset.task
    for name in ("mixup", "cutmix"):
        value = getattr(config, name)
        if value and task.name != "classification":
            raise ConfigError(
                f"training setting '{name}' = {value:g} mixes images of two classes; the task of data set"
                f" '{dataset.name}' is {task.name}: leave it 0, and try 'jitter'"
            )
    if config.distill and not isinstance(task, Classification):
        raise ConfigError(
            f"training setting 'distill' = {config.distill:g} compares a teacher's scores of classes with the model's;"
            f" the task of data set '{dataset.name}' is {task.name}: leave it 0"
        )
    if config.balance == "weights" and getattr(type(task), "loss", None) is not Classification.loss:
        raise ConfigError(
            f"training setting 'balance' = 'weights' is of the cross-entropy of classification; the task of data set"
            f" '{dataset.name}' is {task.name}: use 'sampler', or weigh in the task's own loss"
        )
    if config.balance == "sampler" and len(task.strata(dataset.train.y_B).unique()) < 2:
        raise ConfigError(
            f"training setting 'balance' = 'sampler' draws images of each class equally often; {task.name} tells all"
            f" training images of data set '{dataset.name}' to be of one kind: leave it 'none'"
        )
