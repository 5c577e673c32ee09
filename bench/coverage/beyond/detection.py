"""torchvision's networks that do not classify one picture, and all generations of YOLO."""

from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from bench.coverage.beyond.case import CLASSES, Beyond, Build, given, made, named, plain, shaped
from bench.coverage.networks import Draw, noise

_YOLO = {
    "yolov3-tiny": "DetectionModel",
    "yolov5n": "DetectionModel",
    "yolov6n": "DetectionModel",
    "yolov8n": "DetectionModel",
    "yolov8n-ghost": "DetectionModel",
    "yolov8n-seg": "SegmentationModel",
    "yolov8n-pose": "PoseModel",
    "yolov8n-obb": "OBBModel",
    "yolov8n-cls": "ClassificationModel",
    "yolov9t": "DetectionModel",
    "yolov10n": "DetectionModel",
    "yolo11n": "DetectionModel",
    "yolo11n-seg": "SegmentationModel",
    "yolo12n": "DetectionModel",
    "yolo26n": "DetectionModel",
    "yolo26n-seg": "SegmentationModel",
    "yolo26n-pose": "PoseModel",
    "yolo26n-obb": "OBBModel",
    "rtdetr-resnet50": "RTDETRDetectionModel",
}


def ultralytics() -> list[Beyond]:
    """YOLO 3 to 26 in their smallest forms, with heads for boxes, masks, poses, turned boxes and classes; RT-DETR."""
    builds: dict[str, Build] = {}
    for name, kind in _YOLO.items():
        more: dict[str, Any] = {"data_kpt_shape": (5, 3)} if kind == "PoseModel" else {}
        make = made(f"ultralytics.nn.tasks:{kind}", f"{name}.yaml", ch=3, nc=CLASSES, verbose=False, **more)
        builds[name] = plain(make)
    return named("ultralytics", builds)


def torchvision() -> list[Beyond]:
    """Segmentation, video, optical flow, auxiliary heads, detection with and without a second stage."""
    models = "torchvision.models"

    def net(path: str, **more: object):
        return made(f"{models}.{path}", **{"weights": None, "num_classes": CLASSES} | more)

    def segmenter(name: str):
        return net(f"segmentation:{name}", weights_backbone=None, aux_loss=True)

    def detector(name: str, size: int, **more: object):
        def make() -> nn.Module:
            return net(f"detection:{name}", weights_backbone=None, **more)()

        return given(make, scenes(size))

    builds = {
        "googlenet-aux": plain(net("googlenet:googlenet", aux_logits=True, init_weights=False)),
        "deeplabv3_mobilenet_v3_large": plain(segmenter("deeplabv3_mobilenet_v3_large")),
        "deeplabv3_resnet50": plain(segmenter("deeplabv3_resnet50")),
        "fcn_resnet50": plain(segmenter("fcn_resnet50")),
        "lraspp_mobilenet_v3_large": plain(net("segmentation:lraspp_mobilenet_v3_large", weights_backbone=None)),
        "r3d_18": shaped(net("video:r3d_18"), 3, 4, 32, 32),
        "mc3_18": shaped(net("video:mc3_18"), 3, 4, 32, 32),
        "r2plus1d_18": shaped(net("video:r2plus1d_18"), 3, 4, 32, 32),
        "raft_small": given(lambda: _raft("raft_small"), _pairs),
        "features-resnet18": plain(_features),
        "ssdlite320_mobilenet_v3_large": detector("ssdlite320_mobilenet_v3_large", 320),
        "retinanet_resnet50_fpn": detector("retinanet_resnet50_fpn", 64, min_size=64, max_size=64),
        "fcos_resnet50_fpn": detector("fcos_resnet50_fpn", 64, min_size=64, max_size=64),
        "fasterrcnn_mobilenet_v3_large_320_fpn": detector(
            "fasterrcnn_mobilenet_v3_large_320_fpn", 64, min_size=64, max_size=64
        ),
        "maskrcnn_resnet50_fpn": detector("maskrcnn_resnet50_fpn", 64, min_size=64, max_size=64),
    }
    return named("torchvision", builds)


def _features() -> nn.Module:
    from torchvision.models import resnet18
    from torchvision.models.feature_extraction import create_feature_extractor

    return create_feature_extractor(resnet18(num_classes=CLASSES), {"layer2": "middle", "layer4": "last"})


def _raft(name: str) -> nn.Module:
    """Optical flow that may run in float64: its grid of coordinates is made in float32 otherwise."""
    from torchvision.models import optical_flow
    from torchvision.models.optical_flow import raft

    grid = raft.make_coords_grid
    if not hasattr(grid, "__wrapped__"):
        found = wraps(grid)(lambda *args, **kwargs: grid(*args, **kwargs).to(torch.get_default_dtype()))
        raft.make_coords_grid = found
    return getattr(optical_flow, name)(weights=None)


def _pairs(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two pictures, the second a little moved; optical flow asks for 128 pixels at least."""
    x_BCHW = noise(generator, n, 3, 128, 128)
    return x_BCHW, x_BCHW.roll(2, -1)


def scenes(size: int) -> Draw:
    """A list of pictures, and for each what is to be seen: boxes, classes and masks."""

    def draw(n: int, generator: torch.Generator) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        pictures, targets = [], []
        for _ in range(n):
            pictures.append(noise(generator, 3, size, size))
            corner = torch.rand(2, 2, dtype=torch.float64, generator=generator) * size / 2
            boxes = torch.cat([corner, corner + size / 3], dim=1)
            masks = torch.zeros(2, size, size, dtype=torch.uint8)
            masks[:, size // 3 : size // 2, size // 3 : size // 2] = 1
            targets.append({"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks})
        return pictures, targets

    return draw
