"""Read a model as channel groups: `trace` runs it until what was assumed of its code holds.

Nothing is computed: the model runs on the meta device, under a `Tracer`, mostly once, in evaluation mode; in training
mode too where its code asks for the mode (see `passes`). Where its code leaves open which numbers follow a width, it
runs again with channels missing, and if need be with other readings (see `choices`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from prunit.graph.attributes import settings
from prunit.graph.checks import check
from prunit.graph.choices import Choices, next_reading, read_otherwise
from prunit.graph.code import asks_for_shapes
from prunit.graph.findings import Findings
from prunit.graph.inputs import describe
from prunit.graph.looking import where_it_looks
from prunit.graph.passes import Passes
from prunit.graph.probe import first_difference, reach
from prunit.graph.records import ChannelGraph, TensorInfo
from prunit.graph.resolve import resolve
from prunit.graph.running import collecting_later, first_names, listed, named_tensors, noted
from prunit.graph.wrappers import unwrapped

_MOST_TRIES = 64
"""So often the model is read anew before all that is left open is pinned."""


def trace(model: nn.Module, example: Any, *, pin: Sequence[str] = (), training_example: Any = None) -> ChannelGraph:
    """The model's channel groups, from one forward pass in evaluation mode and, where it may differ, one in training.

    `example` is one input tensor (batch first), a tuple of positional inputs or a dict of keyword inputs; only shapes
    and dtypes matter. `training_example` is what training mode takes where that is something else, `(images, targets)`
    say. `pin` holds name patterns (`fc`, `layer4.*`) of modules whose output channels must all stay.
    A wrapper around the model (DDP, Fabric, torch.compile, an average) is looked through. The model is left as it was.
    Raises `ModelError` if the model fails on its example, or either is of a kind that cannot be traced.
    """
    model = unwrapped(model)
    with listed(model):
        check(model, example)
        if training_example is not None:
            check(model, training_example)
        # In inference mode operators come whole (a conv2d, say), and so they do on tensors made there.
        with torch.inference_mode(False), collecting_later(), noted(model):
            graph = _traced(model, example, training_example, pin)
    training_inputs = None if training_example is None else describe(training_example)
    return replace(graph, inputs=describe(example), training_inputs=training_inputs)


def _traced(model: nn.Module, example: Any, training_example: Any, pin: Sequence[str]) -> ChannelGraph:
    named = named_tensors(model)
    first = first_names(named)
    infos = {
        n: TensorInfo(tuple(t.shape), t.element_size(), isinstance(t, nn.Parameter))
        for n, t in named.items()
        if first[id(t)] == n
    }
    choices = Choices()
    choices.settings = lambda path: settings(model.get_submodule(path))
    passes = Passes(model, named, example, training_example)
    made: dict[Any, list[Any]] = {}
    tries = 0
    while True:
        tries += 1
        choices.cautious = choices.cautious or tries > _MOST_TRIES
        findings, on_meta = passes.run(choices)
        resolved = resolve(findings, infos, pin, choices)
        opens = resolved.assumed or _follows_widths(findings, resolved.graph)
        if not on_meta and not choices.cautious and choices.sure is None and (opens or findings.mixed):
            choices.sure = reach(model, resolved.graph, findings.steps, resolved.where_of, passes.inputs)
            choices.looking, choices.decided = where_it_looks(findings.steps, choices.sure)
            continue
        if not opens or (choices.cautious and not on_meta):
            return resolved.graph if on_meta else _noted(resolved.graph)
        seen = findings.sites, findings.steps, findings.rejected
        if not choices.cautious and read_otherwise(choices, *seen, resolved.classes):
            continue
        found = first_difference(model, resolved.graph, findings.steps, resolved.where_of, findings.passes, made)
        if found is None:
            return resolved.graph if on_meta else _noted(resolved.graph)
        attributes = [(size.module, size.name) for size in resolved.graph.code_sizes]
        changed = next_reading(choices, findings.sites, findings.steps, attributes, found)
        if choices.cautious and (not changed or tries > 2 * _MOST_TRIES):
            break
        choices.cautious = choices.cautious or not changed
    # Even with all that is open pinned a narrower model does otherwise: a width is compared with a number, say.
    free = [group.name for group in resolved.graph.groups if not group.pinned]
    return resolved.graph.pin(free, f"the model's code depends on its size{found.line}")


def _noted(graph: ChannelGraph) -> ChannelGraph:
    note = "the forward pass looks at values: all this holds for the way that it takes with this example"
    return replace(graph, notes=(*graph.notes, note))


def _follows_widths(findings: Findings, graph: ChannelGraph) -> bool:
    """Whether the code that ran may compute something from the width of channels that may go."""
    return bool(graph.free.any()) and (findings.gives_values or asks_for_shapes(findings.ran, findings.called))
