"""Read a model as groups of channels that must shrink together."""

from prunit.graph.reading import trace
from prunit.graph.records import Activation, Axis, ChannelGraph, Geometry, Group, Layer, Role, TensorInfo

__all__ = ["Activation", "Axis", "ChannelGraph", "Geometry", "Group", "Layer", "Role", "TensorInfo", "trace"]
