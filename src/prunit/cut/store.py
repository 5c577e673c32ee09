"""A compact model from the user's own code: `save` and `load` with a file, `apply_plan` without. No pickle.

The file is safetensors with the plan inside. For weights that somebody else keeps (torch.save, a trainer's checkpoint)
there is `apply_plan` and torch's own `load_state_dict`, which refuses the weights of another plan and names each layer
with both shapes; a checker of our own would say no more. Only the file of `save` also knows *which* channels were kept,
and the buffers that a state dict lacks.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from prunit.cut.plan_files import FORMAT, FORMAT_VERSION, KEY, about_in, plan_of, refusals
from prunit.cut.plans import Plan
from prunit.cut.surgery import compact, give_biases, rebuild
from prunit.errors import FileError, ModelError, PlanError
from prunit.files import write_atomically
from prunit.graph import trace
from prunit.graph.inputs import example_from, notes_all_integers
from prunit.graph.running import named_tensors, tensors_in
from prunit.graph.sizes import noted_sizes, weight_shape
from prunit.graph.wrappers import unwrapped
from prunit.graph.written import sizes_of_view
from prunit.version import VERSION


class _Held(NamedTuple):
    """What a file holds. `sizes` are the attributes that `noted_sizes` gave, by module path and name."""

    plan: Plan
    tensors: dict[str, Tensor]
    sizes: dict[str, dict[str, Any]]


def apply_plan(model: nn.Module, plan: Plan, example: Any = None, *, training_example: Any = None) -> nn.Module:
    """The compact model of a plan, its weights cut from those of `model`, which is left as it was.

        small = prunit.apply_plan(factory(), plan)
        small.load_state_dict(torch.load("small.pt", weights_only=True))

    The model is traced on inputs of the shapes that the plan notes (integers by value where they are few), or on
    `example` and `training_example`: needed for a plan without them, and for a model whose forward branches on other
    values of its inputs. Raises `PlanError` if the plan is for another model.
    """
    model = unwrapped(model)
    if training_example is None and plan.training_inputs is not None:
        training_example = _made(plan.training_inputs, model)
    try:
        inputs = _inputs_of(plan, model) if example is None else example
        graph = trace(model, inputs, training_example=training_example)
        plan.check(graph)
    except (ModelError, PlanError) as error:
        if example is None and not notes_all_integers(plan.inputs):
            hint = "the plan notes long integer inputs by their shape alone, zeros here: give them, "
            raise type(error)(f"{error}; {hint}apply_plan(model, plan, example)") from error
        raise
    return compact(model, graph, plan)


def save(compacted: nn.Module, plan: Plan, path: Path | str) -> None:
    """Write the model's parameters and buffers, and the plan that cut it, to a .safetensors file.

    Buffers that a state dict leaves out are written too: they may have been cut. Tied tensors are stored once. Raises
    `FileError` where the file cannot be written; an old file stays whole then. Raises `PlanError` where a layer has
    fewer channels than the plan keeps.
    """
    compacted = unwrapped(compacted)
    widths = _widths(compacted)
    for name, channels in plan.keep.items():
        if widths.get(name, len(channels)) < len(channels):
            raise PlanError(
                f"cannot write '{path}': the plan keeps {len(channels)} channels of '{name}', but the model has"
                f" {widths[name]} there; save it with the plan that cut it"
            )
    tensors, aliases = _unique(named_tensors(compacted), Path(path))
    sizes = noted_sizes(compacted)
    about = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "prunit": VERSION,
        "plan": json.loads(plan.to_json()),
        "aliases": aliases,
    } | ({"sizes": sizes} if sizes else {})
    # One key, because safetensors writes several in an order drawn anew in each process: equal models, equal files.
    write_atomically(Path(path), to_bytes(tensors, {KEY: json.dumps(about)}))


def load(path: Path | str, factory: Callable[[], nn.Module]) -> nn.Module:
    """The model in the file, on the CPU and in evaluation mode; `factory` builds the dense model that it was cut from.

    The dense weights are not allocated where the factory can build on the meta device. Raises `FileError` for a file
    that is missing, damaged or not prunit's, and for tensors that do not fit the factory's model or the file's plan.
    """
    if isinstance(factory, nn.Module):  # callable too, so that its forward pass would complain, of its inputs
        raise ModelError(
            f"needed is a function that makes the dense {type(factory).__name__}, not the model itself:"
            " load(path, factory)"
        )
    path = Path(path)
    held = _read(path)
    dense = unwrapped(_skeleton(factory))
    give_biases(dense, held.plan)
    problem = _misfit(named_tensors(dense), held.tensors) or _odd_size(dense, held.sizes)
    if problem:
        raise FileError(f"'{path}' does not fit {type(dense).__name__}: {problem}; was it saved from another factory?")
    small = rebuild(dense, held.tensors, held.sizes)
    problem = _off_plan(_widths(dense), small, held.plan)
    if problem:
        raise FileError(f"'{path}' does not fit the plan in it: {problem}; was it saved with another plan?")
    return small.eval()


def _inputs_of(plan: Plan, model: nn.Module) -> Any:
    """Zeros of the shapes that the plan notes, where the model is and in its precision."""
    if plan.inputs is None:
        raise PlanError(
            "the plan does not say on which inputs its model was traced (made by hand or by an older prunit, or with"
            " inputs that JSON cannot describe): give them, apply_plan(model, plan, example)"
        )
    return _made(plan.inputs, model)


def _made(inputs: Any, model: nn.Module) -> Any:
    weights = [p for p in model.parameters() if p.is_floating_point()] if isinstance(model, nn.Module) else []
    # The model may have been made anew in another precision. Where it mixes several, the inputs are as they were.
    dtypes = {p.dtype for p in weights}
    device = weights[0].device if weights else "cpu"
    return example_from(inputs, device, dtypes.pop() if len(dtypes) == 1 else None)


def _read(path: Path) -> _Held:
    """What a file holds; names that were tied hold the same tensor object."""
    with refusals(path):
        with safe_open(str(path), framework="pt") as file:
            about = about_in(path, file.metadata())
            # Copied, because the tensors given lie in the mapped file: whoever overwrites it would change them.
            tensors = {n: file.get_tensor(n).clone() for n in file.keys()}
        tensors |= {alias: tensors[name] for alias, name in about["aliases"].items()}
        return _Held(plan_of(about), tensors, _sizes_in(about))


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


def _sizes_in(about: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sizes in a file's metadata; `ValueError` for anything but ints and lists of ints by path and name."""
    sizes = about.get("sizes", {})
    for path, values in sizes.items():
        for name, value in values.items():
            if not all(type(n) is int for n in (value if isinstance(value, list) else [value])):
                raise ValueError(f"size '{path}.{name}' is {value}")
    return sizes


