"""A network that computes on integers alone, as TensorFlow Lite for Microcontrollers runs it: tensors and operators.

Images are batch 1, channels last. int8 tensors hold a real value r as q = r / scale + zero point (Jacob et al., 2018);
weights have a scale for each output channel and no zero point, biases are int32 at the scale of input times weight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prunit.errors import ModelError

Integers = npt.NDArray[np.integer[Any]]
Kind = Literal["int8", "int32"]


@dataclass(frozen=True, eq=False)
class Tensor:
    """What operators read and write; with `values` a constant.

    `scales` holds one number, or one for each index of dimension `axis`; it is empty where integers mean themselves,
    as in a shape.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind = "int8"
    scales: tuple[float, ...] = ()
    zero_point: int = 0
    axis: int = 0
    values: Integers | None = None

    def __post_init__(self) -> None:
        if self.values is not None and (self.values.shape != self.shape or self.values.dtype != np.dtype(self.kind)):
            found = f"{self.values.dtype} {self.values.shape}"
            raise ModelError(f"tensor '{self.name}' is {self.kind} {self.shape}, but its values are {found}")

    @property
    def bytes(self) -> int:
        """What its values take."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.kind).itemsize


@dataclass(frozen=True)
class Operator:
    """One step: `code` is TensorFlow Lite's name of it (`CONV_2D`), `layer` the module that it comes from.

    `options` are the fields of the schema's table for it, as in `{"strideW": 2}`; numbers of an enumeration are written
    by name (`{"padding": "SAME"}`). An input '' is one that is left out.
    """

    code: str
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    version: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """Operators in the order in which they run, and the tensors between them by name."""

    name: str
    tensors: Sequence[Tensor]
    operators: Sequence[Operator]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ModelError(f"network '{self.name}' has more than one tensor called {', '.join(twice[:3])}")
        made = {*self.inputs, *(tensor.name for tensor in self.tensors if tensor.values is not None), ""}
        for operator in self.operators:
            missing = [name for name in operator.inputs if name not in made]
            if missing:
                raise ModelError(f"{operator.code} of '{operator.layer}' reads '{missing[0]}' before anything makes it")
            made |= set(operator.outputs)
        absent = [name for name in self.outputs if name not in made]
        if absent:
            raise ModelError(f"nothing in network '{self.name}' makes its output '{absent[0]}'")

    @cached_property
    def by_name(self) -> Mapping[str, Tensor]:
        """The tensors by name."""
        return {tensor.name: tensor for tensor in self.tensors}

    @property
    def codes(self) -> tuple[str, ...]:
        """The operators that an interpreter has to know, each once, in alphabetical order."""
        return tuple(sorted({operator.code for operator in self.operators}))

    @property
    def constant_bytes(self) -> int:
        """What weights, biases and other constants take."""
        return sum(tensor.bytes for tensor in self.tensors if tensor.values is not None)
