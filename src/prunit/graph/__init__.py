"""Read a model as groups of channels that must shrink together."""

from typing import TYPE_CHECKING

from prunit.graph.records import Activation, Axis, ChannelGraph, Geometry, Group, Layer, Role, TensorInfo

if TYPE_CHECKING:
    from prunit.graph.reading import trace

__all__ = ["Activation", "Axis", "ChannelGraph", "Geometry", "Group", "Layer", "Role", "TensorInfo", "trace"]


if not TYPE_CHECKING:  # to a type checker there are the names above, and no others

    def __getattr__(name: str) -> object:
        # Resolved on first use: what only reads graphs (prices, budgets, plans) works without torch.
        if name != "trace":
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        from prunit.graph.reading import trace

        return trace
