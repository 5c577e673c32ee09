"""The forward passes that a model is read in: evaluation mode and, where that may do something else, training mode.

What only training runs or returns (auxiliary heads, outputs of several depths, losses) reads channels, too, and a group
is one group in both modes. Where training mode cannot be run, what it alone would read stays whole.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from prunit.errors import ModelError
from prunit.graph.choices import Choices, read_otherwise
from prunit.graph.code import asks_for_mode
from prunit.graph.findings import Findings, Pass, Pin
from prunit.graph.leaving import Leaving
from prunit.graph.running import (
    as_inputs,
    copied,
    example_tensors,
    first_only,
    meta_twins,
    named_modules,
    own_twins,
    tensors_in,
    to_meta,
)
from prunit.graph.tracer import Tracer
from prunit.graph.tracing import tracing
from prunit.graph.written import sizes_of_view

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword inputs."""
_Twins = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


class Passes:
    """A model on its example, to be run anew with other readings of its code until one holds."""

    def __init__(self, model: nn.Module, named: dict[str, Tensor], example: Any, training_example: Any) -> None:
        self.model, self.named, self._example = model, named, example
        self.inputs: Inputs = as_inputs(example)
        self.trains = training_example is not None or asks_for_mode(module for _, module in named_modules(model))
        given = self.inputs if training_example is None else as_inputs(training_example)
        self.training_inputs = [given, *_doubled(given)]
        """What to try training mode on, the first that works."""

    def run(self, choices: Choices) -> tuple[Findings, bool]:
        """What the passes find, on meta tensors (True) or, where evaluation mode cannot run on those, on its own."""
        try:
            tracer, on_meta = self._on_meta(choices), True
        except _Unreadable:
            raise
        except Exception as error:
            # Forward passes that look at values (x.item(), a data-dependent branch) cannot run without them.
            tracer, on_meta = self._on_values(choices, error), False
        findings = tracer.findings
        findings.evaluated = len(findings.axes)
        findings.passes = [Pass(False, self.inputs, len(findings.steps))] if on_meta else []
        if not on_meta and choices.sure:
            findings.passes = [Pass(False, self.inputs, min(choices.sure, len(findings.steps)), True)]
            tracer.familiar = self._checked(findings, choices.sure)
        why = self._train(tracer, on_meta) if self.trains else None
        self._pin_for(findings, why)
        _only_the_users_sizes(self.model, findings)
        return findings, on_meta

    def _on_meta(self, choices: Choices) -> Tracer:
        """Again where channels were rejected that have a further reading, before training mode is run at all."""
        while True:
            tracer = self._evaluate(meta_twins(self.named), to_meta(self.inputs), choices)
            found = tracer.findings
            if choices.cautious or not found.rejected:
                return tracer
            if not read_otherwise(choices, found.sites, found.steps, found.rejected, found.classes()):
                return tracer

    def _on_values(self, choices: Choices, on_meta: Exception) -> Tracer:
        try:
            with sdpa_kernel(SDPBackend.MATH):  # in the steps that it has on meta tensors
                return self._evaluate(self._own(), copied(self.inputs), choices, on_values=True)
        except _Unreadable:
            raise
        except Exception as error:
            raise ModelError(
                f"{_kind(self.model)} fails on its example {_describe(self.inputs)}: {_one_line(error)}"
                + _several(self._example, error)
            ) from on_meta

    def _checked(self, findings: Findings, sure: int) -> set[str]:
        """Modules all of whose code up to the step `sure` could be checked, and that do the same in both modes."""
        later = {step.module for step in findings.steps[sure:]}
        return _familiar(self.model, findings.ran) - later

    def _own(self) -> dict[str, Tensor]:
        return own_twins(self.named)

    def _evaluate(
        self, tensors: dict[str, Tensor], inputs: Inputs, choices: Choices, *, on_values: bool = False
    ) -> Tracer:
        leaves = example_tensors(inputs)
        tracer = Tracer(tensors, leaves[0].shape[0] if leaves[0].ndim else 1, choices)
        tracer.on_values = on_values
        out = self._pass(tracer, tensors, inputs, training=False)
        if not tensors_in(out):
            raise _Unreadable(
                f"cannot trace {_kind(self.model)}: no tensor was found in what it returns ({_kind(out)})"
            )
        return tracer

    def _train(self, tracer: Tracer, on_meta: bool) -> Exception | None:
        """Read training mode as well; why it cannot be run, if so."""
        findings = tracer.findings
        failed: Exception | None = None
        for inputs, meta in self._training_ways(on_meta):
            steps, sites, ran = len(findings.steps), len(findings.sites), findings.ran.copy()
            tensors = meta_twins(self.named) if meta else self._own()
            tracer.again(tensors)
            if on_meta and not meta:  # no narrower model can be run on values to check what is assumed
                tracer.familiar = _familiar(self.model, ran)
            try:
                self._pass(tracer, tensors, to_meta(inputs) if meta else copied(inputs), training=True)
            except Exception as error:
                failed = failed or error
            else:
                if on_meta and meta:
                    findings.passes.append(Pass(True, inputs, len(findings.steps)))
                    return None
                failed = None
            # What was seen up to an error holds; but there is nothing to compare a narrower model with.
            del findings.steps[steps:]
            findings.sites[sites:] = [s._replace(step=max(steps - 1, 0)) for s in findings.sites[sites:]]
            findings.ran = ran
            if failed is None:
                return None
        return failed

    def _training_ways(self, on_meta: bool) -> Iterator[tuple[Inputs, bool]]:
        """Inputs, and whether to run on meta tensors."""
        for meta in (True, False) if on_meta else (False,):
            for inputs in self.training_inputs:
                yield inputs, meta

    def _pass(self, tracer: Tracer, tensors: dict[str, Tensor], inputs: Inputs, *, training: bool) -> Any:
        args, kwargs = inputs
        with tracing(self.model, tracer, tensors, example_tensors(inputs), training=training):
            with nullcontext() if all(t.is_meta for t in tensors.values()) else Leaving(tracer):
                out = self.model(*args, **kwargs)
            tracer.module_path = ""
            for leaf in tensors_in(out):
                tracer.pin_tensor(leaf, "the model's output in training mode" if training else "the model's output")
        return out

    def _pin_for(self, findings: Findings, failed: Exception | None) -> None:
        """Keep whole what layers may read that did not run: in training mode, which failed, or with further inputs."""
        known = {axis.tensor for axis in findings.axes}
        idle = {n: t for n, t in first_only(self.named).items() if n not in known and t.ndim > 1}
        if failed is not None:
            why = f"training mode fails on the example ({_one_line(failed)}"
            layers = ", ".join(sorted({n.rpartition(".")[0] or n for n in idle})[:3])
            if layers:
                pin = Pin(f"{why}; '{layers}' may read it there): pass training_example", "")
                findings.pins += [(np.arange(a.start, a.start + a.size), pin) for a in findings.axes]
            else:
                findings.unread = f"{why}): what it alone computes was not seen; pass training_example"
        elif idle and _takes_more(self.model, *self.inputs):
            sizes = {size: n for n, t in idle.items() for size in t.shape}
            for axis in findings.axes:
                if axis.size in sizes:
                    name = sizes[axis.size].rpartition(".")[0] or sizes[axis.size]
                    pin = Pin(
                        f"'{name}', which does not run with this example, may read it: pass training_example with all"
                        " inputs that forward takes",
                        "",
                    )
                    findings.pins.append((np.arange(axis.start, axis.start + axis.size), pin))


