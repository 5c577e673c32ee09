"""The model inside what torch and Lightning put around one: names, hooks and code are those of the inner module."""

import sys
from typing import Any, Final

_HELD_IN: Final = {
    ("torch.nn.parallel.distributed", "DistributedDataParallel"): "module",
    ("torch.nn.parallel.data_parallel", "DataParallel"): "module",
    ("torch.optim.swa_utils", "AveragedModel"): "module",
    ("torch._dynamo.eval_frame", "OptimizedModule"): "_orig_mod",
    ("lightning_fabric.wrappers", "_FabricModule"): "_original_module",
    ("lightning.fabric.wrappers", "_FabricModule"): "_original_module",
    ("lightning_fabric.wrappers", "_FabricOptimizer"): "optimizer",
    ("lightning.fabric.wrappers", "_FabricOptimizer"): "optimizer",
    ("pytorch_lightning.core.optimizer", "LightningOptimizer"): "optimizer",
    ("lightning.pytorch.core.optimizer", "LightningOptimizer"): "optimizer",
}
"""Module and name of each class that wraps a model or an optimizer, and the attribute in which it keeps that."""


def unwrapped(model: Any) -> Any:
    """The module (or optimizer) inside all wrappers around `model`, or `model` itself; nothing is copied.

    Wrappers are those of torch.compile, DistributedDataParallel, DataParallel, AveragedModel and Fabric's setup. A
    LightningModule is no wrapper: it is a model of its own.
    """
    while (attribute := _attribute(model)) is not None:
        model = getattr(model, attribute)
    return model


def _attribute(model: Any) -> str | None:
    """Where a wrapper keeps its model; None: it is no wrapper.

    Asked of the classes that are loaded already: a model cannot be wrapped in a class that nobody imported.
    """
    for (module, name), attribute in _HELD_IN.items():
        wrapper = getattr(sys.modules.get(module), name, None)
        if isinstance(wrapper, type) and isinstance(model, wrapper):
            return attribute
    return None
