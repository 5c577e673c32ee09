"""What judging a portfolio costs beyond decoding and the engine: `python -m bench.evaluating`.

10,000 small JPEG files (CIFAR-10's test images where PRUNIT_DATA has them, else noise) and one variant, an untrained
ResNet-20: how good it is does not matter here. Taking turns: `prunit evaluate` as a whole, from the listing of the
folder to the intervals; decoding and the engine alone, overlapping in the same way; each of both for itself. Then, in a
process of its own without torch, the resident memory after 1,000, 5,000 and 10,000 images.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench._common import RESULTS, ROOT, quotient, record, spread, take_turns, write
from prunit.edge.judging.evaluation import evaluate
from prunit.edge.judging.judge import BATCH, JudgeSettings, judge
from prunit.edge.judging.labelled import labelled
from prunit.edge.pixels import opened, placed
from prunit.edge.portfolio import Portfolio
from prunit.edge.runtimes import runtime
from prunit.edge.session import Session

CLASSES: Final = tuple(f"class-{i}" for i in range(10))
MARKS: Final = (1_000, 5_000, 10_000)
SIDE: Final = 32
_PART: Final = 8


def images(number: int) -> tuple[str, np.ndarray]:
    """Where they come from, and x_BHWC (uint8): CIFAR-10's test images, else noise that is a little smooth."""
    file = Path(os.environ.get("PRUNIT_DATA") or "data") / "cifar-10-batches-py" / "test_batch"
    if file.is_file():
        from prunit.zoo.data import cifar

        split = cifar.read_10(file.parent).test
        return "CIFAR-10", split.x_BCHW[:number].numpy().transpose(0, 2, 3, 1)
    small = np.random.default_rng(0).integers(0, 256, (number, SIDE // 4, SIDE // 4, 3), np.uint8)
    return "noise", small.repeat(4, axis=1).repeat(4, axis=2)


def photos_in(place: Path, number: int) -> str:
    """Write DIR/test/CLASS/*.jpg, the classes by turns; where the images come from."""
    from PIL import Image

    source, x_BHWC = images(number)
    for i, x_HWC in enumerate(x_BHWC):
        file = place / "test" / CLASSES[i % len(CLASSES)] / f"{i:05}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x_HWC).save(file, quality=90)
    return source


def portfolio_in(folder: Path) -> Portfolio:
    """A ResNet-20 that is not trained."""
    import torch

    from prunit import zoo
    from prunit.edge.portfolio import Metrics, Preprocessing, Variant
    from prunit.export import EXPORTERS

    model = zoo.load("resnet20", num_classes=len(CLASSES), image_size=SIDE)
    artifact = EXPORTERS["onnx"](model, torch.zeros(1, 3, SIDE, SIDE), folder, name="dense")
    metrics = Metrics(params=1, macs=1, weight_bytes=1, activation_bytes=1, file_bytes=artifact.bytes)
    found = Portfolio(
        name="evaluating",
        model="resnet20",
        data="photos",
        classes=CLASSES,
        preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, size=(SIDE, SIDE)),
        variants=(Variant(name="dense", recipe="dense", keep=1.0, artifact=artifact, metrics=metrics),),
        prunit_version="",
        created="",
    )
    found.write(folder)
    return found


def decoded(paths: Sequence[Path]) -> np.ndarray:
    """x_BCHW (uint8) of some files."""
    found = np.empty((len(paths), 3, SIDE, SIDE), np.uint8)
    for i, path in enumerate(paths):
        with opened(path) as image:
            found[i] = placed(image, (SIDE, SIDE))[0]
    return found


def alone(paths: Sequence[Path], portfolio: Portfolio, session: Session | None, decoders: int) -> None:
    """Decode all files by threads, two batches ahead, and show them to the engine if there is one; nothing is kept."""
    batches = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
    with ThreadPoolExecutor(decoders) as pool:
        waiting: deque[list[Any]] = deque()
        for i in range(len(batches) + 2):
            if i < len(batches):
                starts = range(0, len(batches[i]), _PART)
                waiting.append([pool.submit(decoded, batches[i][start : start + _PART]) for start in starts])
            if i >= 2:
                x_BCHW = np.concatenate([part.result() for part in waiting.popleft()])
                if session is not None:
                    session.run(portfolio.preprocessing.normalise(x_BCHW))


def speed(folder: Path, place: Path, rounds: int, decoders: int) -> list[dict[str, Any]]:
    """Images per second of each way, all taking turns."""
    portfolio = Portfolio.read(folder)
    paths = labelled(portfolio, place).files.paths
    session = runtime().open(folder / portfolio.variants[0].artifact.path)
    x_BCHW = portfolio.preprocessing.normalise(decoded(paths[:BATCH]))

    def engine() -> None:
        for start in range(0, len(paths), BATCH):
            session.run(x_BCHW[: len(paths) - start])

    ways = {
        "prunit evaluate": lambda: evaluate(portfolio, folder, place, settings=JudgeSettings(decoders=decoders)),
        "decoding and engine": lambda: alone(paths, portfolio, session, decoders),
        "decoding": lambda: alone(paths, portfolio, None, decoders),
        "engine": engine,
    }

    def timed(way: Any) -> tuple[float, float]:
        """Images per second by the clock, and microseconds of all cores together for each image."""
        started, worked = time.perf_counter(), time.process_time()
        way()
        return len(paths) / (time.perf_counter() - started), 1e6 * (time.process_time() - worked) / len(paths)

    found = take_turns({name: lambda way=way: timed(way) for name, way in ways.items()}, rounds)
    rates, costs = ({name: [one[k] for one in all_of] for name, all_of in found.items()} for k in (0, 1))
    return [
        {
            "part": "speed",
            "way": name,
            "images_per_s": spread(rates[name]),
            "of_both": quotient(rates[name], rates["decoding and engine"]),
            "cpu_us": spread(costs[name]),
            "cpu_of_both": quotient(costs[name], costs["decoding and engine"]),
        }
        for name in ways
    ]


def memory(folder: Path, place: Path, marks: Sequence[int]) -> list[dict[str, Any]]:
    """Resident bytes of a process of its own at the start, and after so many images."""
    wish = json.dumps({"folder": str(folder), "place": str(place), "marks": list(marks)})
    path = os.pathsep.join(p for p in sys.path if p)
    child = subprocess.run(
        [sys.executable, "-m", "bench.evaluating", "--child", wish],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(child.stdout.splitlines()[-1])
    return [{"part": "memory", "images": int(at), "resident_bytes": size} for at, size in told.items()]


def resident(folder: Path, place: Path, marks: Sequence[int]) -> dict[int, int]:
    """The body of that process."""
    import psutil

    process, found = psutil.Process(), dict[int, int]()
    portfolio = Portfolio.read(folder)
    files = labelled(portfolio, place).files
    found[0] = process.memory_info().rss

    def tell(done: int, total: int) -> None:
        found.update({mark: process.memory_info().rss for mark in marks if mark <= done and mark not in found})

    judge(portfolio, folder, files, tell=tell)
    assert "torch" not in sys.modules
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluating", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS / "evaluating.json", metavar="FILE", help="where to write")
    parser.add_argument("--rounds", type=int, default=7, help="default 7")
    parser.add_argument("--images", type=int, default=MARKS[-1], help=f"default {MARKS[-1]}")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        wish = json.loads(options.child)
        print(json.dumps(resident(Path(wish["folder"]), Path(wish["place"]), wish["marks"])))
        return
    decoders = JudgeSettings().decoders
    with tempfile.TemporaryDirectory() as temporary:
        folder, place = Path(temporary) / "portfolio", Path(temporary) / "photos"
        source = photos_in(place, options.images)
        folder.mkdir()
        portfolio_in(folder)
        rows = speed(folder, place, options.rounds, decoders)
        rows += memory(folder, place, [mark for mark in MARKS if mark <= options.images])
    for row in rows:
        print(row)
    config = {"source": source, "images": options.images, "model": "resnet20", "batch": BATCH, "decoders": decoders}
    result = record("evaluating", rows, config=config, n=options.rounds, percentile="median (p50)", threads=1)
    write(result, options.json)


if __name__ == "__main__":
    main()
