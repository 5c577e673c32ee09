"""Portfolios of models that tell red, green and blue apart by arithmetic, and labelled pictures of these colours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from prunit.edge.portfolio import Artifact, Metrics, Portfolio, Preprocessing, TaskRecord, Variant
from prunit.edge.runtimes import runtime
from prunit.files import sha256_of

NAMES: Final = ("red", "green", "blue")
SIZE: Final = 16
EXACT: Final = np.eye(3, dtype=np.float32)
"""The score of each colour is its mean over the picture."""
NO_BLUE: Final = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]], np.float32)
"""Blue is taken for green."""
METRICS: Final = {"classification": "accuracy", "segmentation": "mIoU", "detection": "mAP", "regression": "r2"}


def picture(colour: int, *, size: tuple[int, int] = (SIZE, SIZE), seed: int = 0) -> np.ndarray:
    """(H, W, 3), mostly of one colour."""
    noise = np.random.default_rng(seed).integers(0, 60, (*size, 3), np.uint8)
    noise[..., colour] += 180
    return noise


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def class_folders(place: Path, parts: Mapping[str, int], *, names: Sequence[str] = NAMES, ending: str = ".png") -> Path:
    """PART/COLOUR/*.png, so many of each colour; pictures are wider than high, as photos are."""
    for part, number in parts.items():
        for i in range(number):
            for colour, name in enumerate(NAMES):
                if name in names:
                    seed = 100 * i + colour + 10_000 * len(part)
                    save(place / part / name / f"{i}{ending}", picture(colour, size=(20, 30), seed=seed))
    return place


def halves(place: Path, number: int) -> Path:
    """images/ and masks/: the left half of each picture is red (0), the right half green (1), or blue (2)."""
    for i in range(number):
        right = 1 + i % 2
        pixels = np.concatenate([picture(0, seed=i)[:, : SIZE // 2], picture(right, seed=i)[:, SIZE // 2 :]], axis=1)
        save(place / "images" / f"{i}.png", pixels)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[:, SIZE // 2 :] = right
        save(place / "masks" / f"{i}.png", mask)
    return place


def boxes(place: Path, number: int, *, names: Sequence[str] = NAMES) -> Path:
    """VOC: a picture of each colour, the middle of which is marked as what it is."""
    for i in range(number):
        colour = i % 3
        save(place / "JPEGImages" / f"{i}.png", picture(colour, seed=i))
        low, high = SIZE // 4, 3 * SIZE // 4
        box = f"<xmin>{low}</xmin><ymin>{low}</ymin><xmax>{high}</xmax><ymax>{high}</ymax>"
        xml = f"<annotation><size><width>{SIZE}</width><height>{SIZE}</height></size>"
        xml += f"<object><name>{names[colour]}</name><bndbox>{box}</bndbox></object></annotation>"
        file = place / "Annotations" / f"{i}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(xml)
    lists = place / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(map(str, range(number))))
    return place


def portfolio_of(
    folder: Path,
    task: str = "classification",
    matrices: Mapping[str, np.ndarray] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    classes: Sequence[str] = NAMES,
) -> Portfolio:
    """A portfolio in `folder`: by default 'dense', which is always right, and 'small', which knows no blue."""
    folder.mkdir(parents=True, exist_ok=True)
    matrices = {"dense": EXACT, "small": NO_BLUE} if matrices is None else matrices
    metric = METRICS.get(task, "mAP")
    found = Portfolio(
        name="colours",
        model="arithmetic",
        data="pictures",
        task=TaskRecord(name=task, metric=metric, settings=dict(settings or {})),
        classes=tuple(classes),
        preprocessing=Preprocessing(
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            size=(SIZE, SIZE),
            fit="letterbox" if task in ("segmentation", "detection") else "crop",
        ),
        variants=tuple(_variant(folder, name, matrix, task) for name, matrix in matrices.items()),
        prunit_version="0.1.0",
        created="2026-07-04T12:31:44+00:00",
    )
    found.write(folder)
    return found


def _variant(folder: Path, name: str, matrix: np.ndarray, task: str) -> Variant:
    file = folder / f"{name}.onnx"
    onnx.save(_model(matrix.astype(np.float32), task), file)
    x_BCHW = np.random.default_rng(0).random((2, 3, SIZE, SIZE), np.float32)
    session = runtime().open(file)
    np.savez(folder / f"{name}.npz", input=x_BCHW, expected=session.run(x_BCHW))
    return Variant(
        name=name,
        recipe="dense" if name == "dense" else "reconvene",
        keep=1.0 if name == "dense" else 0.5,
        artifact=Artifact(
            path=file.name,
            sha256=sha256_of(file),
            bytes=file.stat().st_size,
            input_name="x",
            input_shape=(3, SIZE, SIZE),
            output_name="y",
            self_test=f"{name}.npz",
            self_test_sha256=sha256_of(folder / f"{name}.npz"),
            tolerance=1e-4,
        ),
        metrics=Metrics(params=9, macs=9, weight_bytes=36, activation_bytes=36, file_bytes=file.stat().st_size),
    )


def _model(matrix: np.ndarray, task: str) -> onnx.ModelProto:
    """Scores by the matrix: of each pixel for segmentation, else of the mean colour, for detection beside a box."""
    outputs = len(matrix)
    weight, bias = matrix[:, :, None, None], np.zeros(outputs, np.float32)
    if task == "detection":
        outputs += 4
        weight = np.concatenate([np.zeros((4, 3, 1, 1), np.float32), weight])
        bias = np.concatenate([np.array([0.25, 0.25, 0.75, 0.75], np.float32), bias])
    weights = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    nodes = [helper.make_node("Conv", ["mean", "w", "b"], ["scores"])]
    if task == "segmentation":
        nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"])]
        shape: list[Any] = ["n", outputs, SIZE, SIZE]
    else:
        nodes.insert(0, helper.make_node("GlobalAveragePool", ["x"], ["mean"]))
        ends = [0, 1, outputs] if task == "detection" else [0, outputs]
        weights.append(numpy_helper.from_array(np.array(ends, np.int64), "ends"))
        nodes.append(helper.make_node("Reshape", ["scores", "ends"], ["y"]))
        shape = ["n", *ends[1:]]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
