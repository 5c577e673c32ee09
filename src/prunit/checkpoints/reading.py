"""A file as tensors and the places where they lie, through all dicts and lists in it. Nothing is unpickled."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from prunit.errors import FileError

Place = tuple[str, ...]
"""The keys and parts of names on the way to a tensor: `{"state_dict": {"module.fc.weight": …}}` has four."""

_DEPTH: Final = 24
_VISITS: Final = 8
"""A dict in a file may lie in itself, or in many others: it is entered so often at most, and so deep."""
_SAVE: Final = "save a state dict, torch.save(model.state_dict(), FILE)"
_ORIGINAL: Final = "_orig"
_MASK: Final = "_mask"
"""Endings that torch.nn.utils.prune gives to a weight and to its mask."""


@dataclass(frozen=True, eq=False)
class Held:
    """A tensor of a file: its place, and how many parts of that lead to the dict in which it lies."""

    place: Place
    depth: int
    tensor: Tensor

    @property
    def within(self) -> Place:
        """The place of the dict that holds it."""
        return self.place[: self.depth]


def held_in(file: Path) -> list[Held]:
    """All tensors of a .safetensors file or of one that `torch.save` wrote; `FileError` where it is neither."""
    try:
        found: Any = load_file(file) if _is_safetensors(file) else _torch_file(file)
    except FileNotFoundError as error:
        raise FileError(f"there is no checkpoint '{file}'") from error
    except SafetensorError as error:
        raise FileError(f"'{file}' is no whole .safetensors file: {error}") from error
    except OSError as error:
        raise FileError(f"cannot read the checkpoint '{file}': {error.strerror or error}") from error
    held = list(_walk(found, (), {})) if isinstance(found, Mapping | list | tuple) else []
    if not held:
        raise FileError(f"'{file}' holds no state dict: save it with torch.save(model.state_dict(), FILE)")
    return held


def masked(held: list[Held]) -> list[Held]:
    """The same with the masks of torch.nn.utils.prune applied, under the names that the weights had before."""
    by_place = {each.place: each for each in held}
    result: list[Held] = []
    for each in held:
        *way, name = each.place
        if name.endswith(_MASK) and (*way, name.removesuffix(_MASK) + _ORIGINAL) in by_place:
            continue
        if name.endswith(_ORIGINAL):
            own = name.removesuffix(_ORIGINAL)
            mask = by_place.get((*way, own + _MASK))
            spectral = (*way, f"{own}_u") in by_place  # there the original is not what the layer computes with
            if mask is not None and mask.tensor.shape == each.tensor.shape:
                each = replace(each, place=(*way, own), tensor=each.tensor * mask.tensor.to(each.tensor.dtype))
            elif mask is None and not spectral:
                each = replace(each, place=(*way, own))
        result.append(each)
    return result


def _walk(value: Any, place: Place, visits: dict[int, int]) -> Iterator[Held]:
    visits[id(value)] = visits.get(id(value), 0) + 1
    if len(place) > _DEPTH or visits[id(value)] > _VISITS:
        return
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, inner in pairs:
        there = (*place, *str(key).split("."))
        if isinstance(inner, Tensor):
            if not (inner.is_quantized or inner.is_meta):
                yield Held(there, len(place), inner.detach())
        elif isinstance(inner, Mapping | list | tuple):
            yield from _walk(inner, there, visits)


def _is_safetensors(file: Path) -> bool:
    """By its ending, or where that says nothing by its first bytes: a length, then JSON."""
    if file.suffix == ".safetensors":
        return True
    with file.open("rb") as opened:
        return opened.read(9)[8:] == b"{"


def _torch_file(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:
        if other := _something_else(file):
            raise FileError(f"'{file}' is no checkpoint: {other}") from error
        raise FileError(f"cannot read '{file}' as tensors alone ({_why(error)}): {_SAVE}") from error


def _something_else(file: Path) -> str:
    """What a file is that a download or a clone has left in a checkpoint's place; '' if it is none of those."""
    with file.open("rb") as opened:
        start = opened.read(64)
    if not start:
        return "it is empty; fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS to the real file; fetch that with git lfs pull"
    if start.lstrip().startswith(b"<"):
        return "it is a web page, as a download gives that asks for a login; fetch it again"
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8")):
        return f"it is an image; {_SAVE}"
    if start.isascii() and start.decode().replace("\n", "").replace("\t", "").replace("\r", "").isprintable():
        return f"it is text; {_SAVE}"
    if start.startswith(b"PK"):
        return "it is an archive that ends too early or is damaged; fetch it again" if not is_zipfile(file) else ""
    return ""


def _why(error: Exception) -> str:
    """What stands in the way, without torch's advice to run the code in the file."""
    text = " ".join(str(error).split())
    refused = re.search(r"GLOBAL ([\w.]+)", text)
    return f"it holds an object of the class {refused[1]}, which is code" if refused else text[:120]
