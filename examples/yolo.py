"""YOLO11n at half its multiply-adds: cut before training, trained by its own trainer, exported, measured, to be served.

    pip install 'prunit[train,edge]' ultralytics
    python examples/yolo.py --data DIR --out yolo-portfolio

DIR holds photos and boxes, of Pascal VOC, COCO or YOLO. Ultralytics is no part of prunit and yours to install; it is
under the licence AGPL-3.0, and so is what is made with it, unless you have another one from its makers.

What to know of it: `YOLO.train()` builds its network anew, from the description that a network carries with it, at full
width and without a word. `keeping` below makes a trainer that takes the network as it is; that it did is checked after
the training, channel by channel. Nothing is fetched: the network begins with random weights.
"""

import argparse
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "true")  # no look for newer versions, fonts or weights; before it is imported

import numpy as np
import torch
from PIL import Image
from torch import nn

import prunit
from prunit.edge.comparing.resampling import interval
from prunit.edge.pixels import Placing, opened, placed
from prunit.edge.portfolio import Portfolio, Preprocessing
from prunit.edge.reading import Boxes, Files, Listing, read
from prunit.edge.runtimes import runtime
from prunit.edge.tasks import Evidence
from prunit.tasks import Detection

TASK = Detection(boxes="cxcywh", unit="pixels", channels_first=True)
"""What YOLO's head gives in its form for export: (B, 4 + K, N), centre, width and height in pixels, and K scores."""


def main() -> None:
    """Both variants from the data to the portfolio, each figure printed."""
    asked = arguments()
    listing = read(asked.data, "detection")
    print(listing.told)
    x = torch.zeros(1, 3, asked.size, asked.size)
    dense = network(len(listing.classes))
    graph = prunit.trace(dense, x)
    plan = prunit.plan(dense, x, budget=asked.budget, config={"round_to": asked.round_to})
    print(f"dense {prunit.cost(graph)}\ncut   {prunit.cost(graph, plan)}")
    off, cut_away = inexactness(dense, x, plan)
    print(f"cut and masked network differ by {off:.1g} of the largest output, masked and dense one by {cut_away:.1g}")
    assert off < 1e-9 < cut_away
    small = prunit.compact(dense, graph, plan)
    with TemporaryDirectory() as folder:
        data = yolo_labels(listing, Path(folder))
        dense, small = trained(dense, data, asked), trained(small, data, asked)
    check_widths(small, plan, x)
    for model, its_plan in ((dense, None), (small, plan)):
        evidence = judged(in_torch(for_export(model)), listing.judged, asked.size)
        portfolio = prunit.portfolio.add(
            *(asked.out, for_export(model), its_plan),
            example=x,
            task=TASK,
            classes=listing.classes,
            data=asked.data.name,
            replace=True,
            metrics=TASK.metrics(evidence),
            measure=its_plan is not None,
        )
    tell(portfolio, asked.out, listing.judged)


def network(classes: int) -> nn.Module:
    """YOLO11n with random weights, for so many classes; `YOLO("yolo11n.yaml").model` is the same for 80."""
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    return DetectionModel("yolo11n.yaml", nc=classes, verbose=False)


def inexactness(dense: nn.Module, x: torch.Tensor, plan: prunit.Plan) -> tuple[float, float]:
    """How far the cut network is from the masked one, and how far the dense one is from both.

    On noise, in float64, as shares of the largest value before the last sigmoid, which would hide much. Statistics and
    gains of batch norms are stirred first: those of a new network let little through.
    """
    stirred = deepcopy(dense).double().eval()
    for module in stirred.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    noise = torch.rand(2, *x.shape[1:], dtype=torch.float64)
    graph = prunit.trace(stirred, noise)
    models = (prunit.compact(stirred, graph, plan), prunit.mask(stirred, graph, plan), stirred)
    with torch.no_grad():
        cut, masked, whole = (model.eval()(noise)[1] for model in models)
    names = ("boxes", "scores")
    largest = {name: float(masked[name].abs().max()) for name in names}
    return tuple(
        max(float((other[name] - masked[name]).abs().max()) / largest[name] for name in names) for other in (cut, whole)
    )


def yolo_labels(listing: Listing, folder: Path) -> Path:
    """data.yaml of a folder with links to the photos and with labels as Ultralytics reads them."""
    for part in ("train", "val"):
        images, labels = folder / "images" / part, folder / "labels" / part
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        files = listing.parts.get(part, listing.judged)
        assert isinstance(files.targets, Boxes)
        for i, path in enumerate(files.paths):
            (images / path.name).symlink_to(path.resolve())
            with opened(path) as image:
                wide, high = image.size
            whole = Placing.of((high, wide), (high, wide), "letterbox")
            rows = [row for row in files.targets.of(i, whole) if not row[5]]  # it has no word for ignored ones
            (labels / path.name).with_suffix(".txt").write_text("".join(_line(row, wide, high) for row in rows))
    names = "".join(f"  {k}: {name}\n" for k, name in enumerate(listing.classes))
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return folder / "data.yaml"


