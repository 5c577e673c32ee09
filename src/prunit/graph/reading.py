"""Read a model as channel groups: `trace` runs it until what was assumed of its code holds.

Nothing is computed: the model runs on the meta device, under a `Tracer`, mostly once. Where its code leaves open which
numbers follow a width, it runs again with channels missing, and if need be with other readings (see `choices`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunit.errors import ModelError
from prunit.graph.checks import check
from prunit.graph.choices import Choices, next_reading, rejected_sites
from prunit.graph.code import asks_for_shapes
from prunit.graph.inputs import describe
from prunit.graph.probe import first_difference
from prunit.graph.records import ChannelGraph, TensorInfo
from prunit.graph.resolve import Findings, resolve
from prunit.graph.running import (
    as_inputs,
    collecting_later,
    copied,
    example_tensors,
    first_names,
    meta_twins,
    named_tensors,
    own_twins,
    tensors_in,
    to_meta,
)
from prunit.graph.tracer import Tracer, tracing
from prunit.graph.wrappers import unwrapped

_MOST_TRIES = 64
"""So often the model is read anew before all that is left open is pinned."""


def trace(model: nn.Module, example: Any, *, pin: Sequence[str] = ()) -> ChannelGraph:
    """The model's channel groups, from one forward pass in evaluation mode.

    `example` is one input tensor (batch first), a tuple of positional inputs or a dict of keyword inputs; only shapes
    and dtypes matter. `pin` holds name patterns (`fc`, `layer4.*`) of modules whose output channels must all stay.
    A wrapper around the model (DDP, Fabric, torch.compile, an average) is looked through. The model is left as it was.
    Raises `ModelError` if the model fails on its example, or either is of a kind that cannot be traced.
    """
    model = unwrapped(model)
    check(model, example)
    # In inference mode operators come whole (a conv2d, say), and so they do on tensors made there.
    with torch.inference_mode(False), collecting_later():
        graph = _traced(model, example, pin)
    return replace(graph, inputs=describe(example))


def _traced(model: nn.Module, example: Any, pin: Sequence[str]) -> ChannelGraph:
    args, kwargs = as_inputs(example)
    named = named_tensors(model)
    first = first_names(named)
    infos = {
        n: TensorInfo(tuple(t.shape), t.element_size(), isinstance(t, nn.Parameter))
        for n, t in named.items()
        if first[id(t)] == n
    }
    choices = Choices()
    for _ in range(_MOST_TRIES):
        findings, on_meta = _run(model, named, (args, kwargs), choices)
        resolved = resolve(findings, infos, pin, choices)
        if not on_meta and not choices.cautious and (resolved.assumed or findings.mixed):
            choices.cautious = True
            continue
        if not on_meta:
            note = "the forward pass looks at values: all this holds for the way that it takes with this example"
            return replace(resolved.graph, notes=(*resolved.graph.notes, note))
        if choices.cautious or not (resolved.assumed or _follows_widths(findings, resolved.graph)):
            return resolved.graph
        if findings.rejected and _read_otherwise(findings, resolved.classes, choices):
            continue
        found = first_difference(model, resolved.graph, findings.steps, resolved.where_of, (args, kwargs))
        if found is None:
            return resolved.graph
        attributes = [(size.module, size.name) for size in resolved.graph.code_sizes]
        if not next_reading(choices, findings.sites, findings.steps, attributes, found):
            choices.cautious = True
    choices.cautious = True
    return resolve(_run(model, named, (args, kwargs), choices)[0], infos, pin, choices).graph


def _follows_widths(findings: Findings, graph: ChannelGraph) -> bool:
    """Whether the code that ran may compute something from the width of channels that may go."""
    return bool(graph.free.any()) and (findings.gives_values or asks_for_shapes(findings.ran))


def _read_otherwise(findings: Findings, classes: np.ndarray, choices: Choices) -> bool:
    """Take another reading for channels that were rejected, if there is one."""
    found = rejected_sites(findings.sites, findings.rejected, classes)
    return bool(found) and choices.next_at(found[0], findings.sites)


class _Unreadable(ModelError):
    """The model runs, but what it returns cannot be read."""


def _run(
    model: nn.Module, named: dict[str, Tensor], inputs: tuple[Any, Any], choices: Choices
) -> tuple[Findings, bool]:
    """What one forward pass finds, on meta tensors (True) or, where the model cannot run on those, on its own."""
    leaves = example_tensors(inputs)
    batch = leaves[0].shape[0] if leaves[0].ndim else 1
    try:
        args, kwargs = to_meta(inputs)
        return _run_on(model, meta_twins(named), args, kwargs, batch, choices), True
    except _Unreadable:
        raise
    except Exception as on_meta:
        # Forward passes that look at values (x.item(), a data-dependent branch) cannot run without them.
        try:
            args, kwargs = copied(inputs)
            return _run_on(model, own_twins(named), args, kwargs, batch, choices), False
        except _Unreadable:
            raise
        except Exception as error:
            raise ModelError(
                f"{_kind(model)} fails on its example {_describe(inputs)}: {_one_line(error)}"
            ) from on_meta


def _run_on(
    model: nn.Module, tensors: dict[str, Tensor], args: Any, kwargs: Any, batch: int, choices: Choices
) -> Findings:
    tracer = Tracer(tensors, batch, choices)
    inputs = example_tensors((args, kwargs))
    with tracing(model, tracer, tensors, inputs):
        out = model(*args, **kwargs)
        outputs = tensors_in(out)
        if not outputs:
            raise _Unreadable(f"cannot trace {_kind(model)}: no tensor was found in what it returns ({_kind(out)})")
        tracer.module_path = ""
        for leaf in outputs:
            tracer.pin_tensor(leaf, "the model's output")
    findings = tracer.findings
    # Not those that the pass itself has set; what a child's own code says of its attribute goes before its parent's.
    own = {size.place for size in findings.held_sizes if not size.helper}
    findings.held_sizes = [
        size
        for size in findings.held_sizes
        if not (size.helper and size.place in own) and hasattr(model.get_submodule(size.module), size.name)
    ]
    return findings


def _kind(value: object) -> str:
    return type(value).__name__


def _describe(example: Any) -> str:
    shapes = [tuple(leaf.shape) for leaf in example_tensors(example)]
    return f"of shape {', '.join(map(str, shapes))}" if shapes else f"is a {_kind(example)}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{_kind(error)}: {text[:300]}"