class _Unreadable(ModelError):
    """The model runs, but what it returns cannot be read."""


def _doubled(inputs: Inputs) -> list[Inputs]:
    """A batch of one becomes one of two, as batch norm has nothing to take statistics of else; [] for other batches."""
    leaves = example_tensors(inputs)
    if not leaves[0].ndim or leaves[0].shape[0] != 1:
        return []
    return [tree_map(lambda v: torch.cat([v, v]) if isinstance(v, Tensor) and v.ndim and len(v) == 1 else v, inputs)]


def _familiar(model: nn.Module, ran: set[nn.Module]) -> set[str]:
    """Modules that have run and whose code does the same in both modes."""
    return {path for path, module in named_modules(model) if module in ran and not asks_for_mode([module])}


def _takes_more(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether the model's forward has inputs that the example leaves at their defaults."""
    try:
        signature = inspect.signature(model.forward)
        given = signature.bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # it takes anything, or its own `__call__` sorts its inputs
        return False
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(p.kind in named and name not in given for name, p in signature.parameters.items())


def _only_the_users_sizes(model: nn.Module, findings: Findings) -> None:
    """Not those that a pass itself has set; what a child's own code says of its attribute goes before its parent's."""
    own = {size.place for size in findings.held_sizes if not size.helper}
    findings.held_sizes = [
        size
        for size in findings.held_sizes
        if not (size.helper and size.place in own)
        and (sizes_of_view(size.name) or hasattr(model.get_submodule(size.module), size.name))
    ]


def _several(example: Any, error: Exception) -> str:
    """What to write where a list was meant as one input."""
    if type(example) is list or (type(example) is tuple and "positional argument" in str(error)):
        return (
            f". The {_kind(example)} was taken as {len(example)} inputs: for a model whose one input is a list of"
            " tensors write ([a, b],)"
        )
    return ""


def _kind(value: object) -> str:
    return type(value).__name__


def _describe(example: Any) -> str:
    shapes = [tuple(leaf.shape) for leaf in example_tensors(example)]
    return f"of shape {', '.join(map(str, shapes))}" if shapes else f"is a {_kind(example)}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{_kind(error)}: {text[:300]}"