def _odd_size(dense: nn.Module, sizes: Mapping[str, Mapping[str, Any]]) -> str:
    """Which attribute in the file is no size of the dense model's, '' if all are."""
    modules = dict(dense.named_modules())
    for path, values in sizes.items():
        for name, value in values.items():
            held = (path in modules and sizes_of_view(name)) or getattr(modules.get(path), name, None)
            several = isinstance(held, list | tuple) and isinstance(value, list) and len(held) == len(value)
            if not several and not (type(held) is int and type(value) is int):
                return f"it sets '{path}.{name}' to {value}, which is {held} in the dense model"
    return ""


def _off_plan(dense: Mapping[str, int], small: nn.Module, plan: Plan) -> str:
    """The first layer that is not as wide as the plan says, '' if there is none.

    Only of layers whose output is one whole group: what else a group is part of, only a trace could tell.
    """
    widths = _widths(small)
    for name, channels in plan.keep.items():
        if name not in dense:
            continue
        if dense[name] < plan.dense[name]:
            return f"it is for {plan.dense[name]} channels of '{name}', the dense model has {dense[name]}"
        if dense[name] == plan.dense[name] and widths[name] != len(channels):
            shape = weight_shape(small.get_submodule(name))
            shape = "none" if shape is None else tuple(shape)
            return f"it keeps {len(channels)} of {dense[name]} channels of '{name}', whose weight has shape {shape}"
    return ""


def _widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every convolution and linear layer by module path."""
    return {
        path: module.out_channels if isinstance(module, _ConvNd) else module.out_features
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, _ConvNd | nn.Linear)
    }


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
