"""Read a model as groups of channels that must shrink together."""

from typing import TYPE_CHECKING

from prunit.graph.records import Activation, Axis, ChannelGraph, Geometry, Group, Layer, Role, TensorInfo
from prunit.later import resolver

if TYPE_CHECKING:
    from prunit.graph.reading import trace

__all__ = ["Activation", "Axis", "ChannelGraph", "Geometry", "Group", "Layer", "Role", "TensorInfo", "trace"]


if not TYPE_CHECKING:  # to a type checker there are the names above, and no others
    # Resolved on first use: what only reads graphs (prices, budgets, plans) works without torch.
    __getattr__ = resolver(__name__, {"trace": "reading"})
