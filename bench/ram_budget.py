"""What a budget of ram leaves of a network: `python -m bench.ram_budget`.

Plans for three quarters, a half and a third of the most bytes alive at once, by the default recipe, by equal shares and
by shares of the memory. Beside each the share of the parameters that was kept before groups away from the peak were
left alone. Widths by single channels. Nothing is trained or timed: deterministic.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from bench._common import arguments, record, write
from bench._nets import Net
from prunit.allocate import Budget
from prunit.errors import BudgetError
from prunit.graph import trace
from prunit.recipe import decide
from prunit.recipe.config import PruneConfig
from prunit.recipe.recipes import example_batch

NETS: Final = (
    *(Net(f"{title}, 32×32", name, 32) for title, name in (("VGG-11", "vgg11"), ("VGG-16", "vgg16"))),
    *(Net(f"ResNet-{n}, 32×32", f"resnet{n}", 32) for n in (20, 56, 18, 50)),
    Net("MobileNetV2, 32×32", "mobilenetv2", 32),
    *(
        Net(f"{name} (timm), 96×96", f"timm:{name}", 96)
        for name in ("resnet18", "mobilenetv3_small_100", "efficientnet_lite0", "mobilenetv2_100")
    ),
)
SHARES: Final = ("3/4", "1/2", "1/3")
RECIPES: Final[Mapping[str, Mapping[str, str]]] = {
    "default": {},
    "uniform": {"recipe": "uniform"},
    "complexity, ma": {"recipe": "complexity", "mode": "ma"},
}

BEFORE: Final[Mapping[str, Mapping[str, Sequence[float | None]]]] = {
    "VGG-11, 32×32": {
        "3/4": (0.0008, 0.5864, 0.9908),
        "1/2": (0.0007, 0.2662, 0.9788),
        "1/3": (0.0006, 0.1185, 0.8854),
    },
    "VGG-16, 32×32": {
        "3/4": (0.0026, 0.5863, 0.9905),
        "1/2": (0.0008, 0.2661, 0.9786),
        "1/3": (0.0006, 0.1184, 0.9401),
    },
    "ResNet-20, 32×32": {
        "3/4": (0.1105, 0.3208, 0.9092),
        "1/2": (0.0522, 0.3146, 0.8842),
        "1/3": (0.0223, 0.1412, 0.7356),
    },
    "ResNet-56, 32×32": {
        "3/4": (0.0803, 0.3142, 0.9102),
        "1/2": (0.0524, 0.3144, 0.9045),
        "1/3": (0.021, 0.1408, 0.5644),
    },
    "ResNet-18, 32×32": {
        "3/4": (0.0413, 0.2776, 0.9666),
        "1/2": (0.0053, 0.266, 0.9525),
        "1/3": (0.0028, 0.1184, 0.8911),
    },
    "ResNet-50, 32×32": {
        "3/4": (0.016, 0.5692, 0.9792),
        "1/2": (0.0024, 0.2549, 0.9491),
        "1/3": (0.0013, 0.1136, 0.9136),
    },
    "MobileNetV2, 32×32": {
        "3/4": (0.1042, 0.6747, 0.9906),
        "1/2": (0.046, 0.3863, 0.9787),
        "1/3": (0.0309, 0.2208, 0.9713),
    },
    "resnet18 (timm), 96×96": {
        "3/4": (0.0202, 0.5941, 0.9904),
        "1/2": (0.0044, 0.2165, 0.9759),
        "1/3": (0.002, 0.0631, 0.9635),
    },
    "mobilenetv3_small_100 (timm), 96×96": {
        "3/4": (0.0099, 0.4921, 0.9984),
        "1/2": (0.0096, 0.1015, None),
        "1/3": (None, None, None),
    },
    "efficientnet_lite0 (timm), 96×96": {
        "3/4": (0.0226, 0.7306, 0.9978),
        "1/2": (0.0195, 0.4693, 0.9931),
        "1/3": (0.0188, 0.3065, 0.9851),
    },
    "mobilenetv2_100 (timm), 96×96": {
        "3/4": (0.0254, 0.7239, 0.9976),
        "1/2": (0.0196, 0.4601, 0.9929),
        "1/3": (0.0182, 0.2981, 0.9846),
    },
}
"""What was kept at commit b4ae2f0, by the same plans in the order of `RECIPES`: all groups were narrowed there."""


def plans(net: Net) -> list[dict[str, Any]]:
    """For one network a row of each limit: the share of the parameters that each recipe keeps, None if out of reach."""
    torch.manual_seed(0)
    model, example = net.make()
    graph = trace(model, example)
    rows: list[dict[str, Any]] = []
    for share in SHARES:
        row: dict[str, Any] = {"net": net.title, "ram": share, "kept": {}, "used": {}, "narrowed": {}}
        for title, settings in RECIPES.items():
            try:
                budget, config = Budget.parse(f"ram={share}"), PruneConfig.model_validate({"round_to": 1, **settings})
                found = decide(model, graph, [example_batch(example)], budget, config)
            except BudgetError:
                row["kept"][title] = row["used"][title] = row["narrowed"][title] = None
                continue
            row["kept"][title] = found.cost.params / found.dense.params
            row["used"][title] = max(found.used.values())
            row["narrowed"][title] = sum(width < found.plan.dense[name] for name, width in found.plan.widths.items())
        rows.append({**row, "groups": len(graph.groups)})
    return rows


def main() -> None:
    """Plan everything and write the JSON."""
    args = arguments("ram_budget", __doc__)
    torch.set_num_threads(1)
    rows = [row for net in NETS for row in plans(net)]
    for row in rows:
        row["before"] = dict(zip(RECIPES, BEFORE[row["net"]][row["ram"]], strict=True))
    config = {"shares": SHARES, "before": "b4ae2f0"}
    write(record("ram_budget", rows, config=config, n=1, percentile="one plan each", threads=1), args.json)


if __name__ == "__main__":
    main()
