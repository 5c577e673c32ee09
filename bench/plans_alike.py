"""Whether two builds of prunit make the same plans, byte for byte: `python -m bench.plans_alike --against SRC`.

The networks of `bench._nets` and some of timm, each by several recipes. SynFlow computes in float32 where an earlier
build took float64, and so may rank channels otherwise that are all but equal: of such plans it tells how many channels
one keeps and the other does not. Ends with exit code 1 if a plan differs that rests on no such score.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from bench._common import ROOT
from bench._nets import HALVED, MORE, SMALL

TIMM: Final = (
    "resnet18 resnext26ts mobilenetv3_small_100 efficientnet_b0 regnety_002 convnext_atto densenet121 ghostnet_100"
    " res2net50_26w_4s repvgg_a0 resnest14d dla34 vovnet39a hrnet_w18_small"
).split()
RECIPES: Final[dict[str, dict[str, Any]]] = {
    "uniform": {"recipe": "uniform"},
    "complexity": {"recipe": "complexity"},
    "global by magnitude": {"recipe": "global", "score": "magnitude"},
    "reconvene, 3 rounds": {"recipe": "reconvene", "rounds": 3},
    "reconvene emptied, 3 rounds": {"recipe": "reconvene", "evaluator": "emptied", "rounds": 3},
}


def cases() -> dict[str, tuple[str, int, int]]:
    """Name, side of the image and classes by key."""
    ours = {key: (net.name, net.image_size, net.classes) for key, net in {**SMALL, **HALVED, **MORE}.items()}
    return ours | {f"timm:{name}": (f"timm:{name}", 64, 10) for name in TIMM}


def plans(source: Path) -> dict[str, str]:
    """The plans that the prunit in `source` makes, as JSON text, by network and recipe."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(source), str(ROOT)))}
    command = [sys.executable, "-m", "bench.plans_alike", "--make", str(source)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=env)
    return json.loads(done.stdout)


def make(source: str) -> None:
    """Print the plans of the prunit that is imported here, which has to be that in `source`."""
    import torch

    import prunit
    from prunit import zoo
    from prunit.allocate import Budget
    from prunit.graph import trace
    from prunit.recipe.config import PruneConfig
    from prunit.recipe.recipes import decide

    if not str(prunit.__file__).startswith(source):
        raise SystemExit(f"prunit came from {prunit.__file__}, not from {source}")
    torch.set_num_threads(1)
    found: dict[str, str] = {}
    for key, (name, size, classes) in cases().items():
        model = zoo.load(name, num_classes=classes, image_size=size).eval()
        example = torch.zeros(1, 3, size, size)
        graph = trace(model, example)
        batches = [(example, torch.empty(0, dtype=torch.int64))]
        for recipe, settings in RECIPES.items():
            budget = Budget.parse("macs=1/2")
            try:
                decision = decide(model, graph, batches, budget, PruneConfig.model_validate(settings))
                found[f"{key}, {recipe}"] = decision.plan.to_json()
            except prunit.PrunitError as error:
                found[f"{key}, {recipe}"] = json.dumps({"refused": str(error)})
    json.dump(found, sys.stdout)


def otherwise(a: str, b: str) -> tuple[int, int]:
    """Channels that the one plan keeps and the other does not, and channels in all."""
    kept = []
    groups: dict[str, Any] = {}
    for text in (a, b):
        groups = json.loads(text).get("groups", {})
        runs = ((name, c) for name, g in groups.items() for first, last in g["keep"] for c in range(first, last + 1))
        kept.append(set(runs))
    return len(kept[0] ^ kept[1]), sum(group["dense"] for group in groups.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.plans_alike", description=__doc__)
    parser.add_argument("--against", type=Path, metavar="SRC", help="the `src` of another build")
    parser.add_argument("--make", metavar="SRC", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make)
        return
    if not options.against:
        parser.error("name the `src` of another build with --against")
    now, earlier = plans(ROOT / "src"), plans(options.against.resolve())
    same, wrong = 0, 0
    for key, text in now.items():
        if text == earlier[key]:
            same += 1
            continue
        channels, of = otherwise(text, earlier[key])
        wrong += "rounds" not in key
        print(f"{key}: {channels} of {of:,} channels are kept by one plan alone")
    print(f"{same} of {len(now)} plans are the same byte for byte")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
