"""Published accuracies of unstructured pruning at initialisation, top-1 in percent.

The SynFlow authors' own data files behind figure 6 of Tanaka et al. 2020 (ganguli-lab/Synaptic-Flow,
Results/data/Accuracy_CompRatio/*.npy): mean of three runs of 160 epochs, best epoch's accuracy as far as their notebook
tells. Compression is of the prunable weights.
"""

from collections.abc import Mapping
from typing import Final

COMPRESSIONS: Final = (1.0, 10.0, 31.6, 100.0)

_TABLE: Final[Mapping[tuple[str, str], Mapping[str, tuple[float, float, float, float]]]] = {
    ("vgg16", "cifar10"): {
        "mask-random": (93.53, 91.15, 87.52, 79.14),
        "mask-magnitude": (93.53, 93.12, 91.95, 89.80),
        "mask-snip": (93.51, 92.26, 91.08, 89.15),
        "mask-grasp": (93.39, 91.84, 90.17, 87.49),
        "mask-synflow": (93.46, 93.26, 92.12, 90.08),
    },
    ("resnet18", "cifar10"): {
        "mask-random": (95.11, 92.92, 89.57, 82.98),
        "mask-magnitude": (94.94, 94.40, 10.00, 10.00),
        "mask-snip": (94.94, 94.29, 93.23, 90.80),
        "mask-grasp": (95.00, 93.78, 92.09, 89.71),
        "mask-synflow": (94.78, 94.07, 92.66, 90.36),
    },
}


def published(model: str, data: str, arm: str, compression: float) -> float | None:
    """The published accuracy in percent, None if there is none."""
    row = _TABLE.get((model, data), {}).get(arm)
    if row is None or compression not in COMPRESSIONS:
        return None
    return row[COMPRESSIONS.index(compression)]
