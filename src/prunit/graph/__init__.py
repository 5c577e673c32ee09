"""Read a model as groups of channels that must shrink together."""

from prunit.graph.records import Activation, Axis, ChannelGraph, Group, Layer, Role, TensorInfo
from prunit.graph.tracer import trace

__all__ = ["Activation", "Axis", "ChannelGraph", "Group", "Layer", "Role", "TensorInfo", "trace"]
