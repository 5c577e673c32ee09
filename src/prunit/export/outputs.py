"""What a model returns, as the outputs of an exported file: all of its tensors, each with a name."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._pytree import GetAttrKey, MappingKey, tree_flatten_with_path

from prunit.edge.session import Array
from prunit.errors import ModelError
from prunit.export.translation import INPUT, OUTPUT, gist
from prunit.graph.running import tensors_in

UNNAMED: Final = "output"
"""What outputs are called that have no name of their own: `output`, `output_1`, …"""

Path = tuple[str, ...]
"""The keys and fields that lead to a tensor; positions in a tuple or list are left out."""


def outputs(model: nn.Module, x_BCHW: Array, *, output: str = OUTPUT) -> dict[str, Array]:
    """The model's outputs by name as torch computes them, after the check that they can be exported.

    Any nesting of tuples, lists, mappings, named tuples and dataclasses will do, in the order of `tensors_in`. A tensor
    goes by its keys or fields (`out`, `head.boxes`); without such by `output` if it is the only one, else as `output`,
    `output_1`, … Raises `ModelError` where there is none, or one that is not float32 with the batch as its first
    dimension.
    """
    asked = f"cannot export: on input of shape {x_BCHW.shape} the model"
    try:
        with torch.no_grad():
            found = model(torch.from_numpy(x_BCHW))
    except Exception as error:  # whatever the user's forward raises
        needs = isinstance(error, TypeError) and "required positional argument" in str(error)
        hint = "; one tensor of images is given, so wrap it in a module that holds the other inputs" if needs else ""
        raise ModelError(f"{asked} failed with {type(error).__name__}: {gist(error)}{hint}") from error
    tensors = tensors_in(found)
    if not tensors:
        raise ModelError(f"{asked} returns a {type(found).__name__} without a tensor: there is nothing to export")
    names = _names(found, tensors, output)
    for name, tensor in zip(names, tensors, strict=True):
        what = asked + " returns" if len(tensors) == 1 else f"{asked}'s output '{name}' has"
        if tensor.ndim == 0 or tensor.shape[0] != len(x_BCHW):
            hint = "" if len(tensors) == 1 else ": wrap it in a module that returns tensors with the images first"
            raise ModelError(f"{what} shape {tuple(tensor.shape)}, whose first dimension is not the batch{hint}")
        if tensor.dtype != torch.float32:
            what = what if len(tensors) == 1 else f"{what} type"
            raise ModelError(f"{what} {tensor.dtype}, and only torch.float32 can be exported")
        if not tensor.numel():
            raise ModelError(f"{what} shape {tuple(tensor.shape)}, which holds no number")
    return {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}


def shapes_of(trials: Sequence[Mapping[str, Array]]) -> dict[str, tuple[int, ...]]:
    """The shape for one image of each output, by what they were on several batches: -1 where sizes differ.

    Raises `ModelError` where other images have other outputs, or some of another number of dimensions.
    """
    first, *rest = trials
    found: dict[str, tuple[int, ...]] = {}
    for trial in rest:
        if list(trial) != list(first):
            what = f"{', '.join(first)} for some images and {', '.join(trial)} for others"
            raise ModelError(f"cannot export: the model's outputs are {what}, and a file has always the same")
    for name in first:
        shapes = [trial[name].shape[1:] for trial in trials]
        if len({len(shape) for shape in shapes}) > 1:
            raise ModelError(f"cannot export: the output '{name}' has more dimensions for some images than for others")
        found[name] = tuple(sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*shapes, strict=True))
    return found


def _names(found: Any, tensors: list[Tensor], output: str) -> list[str]:
    """A name for each tensor, no two alike, and none that of the input."""
    pairs: list[tuple[Path, Tensor]] = []
    try:
        _walk(found, (), pairs, set())
    except ValueError:  # a container of which torch knows the parts and not their names
        pairs = []
    if [id(tensor) for _, tensor in pairs] != [id(tensor) for tensor in tensors]:
        pairs = [((), tensor) for tensor in tensors]
    names: list[str] = []
    unnamed = output if len(tensors) == 1 else UNNAMED
    for path, _ in pairs:
        plain = ".".join(path) or unnamed
        name, number = plain, 0
        while name in names or name == INPUT:
            number += 1
            name = f"{plain}_{number}"
        names.append(name)
    return names


def _walk(value: Any, path: Path, found: list[tuple[Path, Tensor]], seen: set[int]) -> None:
    """As `tensors_in`, with the way to each tensor."""
    for keys, leaf in tree_flatten_with_path(value)[0]:
        here = (*path, *(name for key in keys if (name := _key(key)) is not None))
        if isinstance(leaf, Tensor):
            found.append((here, leaf))
        elif id(leaf) not in seen:
            seen.add(id(leaf))
            for name, part in _parts(leaf).items():
                _walk(part, (*here, str(name)), found, seen)


def _key(key: Any) -> str | None:
    if isinstance(key, MappingKey):
        return str(key.key)
    return key.name if isinstance(key, GetAttrKey) else None


def _parts(leaf: Any) -> Mapping[Any, Any]:
    if isinstance(leaf, Mapping):
        return leaf
    if isinstance(leaf, type | nn.Module):
        return {}
    if is_dataclass(leaf):
        return {field.name: getattr(leaf, field.name) for field in fields(leaf)}
    return getattr(leaf, "__dict__", {})
