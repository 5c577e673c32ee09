"""All networks beyond timm, by package."""

import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from bench.coverage.beyond import (
    detection,
    features,
    medical,
    operators,
    pretrained,
    restoration,
    segmentation,
    signals,
    sound,
)
from bench.coverage.beyond.case import Beyond


class Package(NamedTuple):
    """The modules that are imported, and the networks of it that are tried."""

    modules: tuple[str, ...]
    cases: Callable[[], list[Beyond]]


PACKAGES: Final[Mapping[str, Package]] = {
    "segmentation-models-pytorch": Package(("segmentation_models_pytorch",), segmentation.cases),
    "torchvision": Package(("torchvision",), detection.torchvision),
    "ultralytics": Package(("ultralytics.nn.tasks",), detection.ultralytics),
    "transformers": Package(("transformers",), pretrained.transformers),
    "diffusers": Package(("diffusers",), pretrained.diffusers),
    "monai": Package(("monai.networks.nets",), medical.cases),
    "torchaudio": Package(("torchaudio.models",), sound.torchaudio),
    "speechbrain": Package(("speechbrain.lobes.models.ECAPA_TDNN",), sound.speechbrain),
    "asteroid": Package(("asteroid.models",), sound.asteroid),
    "braindecode": Package(("braindecode.models",), signals.cases),
    "kornia": Package(("kornia.feature", "kornia.models"), features.kornia),
    "facenet-pytorch": Package(("facenet_pytorch",), features.facenet),
    "python-doctr": Package(("doctr.models",), features.doctr),
    "spandrel": Package(("spandrel",), restoration.cases),
}


def everything() -> list[Beyond]:
    """All networks, whether their packages are installed or not."""
    return [case for package in PACKAGES.values() for case in package.cases()]


def absent(packages: Iterable[str]) -> dict[str, str]:
    """Those packages that cannot be imported, and why; the others are imported."""
    found: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages' own
        operators.stand_in()
        for package in packages:
            try:
                for module in PACKAGES[package].modules:
                    importlib.import_module(module)
            except Exception as error:  # a package that is broken is as good as one that is not there
                found[package] = f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
    return found
