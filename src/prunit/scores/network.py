"""A model as a function of its weights, so that a score can ask 'what if' without touching the model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunit.graph import ChannelGraph
from prunit.graph.running import named_tensors, standing_in, tensors_in
from prunit.graph.wrappers import unwrapped


class Network:
    """The dense weights of convolutions and linear maps, by name, and a forward pass with any others in their place.

    Nothing that it does changes the model: weights, buffers, gradients, modes and the random state stay as they are.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        model = unwrapped(model)
        named = dict(model.named_parameters())
        self.model = model
        self.weights = {u.weight: named[u.weight].detach() for u in graph.layers if u.weight in named}
        self.other = {n: p.detach() for n, p in named.items() if n not in self.weights}
        self.buffers = {n: b.detach() for n, b in model.named_buffers()}
        first = {id(t): n for n, t in reversed(named_tensors(model).items())}
        self._first_name = {n: first[id(t)] for n, t in named_tensors(model).items()}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.weights.values())).device

    def forward(
        self, weights: Mapping[str, Tensor], x_BCHW: Tensor, *, other: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The model's (first) output with `weights`, and with `other` parameters and buffers if given.

        Images are moved to the weights' device and dtype; modules run in the mode that they are in.
        """
        rest = other if other is not None else self.other | {n: b.clone() for n, b in self.buffers.items()}
        tensors = {**rest, **weights}
        modes = [(m, m.training) for m in self.model.modules()]
        with standing_in(self.model, {n: tensors[first] for n, first in self._first_name.items()}):
            for m, mode in modes:
                m.training = mode
            out = self.model(x_BCHW.to(next(iter(weights.values()))))
        return tensors_in(out)[0]


@contextmanager
def untouched(model: nn.Module, *, batch_statistics: bool, seed: int = 0) -> Iterator[None]:
    """Evaluation mode, with batch norm on the batch's own statistics if asked; modes and random state come back.

    Inside, gradients can be taken whatever the caller's mode, and a model that draws random numbers even in evaluation
    mode draws those of `seed`.
    """
    modes = [(m, m.training) for m in model.modules()]
    devices = sorted({p.get_device() for p in model.parameters() if p.is_cuda})
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            # torch.manual_seed would also seed the devices whose state does not come back.
            torch.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
            for m, _ in modes:
                m.training = batch_statistics and isinstance(m, _BatchNorm)
            yield
    finally:
        for m, mode in modes:
            m.training = mode
