"""A model as a function of its weights, so that a score can ask 'what if' without touching the model."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from prunit.batches import Batch
from prunit.graph import ChannelGraph
from prunit.graph.computed import computed_weights, given
from prunit.graph.running import (
    first_names,
    named_modules,
    parameters_and_buffers,
    standing_in,
    tensors_in,
)
from prunit.graph.wrappers import unwrapped
from prunit.tasks import Classification, Task


class Network:
    """The dense weights of convolutions and linear maps, by name, and a forward pass with any others in their place.

    A weight that a layer computes (weight norm, say) is what comes out, under the name of the parameter that stands for
    it: that is what sums over channels. A forward pass takes it as given, and computes it from nothing.

    Nothing that it does changes the model: weights, buffers, gradients, modes and the random state stay as they are.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, keep: np.ndarray | None = None) -> None:
        """`graph` is the dense model's; `keep`, as `graph.flat_keep` gives it, what of its channels this one has."""
        self.model, self._graph, self._keep = unwrapped(model), graph, keep
        self._parameters, self._buffers = parameters_and_buffers(self.model)
        self._first = first_names(self._parameters | self._buffers)
        self._computed = [item for item in computed_weights(self.model) if item.main]
        self._values = {item.main: item.value() for item in self._computed}
        mine = {u.weight: self._parameters.get(u.weight) for u in graph.layers}
        first = {n: w for n, w in mine.items() if w is not None and self._first[id(w)] == n}
        self.weights = {n: self._values.get(n, w.detach()) for n, w in first.items()}
        self.plainly = self.levelled = False
        """What `synflow` found out: it cannot be run folded; its flow was kept within float32."""

    # The rest is for those who run the network: a score of the weights alone does not pay for it.

    @cached_property
    def other(self) -> dict[str, Tensor]:
        """All other parameters."""
        rest = self._once(self._parameters).items()
        return {n: self._values.get(n, p.detach()) for n, p in rest if n not in self.weights}

    @cached_property
    def buffers(self) -> dict[str, Tensor]:
        """All buffers."""
        return {n: b.detach() for n, b in self._once(self._buffers).items()}

    @property
    def channels(self) -> int:
        """How many channels the dense model has, of all groups."""
        return int(self._graph.offsets[-1])

    @cached_property
    def makers(self) -> dict[tuple[str, int], np.ndarray]:
        """By name and dimension of all tensors that make channels or hold values of them, which channel is where.

        Channels are numbered as in the dense model's graph, -1 for a position that is never cut. The first dimension of
        a weight that makes none is among them.
        """
        found: dict[tuple[str, int], np.ndarray] = {}
        for axis in self._graph.axes:
            if axis.role != "in":
                keep = slice(None) if self._keep is None else self._keep[axis.where]
                found[axis.tensor, axis.dim] = axis.where[keep]
        made = {name for name, _ in found}
        return found | {(n, 0): np.full(len(w), -1) for n, w in self.weights.items() if n not in made}

    @cached_property
    def _first_name(self) -> dict[str, str]:
        return {n: self._first[id(t)] for n, t in (self._parameters | self._buffers).items()}

    def _once(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each under its first name only."""
        first = first_names(tensors)
        return {n: t for n, t in tensors.items() if first[id(t)] == n}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.weights.values())).device

    def forward(
        self, weights: Mapping[str, Tensor], x_BCHW: Tensor, *, other: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The model's (first) output: see `outputs`."""
        return tensors_in(self.outputs(weights, x_BCHW, other=other))[0]

    def loss(
        self,
        weights: Mapping[str, Tensor],
        batch: Batch,
        task: Task,
        *,
        temperature: float = 1.0,
        other: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The task's mean loss on a batch; a classifier's scores are divided by `temperature` before."""
        x_BCHW, y_B = batch
        found = self.outputs(weights, x_BCHW, other=other)
        if isinstance(task, Classification):
            found = tensors_in(found)[0] / temperature
        return task.loss(found, y_B.to(self.device), smoothing=0.0)

    def outputs(
        self, weights: Mapping[str, Tensor], x_BCHW: Tensor, *, other: Mapping[str, Tensor] | None = None
    ) -> Any:
        """What the model returns with `weights`, and with `other` parameters and buffers if given.

        Images are moved to the weights' device and dtype; modules run in the mode that they are in. Weights are taken
        in PyTorch's own order of dimensions: in channels last, oneDNN's backward pass of narrow strided 1x1
        convolutions damages memory (see `train.layout`).
        """
        rest = other if other is not None else self.other | {n: b.clone() for n, b in self.buffers.items()}
        # `contiguous` would leave kernels of 1x1 with the strides of channels last, which tell a convolution the order.
        plain = torch.contiguous_format
        tensors = {n: t.to(memory_format=plain) for n, t in {**rest, **weights}.items()}
        with standing_in(self.model, {n: tensors[first] for n, first in self._first_name.items()}, training=None):
            with given((item, tensors[self._first_name[item.main]]) for item in self._computed):
                return self.model(x_BCHW.to(next(iter(weights.values()))))


@contextmanager
def untouched(
    model: nn.Module, *, batch_statistics: bool, training_outputs: bool = False, seed: int = 0
) -> Iterator[None]:
    """Evaluation mode, with batch norm on the batch's own statistics if asked; modes and random state come back.

    With `training_outputs` all modules but norms and dropout are in training mode, in which some models return what a
    loss takes and others what is judged.

    Inside, gradients can be taken whatever the caller's mode, and a model that draws random numbers even in evaluation
    mode draws those of `seed`.
    """
    modes = [(m, m.training) for _, m in named_modules(model)]
    devices = sorted({p.get_device() for p in parameters_and_buffers(model)[0].values() if p.is_cuda})
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            # torch.manual_seed would also seed the devices whose state does not come back.
            torch.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
            _set_modes([(m, _mode(m, batch_statistics, training_outputs)) for m, _ in modes])
            yield
    finally:
        _set_modes(modes)


def _mode(module: nn.Module, batch_statistics: bool, training_outputs: bool) -> bool:
    if isinstance(module, _BatchNorm):
        return batch_statistics
    return training_outputs and not isinstance(module, _DropoutNd)


def _set_modes(modes: Iterable[tuple[nn.Module, bool]]) -> None:
    for module, mode in modes:
        if module.training != mode:  # nn.Module is slow to set an attribute
            module.training = mode
