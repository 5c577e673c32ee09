"""Models of timm and torchvision by name. Both packages are optional (`prunit[zoo]`) and imported here only."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Literal

import torch
from torch import nn

from prunit.errors import MissingExtraError, ModelError, UnknownNameError, unknown
from prunit.user import reason

# torchvision's classifiers that need more than a number of classes: these two would return auxiliary outputs too.
_PLAIN = {"aux_logits": False, "init_weights": True}
_SETTINGS = {"googlenet": _PLAIN, "inception_v3": _PLAIN}


def imported(package: Literal["timm", "torchvision"], *, needed_by: str) -> ModuleType:
    """The package, imported on first use; `needed_by` is what the error names where it is missing."""
    try:
        try:
            # timm imports torchvision, whose failure would leave half of timm in sys.modules.
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            # The registry's torchvision is built for CUDA. Beside a CPU torch its operators cannot be loaded, and it
            # then fails on attaching shapes to operators that are not there. Declared, they suffice for all models.
            _declare_operators()
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
            importlib.import_module("torchvision")
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError(needed_by, (error.name or package).partition(".")[0], "zoo") from error
    except Exception as error:
        raise ModelError(f"{needed_by}: the package '{package}' cannot be imported: {reason(error)}") from error


@cache
def _declare_operators() -> torch.library.Library:
    """The declarations; they last as long as this object, so the cache keeps it."""
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def from_timm(name: str, *, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """timm's model `name` with untrained weights; `image_size` goes to those built for one size (transformers)."""
    timm = imported("timm", needed_by=f"timm:{name}")
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    config = timm.get_pretrained_cfg(name)
    size = image_size if config is not None and config.fixed_input_size else None  # timm drops what is None
    try:
        return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels, img_size=size)
    except Exception as error:
        asked = f"num_classes={num_classes}, in_chans={in_channels}" + (f", img_size={size}" if size else "")
        raise ModelError(f"timm:{name} cannot be built with {asked}: {reason(error)}") from error


def from_torchvision(name: str, *, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """torchvision's classifier `name` with untrained weights."""
    torchvision = imported("torchvision", needed_by=f"torchvision:{name}")
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise _unknown("torchvision", name, names)
    if in_channels != 3:
        raise ModelError(
            f"torchvision:{name} reads images of 3 channels, these have {in_channels}:"
            " take a model of the zoo or of timm, or write a factory"
        )
    more = {"image_size": image_size} if name.startswith("vit_") else _SETTINGS.get(name, {})
    try:
        return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **more)
    except Exception as error:
        raise ModelError(
            f"torchvision:{name} cannot be built with num_classes={num_classes}, image_size={image_size}:"
            f" {reason(error)}"
        ) from error


def _unknown(package: str, name: str, names: Sequence[str]) -> UnknownNameError:
    """The error for a name of a long list: it shows the five nearest ones."""
    near = difflib.get_close_matches(name.lower(), names, n=5, cutoff=0.4) or names[:5]
    return unknown(f"{package} model", name, near, f"These are 5 of {len(names)}: {package}'s list_models() has all.")
