"""An optimiser that goes on after a cut: its state is cut like the parameters that it belongs to."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from prunit.cut.plans import Plan
from prunit.cut.surgery import cut_tensors
from prunit.errors import OptimizerError
from prunit.graph import ChannelGraph
from prunit.graph.running import tensors_in
from prunit.graph.wrappers import unwrapped


def cut_optimizer(
    optimizer: Optimizer, model: nn.Module, compacted: nn.Module, graph: ChannelGraph, plan: Plan
) -> Optimizer:
    """An optimiser like `optimizer`, which trains `model`, for `compacted`, the compact form of that model.

    Of the same class, with the same groups of parameters and settings. State of a parameter's shape (momentum, running
    averages of gradients) is cut as the parameter was; step counts and other numbers are copied. So training goes on as
    that of the masked model would. `optimizer` and `model` are left as they were. Hooks stay behind; a learning-rate
    scheduler is made anew and given the old one's `state_dict`.

    Raises `OptimizerError` for a parameter that is not the model's, for state that cannot be cut (it has another shape
    than its parameter, as Adafactor's rows and columns) and a class that cannot be made from groups and settings.
    """
    optimizer, model, compacted = unwrapped(optimizer), unwrapped(model), unwrapped(compacted)
    plan.check(graph)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = [_group(group, names, compacted) for group in optimizer.param_groups]
    result = _made(optimizer, groups)
    dense = dict(model.named_parameters())
    state = {names[id(p)]: dict(optimizer.state[p]) for p in dense.values() if p in optimizer.state}
    keep = graph.flat_keep(plan.keep)
    for name, values in _cut(state, dense, compacted, graph, keep).items():
        result.state[compacted.get_parameter(name)] = values
    return result


def _group(group: Mapping[str, Any], names: Mapping[int, str], compacted: nn.Module) -> dict[str, Any]:
    """The same settings for the compact model's parameters."""
    for p in group["params"]:
        if id(p) not in names:
            raise OptimizerError(
                f"the optimiser holds a parameter of shape {tuple(p.shape)} that is not the model's:"
                " give the model that it trains"
            )
    settings = copy.deepcopy({key: value for key, value in group.items() if key != "params"})
    return settings | {"params": [compacted.get_parameter(names[id(p)]) for p in group["params"]]}


def _made(optimizer: Optimizer, groups: list[dict[str, Any]]) -> Optimizer:
    """A new optimiser of the same class, by its own constructor, which may set up more than a copy would have."""
    kind = type(optimizer)
    accepted = inspect.signature(kind).parameters
    settings = {key: value for key, value in optimizer.defaults.items() if key in accepted}
    try:
        made = kind(groups, **copy.deepcopy(settings))
    except Exception as error:
        raise OptimizerError(
            f"cannot make another {kind.__name__} from the groups and defaults of this one:"
            f" {' '.join(str(error).split())[:200]}. Make a new one for the compact model; it starts without state"
        ) from error
    made.defaults = copy.deepcopy(optimizer.defaults)
    return made


def _cut(
    state: Mapping[str, Mapping[str, Any]],
    dense: Mapping[str, nn.Parameter],
    compacted: nn.Module,
    graph: ChannelGraph,
    keep: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """The state of each parameter, by key: cut where it has the dense parameter's shape, else copied."""
    found: dict[str, dict[str, Any]] = {name: {} for name in state}
    by_key: dict[str, dict[str, Tensor]] = {}
    for name, values in state.items():
        old, new = dense[name].shape, compacted.get_parameter(name).shape
        for key, value in values.items():
            if isinstance(value, Tensor) and value.shape == old and old != new:
                by_key.setdefault(key, {})[name] = value
            # State of an uncut parameter may have any shape, unless it reaches beyond it (LBFGS keeps all in one).
            elif all(t.numel() <= (dense[name].numel() if old == new else 1) for t in tensors_in(value)):
                found[name][key] = copy.deepcopy(value)
            else:
                raise OptimizerError(
                    f"cannot cut the optimiser's '{key}' of '{name}': its shape is {_shapes(value)}, the parameter's"
                    f" {tuple(old)} and then {tuple(new)}. Start a new optimiser, or remove that key from its state"
                )
    for key, tensors in by_key.items():
        for name, tensor in cut_tensors(graph, keep, tensors).items():
            found[name][key] = tensor
    return found


def _shapes(value: Any) -> str:
    return ", ".join(str(tuple(t.shape)) for t in tensors_in(value)[:3])
