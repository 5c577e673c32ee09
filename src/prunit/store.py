"""A compact model as a file: safetensors with the plan inside, rebuilt from the user's own code. No pickle."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from prunit.errors import FileError, ModelError, PlanError
from prunit.files import write_atomically
from prunit.graph.running import named_tensors, tensors_in
from prunit.plans import Plan
from prunit.surgery import rebuild
from prunit.version import VERSION

FORMAT: Final = "prunit-weights"
FORMAT_VERSION: Final = 1
_KEY: Final = "prunit"
"""Of the file's metadata: all that prunit adds to the tensors, as JSON."""


def save(compacted: nn.Module, plan: Plan, path: Path | str) -> None:
    """Write the model's parameters and buffers, and the plan that cut it, to a .safetensors file.

    Buffers that a state dict leaves out are written too: they may have been cut. Tied tensors are stored once. Raises
    `FileError` where the file cannot be written; an old file stays whole then.
    """
    tensors, aliases = _unique(named_tensors(compacted), Path(path))
    about = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "prunit": VERSION,
        "plan": json.loads(plan.to_json()),
        "aliases": aliases,
    }
    # One key, because safetensors writes several in an order drawn anew in each process: equal models, equal files.
    write_atomically(Path(path), to_bytes(tensors, {_KEY: json.dumps(about)}))


def load(path: Path | str, factory: Callable[[], nn.Module]) -> nn.Module:
    """The model in the file, on the CPU and in evaluation mode; `factory` builds the dense model that it was cut from.

    The dense weights are not allocated where the factory can build on the meta device. Raises `FileError` for a file
    that is missing, damaged or not prunit's, and for tensors that do not fit the factory's model.
    """
    path = Path(path)
    _, tensors = _read(path)
    dense = _skeleton(factory)
    problem = _misfit(named_tensors(dense), tensors)
    if problem:
        raise FileError(f"'{path}' does not fit {type(dense).__name__}: {problem}; was it saved from another factory?")
    return rebuild(dense, tensors).eval()


def read_plan(path: Path | str) -> Plan:
    """The plan inside a weights file."""
    return _read(Path(path), with_tensors=False)[0]


def _read(path: Path, *, with_tensors: bool = True) -> tuple[Plan, dict[str, Tensor]]:
    """The plan and the tensors in a file; names that were tied hold the same tensor object."""
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            _check(path, about)
            # Copied, because the tensors given lie in the mapped file: whoever overwrites it would change them.
            tensors = {n: file.get_tensor(n).clone() for n in file.keys()} if with_tensors else {}
        tensors |= {alias: tensors[name] for alias, name in about["aliases"].items() if with_tensors}
        return Plan.from_json(json.dumps(about["plan"])), tensors
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise FileError(f"cannot read '{path}': {error.strerror or error}") from error
    except PlanError as error:
        raise PlanError(f"'{path}': {error}") from error
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise FileError(f"'{path}' is not a whole .safetensors file of prunit: {why}") from error


def _check(path: Path, about: Mapping[str, Any]) -> None:
    if about.get("format") != FORMAT:
        raise FileError(f"'{path}' holds tensors but no plan, prunit did not write it: write it with prunit.save")
    if int(about["version"]) > FORMAT_VERSION:
        writer = about.get("prunit", "of later")
        raise FileError(
            f"'{path}' was written by prunit {writer}, which this one ({VERSION}) cannot read: upgrade prunit"
        )


def _misfit(dense: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Why the tensors cannot be a cut of the dense model's, '' if they can."""
    first: dict[int, str] = {}
    for name, old in dense.items():
        if name not in tensors:
            return f"the file lacks '{name}'"
        new, twin = tensors[name], first.setdefault(id(old), name)
        if new.ndim != old.ndim or any(n > m for n, m in zip(new.shape, old.shape, strict=True)):
            return f"'{name}' has shape {tuple(new.shape)} in the file and {tuple(old.shape)} in the dense model"
        if new.is_floating_point() != old.is_floating_point():
            return f"'{name}' holds {new.dtype} in the file and {old.dtype} in the dense model"
        if tensors[twin] is not new:
            return f"'{name}' is tied to '{twin}' in the model, but not in the file"
    return next((f"the model lacks '{name}'" for name in tensors if name not in dense), "")


def _unique(state: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Contiguous CPU tensors, each once, and the other names of those that have several."""
    first: dict[int, str] = {}
    storages: set[int] = set()
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in state.items():
        if tensor.is_meta:
            raise FileError(f"cannot write '{path}': '{name}' holds no values, it is on the meta device")
        if first.setdefault(id(tensor), name) != name:
            aliases[name] = first[id(tensor)]
            continue
        plain = tensor.detach().cpu().contiguous()
        if plain.untyped_storage().data_ptr() in storages:  # views of one memory, which the format refuses
            plain = plain.clone()
        storages.add(plain.untyped_storage().data_ptr())
        tensors[name] = plain
    return tensors, aliases


def _skeleton(factory: Callable[[], nn.Module]) -> nn.Module:
    """The factory's model without memory for its weights, or with it where that does not work."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about values that meta tensors do not take
                model = factory()
            if isinstance(model, nn.Module) and not _keeps_tensors(model):
                return model
        except Exception:  # the factory computes on its tensors: it is called for real below
            pass
        model = factory()
    if not isinstance(model, nn.Module):
        raise ModelError(f"the factory returned a {type(model).__name__}, not an nn.Module")
    return model


def _keeps_tensors(model: nn.Module) -> bool:
    """The model holds tensors that no file restores: plain attributes, alone or in a list or an object."""
    known = {"_parameters", "_buffers", "_modules"}
    return any(tensors_in([v for k, v in vars(module).items() if k not in known]) for module in model.modules())
