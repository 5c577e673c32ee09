"""What a plan may need to know of a device: meters of the profiles and parts that a budget or a setting names."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prunit.allocate import MEASURED, Budget, Meter
from prunit.errors import ConfigError
from prunit.graph import ChannelGraph
from prunit.prices.meters import EnergyMeter, LatencyMeter
from prunit.recipe.config import PruneConfig
from prunit.recipe.request import profiles_of

if TYPE_CHECKING:
    from prunit.recipe.blueprint import Blueprint


def meters_of(
    graph: ChannelGraph, budget: Budget, config: PruneConfig, blueprint: "Blueprint | None" = None
) -> Mapping[str, Meter]:
    """By figure what predicts it; `ModelError` where a profile does not cover the graph's layers.

    The `blueprint` of the model is for limits on parts; without one these are a `ConfigError`.
    """
    if budget.on_parts and blueprint is None:
        limits = ", ".join(map(str, budget.on_parts))
        raise ConfigError(f"budget {limits} asks a part about the model itself, and here there is only its graph")
    of_profiles: dict[str, Meter] = {
        figure: LatencyMeter(graph, profile, source=f"'{file}'")
        if figure == MEASURED["latency"]
        else EnergyMeter(graph, profile)
        for figure, (file, profile) in profiles_of(budget, config).items()
    }
    if not budget.on_parts or blueprint is None:
        return of_profiles
    from prunit.recipe.on_parts import meters_on_parts

    return of_profiles | meters_on_parts(budget.on_parts, blueprint)


def step_of(meter: Meter) -> int:
    """The channels that widths should be multiples of where this meter tells what they take."""
    step = getattr(meter, "step", 1)  # of a `PartMeter`
    return step if isinstance(step, int) else 1