def _line(row: Any, wide: int, high: int) -> str:
    """A class, then centre, width and height as shares of the photo."""
    x1, y1, x2, y2, label, _ = row.tolist()
    return f"{int(label)} {(x1 + x2) / 2 / wide} {(y1 + y2) / 2 / high} {(x2 - x1) / wide} {(y2 - y1) / high}\n"


def keeping(model: nn.Module) -> type:
    """A trainer of Ultralytics' whose network is this one. Its own makes another from `model.yaml`."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    class Keeping(DetectionTrainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
            return model

    return Keeping


def trained(model: nn.Module, data: Path, asked: argparse.Namespace) -> nn.Module:
    """The network after Ultralytics' training: its averaged weights of the best epoch, which it keeps in 16 bits."""
    from ultralytics import YOLO

    yolo = YOLO("yolo11n.yaml")
    yolo.train(
        trainer=keeping(model),
        data=str(data),
        project=str(data.parent / "runs"),
        imgsz=asked.size,
        epochs=asked.epochs,
        batch=asked.batch,
        nbs=asked.batch,  # a step for each batch: of few photos there are few
        optimizer="AdamW",
        lr0=asked.lr,
        warmup_epochs=1,
        device=asked.device,
        amp=False,  # its check of mixed precision fetches a network
        workers=0,
        plots=False,
        seed=0,
        cache="ram",
    )
    return yolo.model.float().cpu()


def check_widths(model: nn.Module, plan: prunit.Plan, x: torch.Tensor) -> None:
    """`AssertionError` unless each group of channels is as wide after the training as the plan left it."""
    found = {group.name: group.size for group in prunit.trace(model, x).groups}
    wrong = [f"{name}: {found.get(name)}, not {width}" for name, width in plan.widths.items() if found[name] != width]
    assert not wrong, f"the training has changed the network: {wrong[:3]}"
    kept, whole = sum(found.values()), sum(plan.dense.values())
    print(f"after the training: {kept:,} of {whole:,} channels in {len(found)} groups, each as the plan says")


def for_export(model: nn.Module) -> nn.Module:
    """The network with its head in the form for export: one tensor. The names of its modules stay."""
    model = deepcopy(model).eval()
    head: Any = model.model[-1]
    head.export, head.format = True, "onnx"
    return model


def in_torch(model: nn.Module) -> Callable[[Any], Any]:
    """The model as what takes and gives arrays."""
    return lambda x_BCHW: model(torch.from_numpy(x_BCHW)).numpy()


@torch.no_grad()
def judged(run: Callable[[Any], Any], files: Files, size: int) -> Evidence:
    """What a network says of photos, beside their boxes: each photo goes the way that it goes on a device."""
    how = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), size=(size, size), fit="letterbox")
    found = []
    for i, path in enumerate(files.paths):
        with opened(path) as image:
            x_CHW, placing = placed(image, how.size, "RGB", how.fit)
        output = run(how.normalise(x_CHW[None]))
        found.append(TASK.evidence([output], files.targets.together([files.targets.of(i, placing)])))
    return np.concatenate(found)


def tell(portfolio: Portfolio, folder: Path, files: Files) -> None:
    """Each variant's figures by the file that a device would run, and what comes next."""
    engine = runtime()
    for variant in portfolio.variants:
        session = engine.open(folder / variant.artifact.path)
        evidence = judged(session.run, files, portfolio.preprocessing.size[0])
        figures = ", ".join(f"{name} {value:.3f}" for name, value in TASK.metrics(evidence).items())
        low, high = interval(TASK, evidence) or (float("nan"),) * 2
        print(f"{variant.name}: {figures} (mAP {low:.3f} to {high:.3f} with 95 %) on {len(files)} photos")
        session.close()
    dense, cut = (variant.metrics.latency_ms() or float("nan") for variant in portfolio.variants)
    print(f"one image in ONNX Runtime on one thread: dense {dense:.2f} ms, cut {cut:.2f} ms, {dense / cut:.2f}x faster")
    drawing = files.paths[0]
    with opened(drawing) as image:
        x_CHW, placing = placed(image, portfolio.preprocessing.size, "RGB", "letterbox")
        photo = np.asarray(image.convert("RGB"))
    output = engine.open(folder / portfolio.variants[-1].artifact.path).run(
        portfolio.preprocessing.normalise(x_CHW[None])
    )
    Image.fromarray(TASK.drawn(photo, [output], portfolio.classes, placing)).save(folder / "drawn.png")
    print(f"boxes of the cut one on {drawing.name}: {folder / 'drawn.png'}\nserve it: prunit serve {folder}")


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="photos and boxes: VOC, COCO or YOLO")
    parser.add_argument("--out", type=Path, default=Path("yolo-portfolio"), help="the portfolio's folder")
    parser.add_argument("--budget", default="macs=1/2")
    parser.add_argument("--round-to", type=int, default=16, help="widths in multiples of this")
    parser.add_argument("--size", type=int, default=320, help="height and width of the input, a multiple of 32")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=0.002)
    parser.add_argument("--device", default="cpu", help="as Ultralytics has them")
    return parser.parse_args()


if __name__ == "__main__":
    main()
