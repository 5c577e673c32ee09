"""Data sets by name, as images held in memory, or on disk where they would take too much of it.

load("digits")                       scikit-learn's own scans, no download
load("cifar10", data_dir=...)        also cifar100, fashion-mnist, tiny-imagenet, in their usual layouts
load("photos")                       a folder photos/train/CLASS/*.jpg with photos/val or photos/test, or both
load("cells", task="detection")      a folder of VOC, COCO or YOLO; of images and masks for task="segmentation"
load("ages.csv", task="regression")  files and values; for task="multilabel" files and labels
load("mine.py:factory")              whatever the factory returns: a Dataset, or four arrays
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from prunit import user
from prunit.batches import Dataset, stratified
from prunit.edge import data_sets
from prunit.edge.reading import Listing
from prunit.errors import ConfigError, DataError
from prunit.tasks import Task, task_named
from prunit.zoo.data import arrays, cifar, digits, idx, images
from prunit.zoo.data.absent import note_of_absent
from prunit.zoo.data.download import Source, fetch
from prunit.zoo.data.raw import Raw, refuse_too_large

__all__ = ["datasets", "load", "measured"]


@dataclass(frozen=True)
class _OnDisk:
    """How a data set of a few files is read, and fetched; which files those are is in `edge.data_sets`."""

    read: Callable[[Path], Raw]
    sources: tuple[Source, ...]


_TORONTO = "https://www.cs.toronto.edu/~kriz"
_ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_ON_DISK: Final[Mapping[str, _OnDisk]] = {
    "cifar10": _OnDisk(
        cifar.read_10,
        (Source(f"{_TORONTO}/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),),
    ),
    "cifar100": _OnDisk(
        cifar.read_100,
        (Source(f"{_TORONTO}/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),),
    ),
    "fashion-mnist": _OnDisk(
        idx.read,
        (
            Source(f"{_ZALANDO}/train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            Source(f"{_ZALANDO}/train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
            Source(f"{_ZALANDO}/t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            Source(f"{_ZALANDO}/t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
    ),
}
_IN_PIXELS: Final = ("segmentation", "detection")
"""Tasks whose targets have places in the image."""


def datasets() -> dict[str, str]:
    """One line about each data set that has a name, by name."""
    return {name: one.about for name, one in data_sets.DATA_SETS.items()}


def load(
    name: str,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    subset: int | None = None,
    image_size: int | None = None,
    seed: int = 0,
    task: str | Task = "classification",
    skip_broken: bool = False,
    stream: bool | None = None,
    listing: Listing | None = None,
) -> Dataset:
    """The data set `name`, looked for in `data_dir` (default: the folder PRUNIT_DATA, else ./data).

    `subset` keeps at most so many training images, as equally many of each class as can be (drawn with `seed`); all
    others stay. `image_size` resizes; for a folder the default is the size that all images have, else 64 or 224,
    and for boxes and masks the images' usual short side, 256 at most. A user's factory is called with those of
    data_dir, image_size and seed that its signature names.

    A folder, or a file that lists images, is read as the `task` needs it (layouts: `edge.reading`). With test and val
    in it models are judged by test, and trainings are watched by val. Where nothing in it is kept to judge models by, a
    fifth of its images is, always the same. With `skip_broken` images that cannot be used
    are left out. Images stay on disk and are read in batches where all would take too much memory, or as `stream` says.
    `listing`: what `edge.data_sets.listed` said of the name, where that is known already. `told` of the result says
    in a line what was read.
    """
    for setting, value in (("subset", subset), ("image_size", image_size)):
        if value is not None and value < 1:
            raise ConfigError(f"{setting}={value} for data set '{name}': it must be at least 1")
    asked = task_named(task) if isinstance(task, str) else task
    place = data_sets.place_of(data_dir)
    listing = data_sets.listed(name, place, asked.name, download=download) if listing is None else listing
    if name in _ON_DISK:
        found: Dataset | Raw = _read(name, place, download=download)
    elif name == "digits":
        found = digits.read()
    elif listing is not None:
        # photos/, as shells complete it, and ./photos are photos: a build may be resumed under any of these names.
        name = str(Path(name))
        part = listing if subset is None else _subset(listing, subset, seed=seed)
        found = images.decode(
            part, name=name, image_size=image_size, fit=asked.fit, skip_broken=skip_broken, stream=stream
        )
        unseen = note_of_absent(name, asked.name, found, may_lack=subset is not None)
        found = replace(found, told=f"{found.told}; {unseen}") if unseen else found
    else:
        offered = {"data_dir": place, "image_size": image_size, "seed": seed}
        found = arrays.from_factory(user.call(name, offered, error=DataError), name, asked)
    if isinstance(found, Raw):
        found = Dataset(
            *(name, found.train, found.test, found.classes, (), (), found.flip, asked, found.told),
            watched=found.watched,
        )
    return _finished(found, subset=subset, image_size=image_size, seed=seed)


def _subset(listing: Listing, n: int, *, seed: int) -> Listing:
    """At most `n` of the training images, as many of each stratum as can be."""
    train = listing.train
    index = stratified(torch.from_numpy(train.targets.strata()), n, seed=seed)
    return replace(listing, parts={**listing.parts, "train": train.taken(index.tolist())})


def _finished(found: Dataset, *, subset: int | None, image_size: int | None, seed: int) -> Dataset:
    """The data set cut, resized and, unless it says so itself, measured."""
    if subset is not None and subset < len(found.train):
        found = found.subset(subset, seed=seed)
    if image_size is not None:
        if image_size != found.image_size and found.task.name in _IN_PIXELS:
            raise DataError(
                f"data set '{found.name}' has images of {found.image_size} pixels with targets in these pixels, which"
                f" are not resized to --image-size {image_size}: let its factory give that size"
            )
        shape = (found.channels, image_size, image_size)
        refuse_too_large(found.name, [len(part) for part in found.parts.values()], shape)
        found = replace(found, **{what: arrays.resized(part, image_size) for what, part in found.parts.items()})
    return measured(found)


def measured(found: Dataset) -> Dataset:
    """The data set with mean and deviation of its pixels, unless it has them, and a task that knows its targets."""
    if not found.mean_C:
        mean_C, std_C = arrays.mean_and_std(found.train.x_BCHW)
        found = replace(found, mean_C=mean_C, std_C=std_C)
    return replace(found, task=found.task.fitted(found.train.y_B, found.image_size))


def _read(name: str, place: Path, *, download: bool) -> Raw:
    one, where = _ON_DISK[name], place / data_sets.DATA_SETS[name].folder
    if download and data_sets.DATA_SETS[name].missing(where):
        fetch(name, one.sources, where)
    data_sets.check_there(name, place, fetched=download)
    return one.read(where)
