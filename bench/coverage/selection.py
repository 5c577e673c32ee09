"""Which of timm's models are tried, by rule: the smallest of each family, where it is made of convolutions.

A *family* is the file of timm that builds the model and the name up to its first size: `resnet/resnext` for
resnext50_32x4d, `levit/levit_conv` for levit_conv_128s. timm's own miniatures (`test_*`) are left out. The smallest by
parameters stands for its family; all are built on the meta device, where nothing is allocated. It is tried at 64
pixels, or at the first larger size of `SIZES` that it runs at.

What it is made of shows when it runs. A model with more than two convolutions whose windows overlap (kernel above
stride; a patch embedding has none) is a CNN if no two matrices that both depend on the image are multiplied, as
attention does, and a hybrid otherwise. With two or fewer it is a transformer or an MLP and left out.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench._nets import count
from bench.coverage.networks import Draw, pictures
from prunit import zoo
from prunit.zoo.external import imported

CLASSES: Final = 37
SIZES: Final = (64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
_WORDS: Final = frozenset(
    "zepto atto femto pico nano tiny xtiny xxtiny small medium base large xlarge xxlarge huge giant mini minimal"
    " xs xxs xl xxl xx ti es em el".split()
)
_SIZE: Final = re.compile(r"[a-z]?\d\w*|[a-z]")
_OPERATORS: Final = ("bmm", "baddbmm", "matmul")

Kind = Literal["cnn", "hybrid", "other"]


@dataclass(frozen=True)
class Case:
    """A model to try: its name in timm, family and kind, the image size, and its parameters with 37 classes."""

    name: str
    family: str
    kind: Kind
    image_size: int
    params: int
    spatial: int = 0
    attention: int = 0

    def make(self) -> tuple[nn.Module, Draw]:
        """The untrained model in evaluation mode, always the same, and pictures of its size."""
        torch.manual_seed(0)
        model = zoo.load(f"timm:{self.name}", num_classes=CLASSES, image_size=self.image_size)
        return model.eval(), pictures(self.image_size)


def stem(name: str) -> str:
    """The name up to its first size: words for sizes, numbers, single letters; digits inside words stay."""
    kept: list[str] = []
    for i, token in enumerate(name.split("_")):
        if i and (token.rstrip("0123456789") in _WORDS or _SIZE.fullmatch(token)):
            break
        word, number = _before_number(token)
        kept.append(word)
        if number:
            break
    return "_".join(kept)


def _before_number(token: str) -> tuple[str, bool]:
    """The letters before a number of two digits (resnet50) or one at the end (lite0), but not of a version (v2)."""
    match = re.match(r"(.*?[a-z])(?:\d{2,}|(?<!v)\d$)", token)
    return (match[1], True) if match else (token, False)


def families(names: Iterable[str], family: Callable[[str], str]) -> dict[str, list[str]]:
    """Names by family, both in order."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        if not name.startswith("test_"):
            found.setdefault(family(name), []).append(name)
    return dict(sorted(found.items()))


def family_of(name: str) -> str:
    """The family of one of timm's models."""
    timm = imported("timm", needed_by="bench.coverage")
    return f"{timm.models.model_entrypoint(name).__module__.rpartition('.')[2]}/{stem(name)}"


def smallest(names: Iterable[str], size: Callable[[str], int | None]) -> tuple[str, int] | None:
    """The name with the least parameters and how many those are; the first of equals, None if none can be built."""
    sizes = [(params, name) for name in names if (params := size(name)) is not None]
    return min(sizes)[::-1] if sizes else None


def kind_of(spatial: int, attention: int) -> Kind:
    """What a model is, from its overlapping convolutions and its attention products."""
    if spatial <= 2:
        return "other"
    return "hybrid" if attention else "cnn"


class Content(TorchDispatchMode):
    """Counts overlapping convolutions and attention products while a model runs on an image marked by `image`."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.spatial = self.attention = 0
        image._of_image = True  # pyright: ignore[reportAttributeAccessIssue]

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operator = func.overloadpacket.__name__
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        marked = [getattr(t, "_of_image", False) for t in inputs]
        if operator == "convolution":
            kernel, stride = inputs[1].shape[2:], args[3]
            self.spatial += any(k > s for k, s in zip(kernel, stride, strict=False))
        elif "attention" in operator or (operator in _OPERATORS and min(out.shape[-2:]) > 1 and all(marked)):
            self.attention += 1
        if any(marked):
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    leaf._of_image = True  # pyright: ignore[reportAttributeAccessIssue]
        return out


def content(name: str) -> tuple[int, int, int]:
    """The image size, overlapping convolutions and attention products of a model; raises if it runs at no size."""
    error: Exception | None = None
    for size in SIZES:
        image = torch.empty(2, 3, size, size, device="meta")
        try:
            with torch.device("meta"):
                model = zoo.load(f"timm:{name}", num_classes=CLASSES, image_size=size).eval()
                with torch.no_grad(), Content(image) as found:
                    out = model(image)
                if not isinstance(out, Tensor) or out.shape != (2, CLASSES):
                    raise TypeError(f"{name} is no classifier")
                model.train()(image)
        except Exception as wrong:  # whatever a model raises at a size it was not made for
            error = wrong
            continue
        return size, found.spatial, found.attention
    assert error is not None
    raise error


def select(progress: Callable[[str], None] = print) -> list[Case]:
    """The CNNs and hybrids to try, by family."""
    timm = imported("timm", needed_by="bench.coverage")

    def size(name: str) -> int | None:
        try:
            with torch.device("meta"):
                return count(timm.create_model(name, pretrained=False, num_classes=CLASSES))
        except Exception as error:
            progress(f"cannot build {name}: {error}")
            return None

    cases: list[Case] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's own: names that were renamed
        for family, members in families(timm.list_models(), family_of).items():
            least = smallest(members, size)
            if least is None:
                continue
            name, params = least
            try:
                image_size, spatial, attention = content(name)
            except Exception as error:
                progress(f"left out {name}: {str(error).splitlines()[0][:120] if str(error) else type(error).__name__}")
                continue
            case = Case(name, family, kind_of(spatial, attention), image_size, params, spatial, attention)
            progress(f"{family}: {name}, {case.kind}, {image_size} px, {spatial} convolutions, {attention} products")
            cases.append(case)
    return cases


def selected(file: Path, *, again: bool = False) -> list[Case]:
    """The CNNs and hybrids, from `file` if it was written with the timm that is installed."""
    version = imported("timm", needed_by="bench.coverage").__version__
    if not again and file.exists():
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["timm"] == version:
            return [case for case in (Case(**row) for row in stored["cases"]) if case.kind != "other"]
    cases = select()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"timm": version, "cases": [asdict(c) for c in cases]}, indent=1), encoding="utf-8")
    return [case for case in cases if case.kind != "other"]
