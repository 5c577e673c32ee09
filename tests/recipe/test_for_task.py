"""What `auto` means for a task."""

import pytest

from prunit.recipe.config import validated
from prunit.recipe.opening import for_task
from prunit.tasks import task_named


@pytest.mark.parametrize(
    ("task", "asked", "found"),
    [
        ("classification", "auto", "auto"),
        ("detection", "auto", "prune"),
        ("segmentation", "auto", "prune"),
        ("detection", "keep", "keep"),
        ("detection", "prune", "prune"),
    ],
)
def test_streams_shrink_like_other_layers_but_for_classes(task: str, asked: str, found: str) -> None:
    config = validated({"prune": {"residual": asked}, "by_variant": {"macs-1-2": {"seed": 3}}})
    fitting = for_task(config, task_named(task))
    assert fitting.prune.residual == found
    assert fitting.prune_of("macs-1-2").residual == found
    assert fitting.model_copy(update={"prune": config.prune}) == config
