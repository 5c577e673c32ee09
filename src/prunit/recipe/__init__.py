"""The whole flow as one readable function, its settings, and the named recipes of the papers.

- flow.py: build(), from a model and images to a portfolio
- request.py: what is wrong with a request, as far as it shows without a model (no torch)
- offered.py: the recipes by name (no torch); recipes.py: from a model and a budget to a plan
- deciding.py: the same with the engine at hand, where plans are timed
- choosing.py: of plans within a budget, the fastest that costs no accuracy
- faster.py: the plan that meets a budget of time; dial.py: the plans that it tries
- stopwatch.py, steady.py: plans timed, in turns with the dense model; again, where the machine was busy
- collapse.py: when thinning out the weights cuts the output off from the input
- devices.py: the profiles of devices that a budget or a mode names
- sweeps.py: sweep(), the best of several recipes for each budget; entrants.py: what it is told (no torch)
- ladders.py: ladder(), sparse trainings that become small models; rungs.py: what it is told (no torch)
- config.py: the settings of a build, from TOML, options and code
- folder.py: what stands in a build's folder, and whether it may be resumed
- source.py: the model and the data that a build works on
- places/: where trainings are done
- progress.py: how far it has come, and how long it will still take
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from prunit.later import resolver

if TYPE_CHECKING:
    from torch import nn

    from prunit.allocate import Budget
    from prunit.batches import Batch
    from prunit.cut.plans import Plan
    from prunit.recipe.choosing import Candidate, Chosen
    from prunit.recipe.config import BuildConfig, read_config
    from prunit.recipe.deciding import decide_here
    from prunit.recipe.flow import build
    from prunit.recipe.folder import check_folder
    from prunit.recipe.ladders import ladder
    from prunit.recipe.offered import RECIPES
    from prunit.recipe.places.on_ray import OnRay
    from prunit.recipe.progress import Step
    from prunit.recipe.recipes import Decision, decide
    from prunit.recipe.request import check_request
    from prunit.recipe.sweeps import sweep
    from prunit.scores import Saliency, Score

__all__ = [
    "RECIPES",
    "BuildConfig",
    "Candidate",
    "Chosen",
    "Decision",
    "OnRay",
    "Step",
    "build",
    "check_folder",
    "check_request",
    "decide",
    "decide_here",
    "ladder",
    "make_plan",
    "read_config",
    "sweep",
]

_HOMES: Final = {
    "BuildConfig": "config",
    "Candidate": "choosing",
    "Chosen": "choosing",
    "Decision": "recipes",
    "OnRay": "places.on_ray",
    "RECIPES": "offered",
    "Step": "progress",
    "build": "flow",
    "check_folder": "folder",
    "check_request": "request",
    "decide": "recipes",
    "decide_here": "deciding",
    "ladder": "ladders",
    "read_config": "config",
    "sweep": "sweeps",
}


def make_plan(
    model: "nn.Module",
    example: Any,
    *,
    budget: "Budget | str | Mapping[str, float | str]",
    recipe: str = "reconvene",
    score: "str | Score | Saliency | None" = None,
    seed: int = 0,
    batches: "Sequence[Batch] | None" = None,
    config: Mapping[str, Any] | None = None,
    training_example: Any = None,
) -> "Plan":
    """The channels to keep so that the model costs no more than `budget`; the model is left as it was.

    `example` and `training_example` are inputs as for `trace`. `budget` is like `{"params": 1/16}` or "macs=20M".
    `score` is a name of `prunit methods`, or a function of your own (see `scores.Saliency`); None is the recipe's.
    `batches`, a list of (x_BCHW, y_B), is needed by scores that look at data (snip, grasp, force). `config` holds
    further settings of `PruneConfig`, for example `{"evaluator": "density", "round_to": 8, "pin": ("fc",)}`. Raises
    `BudgetError` with the closest reachable point.

    A budget of time, "faster=2x" or "latency=3ms", is met by timing plans on this machine, in the inference engine on
    one thread. With `config={"measure": True}` plans of several roundings are timed, and the fastest is returned.
    """
    from torch import Tensor

    from prunit.allocate import Budget
    from prunit.errors import ScoreError
    from prunit.graph import trace
    from prunit.recipe.config import validated
    from prunit.recipe.deciding import decide_here
    from prunit.recipe.recipes import example_batch

    name, own = (score, None) if score is None or isinstance(score, str) else (None, score)
    settings = {"recipe": recipe, "score": name, "seed": seed} | dict(config or {})
    prune = validated({"prune": settings}).prune
    graph = trace(model, example, pin=prune.pin, training_example=training_example)
    try:
        return decide_here(
            *(model, graph, example, batches or [example_batch(example)], Budget.parse(budget), prune),
            measure=bool(prune.measure),
            score=own,
        ).decision.plan
    except ScoreError as error:
        if batches or isinstance(example, Tensor):
            raise
        hint = "Scores that run the model give it one tensor alone; score='magnitude' looks at its weights only"
        raise ScoreError(f"{error}. {hint}") from error


if not TYPE_CHECKING:  # to a type checker there are the names above, and no others
    # Resolved on first use: the command line reads the settings without waiting for torch.
    __getattr__ = resolver(__name__, _HOMES)
