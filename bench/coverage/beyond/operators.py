"""What stands in for compiled operators of a package that cannot be loaded beside a PyTorch without CUDA."""

import importlib
import sys
import types
from contextlib import suppress
from functools import cache

import torch
from torch import Tensor

from prunit.errors import MissingExtraError
from prunit.zoo.external import imported


@cache
def stand_in() -> None:
    """For both packages, as far as they are installed: others import them without a word."""
    for prepare in (_torchvision, _torchaudio):
        with suppress(ModuleNotFoundError, MissingExtraError):
            prepare()


def _torchvision() -> None:
    """torchvision with operators of its own in Python: non-maximum suppression, and its eager pooling of regions."""
    imported("torchvision", needed_by="bench.coverage")
    extension = importlib.import_module("torchvision.extension")
    if extension._has_ops():
        return
    try:
        torch.library.impl("torchvision::nms", "CPU")(_suppressed)
    except RuntimeError:  # declared by nobody: torchvision was built without it
        return
    boxes = importlib.import_module("torchvision.ops.boxes")
    vars(boxes)["_assert_has_ops"] = lambda: None
    import torch._dynamo.config as dynamo

    dynamo.disable = True  # its pooling of regions in Python would be compiled first


def _suppressed(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The boxes that no better one overlaps too much, the best first."""
    left, top, right, bottom = dets.unbind(1)
    areas = (right - left) * (bottom - top)
    order = scores.argsort(descending=True, stable=True)
    kept: list[Tensor] = []
    while order.numel():
        best, order = order[0], order[1:]
        kept.append(best)
        width = (right[order].minimum(right[best]) - left[order].maximum(left[best])).clamp(min=0)
        height = (bottom[order].minimum(bottom[best]) - top[order].maximum(top[best])).clamp(min=0)
        both = width * height
        order = order[both / (areas[order] + areas[best] - both) <= iou_threshold]
    return torch.stack(kept) if kept else order


def _torchaudio() -> None:
    """torchaudio without its compiled extension, which none of its networks needs, where that cannot be loaded."""
    try:
        importlib.import_module("torchaudio")
    except OSError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        absent = types.ModuleType("torchaudio._extension")
        vars(absent).update(_IS_TORCHAUDIO_EXT_AVAILABLE=False, fail_if_no_align=lambda f: f, _load_lib=lambda n: False)
        sys.modules["torchaudio._extension"] = absent
        importlib.import_module("torchaudio")
