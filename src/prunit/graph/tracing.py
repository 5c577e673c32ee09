"""A model that runs on other tensors while a tracer looks on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from prunit.graph.labels import Labels
from prunit.graph.modules import following
from prunit.graph.running import standing_in
from prunit.graph.tracer import Tracer
from prunit.graph.weights import following_weights


@contextmanager
def tracing(
    model: nn.Module,
    tracer: Tracer,
    tensors: dict[str, Tensor],
    inputs: Sequence[Tensor],
    *,
    training: bool | None = False,
) -> Iterator[None]:
    """The model on `tensors` while `tracer` looks on; then all is as it was. `training` as in `standing_in`.

    Training on meta tensors runs as trainers do it, with gradients enabled: some code asks for that, not for the mode.
    """
    gradients = bool(training) and all(t.is_meta for t in tensors.values())
    for leaf in inputs:
        tracer.set(leaf, Labels())
    try:
        with standing_in(model, tensors, training=training, guarded=True) as filled:
            with torch.set_grad_enabled(gradients), following_weights(model, tracer), following(model, tracer), tracer:
                yield
        tracer.findings.caches = tuple(dict.fromkeys((*tracer.findings.caches, *filled)))
    finally:
        for leaf in (*inputs, *tracer.labelled):
            cast("dict[str, Any]", leaf.__dict__).pop(tracer.mark, None)
