"""prunit: prune a CNN at initialisation, train what is left, export it, and keep a portfolio of variants.

    graph = prunit.trace(model, example)
    plan = prunit.plan(model, example, budget={"params": 1 / 16})
    small = prunit.compact(model, graph, plan)

Names are resolved on first use: importing prunit loads neither torch nor an inference engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from prunit.version import VERSION as __version__

if TYPE_CHECKING:
    from prunit import portfolio, zoo
    from prunit.batches import Batch, Dataset, Split
    from prunit.checkpoints import read_weights
    from prunit.cut.optimizers import cut_optimizer
    from prunit.cut.plans import Plan
    from prunit.cut.store import apply_plan, load, save
    from prunit.cut.surgery import compact, mask, rectify
    from prunit.cut.zeros import remove_zeros
    from prunit.edge.portfolio import Portfolio
    from prunit.errors import PrunitError
    from prunit.graph import ChannelGraph, trace
    from prunit.prices.costs import Cost
    from prunit.prices.costs import cost_of as cost
    from prunit.recipe import build, sweep
    from prunit.recipe import make_plan as plan

__all__ = [
    "Batch",
    "ChannelGraph",
    "Cost",
    "Dataset",
    "Plan",
    "Portfolio",
    "PrunitError",
    "Split",
    "__version__",
    "apply_plan",
    "build",
    "compact",
    "cost",
    "cut_optimizer",
    "load",
    "mask",
    "plan",
    "portfolio",
    "read_weights",
    "rectify",
    "remove_zeros",
    "save",
    "sweep",
    "trace",
    "zoo",
]

_HOMES: Final = {
    "Batch": ("prunit.batches", "Batch"),
    "ChannelGraph": ("prunit.graph", "ChannelGraph"),
    "Cost": ("prunit.prices.costs", "Cost"),
    "Dataset": ("prunit.batches", "Dataset"),
    "Plan": ("prunit.cut.plans", "Plan"),
    "Portfolio": ("prunit.edge.portfolio", "Portfolio"),
    "PrunitError": ("prunit.errors", "PrunitError"),
    "Split": ("prunit.batches", "Split"),
    "apply_plan": ("prunit.cut.store", "apply_plan"),
    "build": ("prunit.recipe", "build"),
    "compact": ("prunit.cut.surgery", "compact"),
    "cost": ("prunit.prices.costs", "cost_of"),
    "cut_optimizer": ("prunit.cut.optimizers", "cut_optimizer"),
    "load": ("prunit.cut.store", "load"),
    "mask": ("prunit.cut.surgery", "mask"),
    "plan": ("prunit.recipe", "make_plan"),
    "portfolio": ("prunit.portfolio", ""),
    "read_weights": ("prunit.checkpoints", "read_weights"),
    "rectify": ("prunit.cut.surgery", "rectify"),
    "remove_zeros": ("prunit.cut.zeros", "remove_zeros"),
    "save": ("prunit.cut.store", "save"),
    "sweep": ("prunit.recipe", "sweep"),
    "trace": ("prunit.graph", "trace"),
    "zoo": ("prunit.zoo", ""),
}


if not TYPE_CHECKING:  # to a type checker there are the names above, and no others

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'prunit' has no attribute '{name}'")
        home, attribute = _HOMES[name]
        try:
            module = import_module(home)
            return getattr(module, attribute) if attribute else module  # which may import too
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "safetensors"):
                raise
            from prunit.errors import MissingExtraError

            raise MissingExtraError(f"prunit.{name}", str(error.name), "train") from error


def __dir__() -> list[str]:
    return sorted(__all__)
