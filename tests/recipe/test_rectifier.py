"""Which rectifier a build takes where none is asked for."""

from functools import partial

import pytest
from torch import nn

from prunit import zoo
from prunit.recipe.config import PruneConfig
from prunit.recipe.source import Source, rectifier_for
from tests.recipe import building


@pytest.mark.parametrize(
    ("model", "found"), [*((name, "reinit") for name in zoo.models()), ("timm:resnet18", "own"), ("", "own")]
)
def test_auto_by_name(model: str, found: str) -> None:
    assert rectifier_for(PruneConfig(), model) == found
    assert rectifier_for(PruneConfig(rectifier="all"), model) == "all"


def test_auto_for_what_only_has_the_name_of_a_network_of_ours() -> None:
    def resnet20() -> nn.Module:
        return nn.Linear(1, 1)

    for model in (resnet20, partial(resnet20), nn.Linear(1, 1)):
        source = Source.of(model, building.data(), seed=0)
        assert rectifier_for(PruneConfig(), source.named) == "own"
    assert rectifier_for(PruneConfig(), Source.of("resnet20", building.data(), seed=0).named) == "reinit"
