"""Plans for a fleet as a step of a build: made with its data, on its device, and found again when it goes on."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from prunit.allocate import Budget
from prunit.batches import Dataset
from prunit.edge.served import Fleet
from prunit.graph import ChannelGraph
from prunit.recipe.config import BuildConfig
from prunit.recipe.fleets.planning import Planned, planned_for
from prunit.recipe.progress import Progress
from prunit.train import device_named


def before(folder: Path, progress: Progress, *, resume: bool) -> Fleet | None:
    """Who is served by what, as the build in a folder found when it was begun: all its plans are there then.

    Whom nothing serves is told again.
    """
    fleet = Fleet.read(folder) if resume else None
    for each in fleet.unserved if fleet else ():
        progress("all", "plan", 0, 0, f"no variant for device '{each.device}': {each.problem}")
    return fleet


def planned_here(
    config: BuildConfig,
    dataset: Dataset,
    graph: ChannelGraph,
    dense: nn.Module,
    budgets: Mapping[str, Budget | None],
    progress: Progress,
) -> Planned:
    """The plans for the fleet of a build; `budgets` hold those of its devices. What there is to say is told."""
    prune, place = config.prune, device_named(config.train.device)
    batches = dataset.scoring_batches(per_class=prune.per_class, batch_size=256, seed=prune.seed)

    def on_device(name: str, told: str) -> None:
        if told:
            progress("all", "plan", 0, 0, told)
        else:
            progress(name, "prune", 0, 0)

    try:
        planned = planned_for(
            *(dense.to(place), graph, batches.to(place), {name: each for name, each in budgets.items() if each}, prune),
            slack=config.fleet.slack,
            on_device=on_device,
        )
    finally:
        dense.to("cpu")
    progress("all", "plan", 0, 0, in_words(planned.fleet))
    return planned


def in_words(fleet: Fleet) -> str:
    """How many variants serve how many devices, in a line."""
    served = [each for each in fleet.devices if each.variant]
    variants = len(fleet.variants)
    return (
        f"{variants} variant{'s' * (variants != 1)} for {len(served)} device{'s' * (len(served) != 1)}: "
        + "; ".join(
            f"{variant} for {', '.join(each.device for each in served if each.variant == variant)}"
            for variant in fleet.variants
        )
    )
