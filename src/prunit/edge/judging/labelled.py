"""The labelled images by which a portfolio is judged: a part of a data set, its classes those of the portfolio."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from prunit.edge import reading
from prunit.edge.portfolio import Portfolio
from prunit.edge.reading import Boxes, Files, Listing, Masks, OtherTask, Values
from prunit.edge.reading.absent import absent_in, told_of_absent
from prunit.edge.reading.listing import some
from prunit.edge.reading.places import class_names
from prunit.edge.tasks import DEVICE_TASKS, DeviceTask, device_task
from prunit.errors import DataError, PortfolioError, unknown

SPLITS: Final = ("test", "val", "train")
"""Parts by which models can be judged."""
ALL: Final = "all"
"""All parts together."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Image files with targets whose classes are numbered as the portfolio's."""

    place: Path
    split: str
    files: Files
    layout: str
    notes: tuple[str, ...] = ()


def task_of(portfolio: Portfolio) -> DeviceTask:
    """The task of a portfolio, made from what its manifest says; `PortfolioError` for one that no device knows."""
    record = portfolio.task
    task = device_task(record.name, record.settings, portfolio.preprocessing.size)
    if task is None:
        raise PortfolioError(
            f"portfolio '{portfolio.name}' is for the task '{record.name}', which a device cannot judge by itself; it"
            f" knows {', '.join(DEVICE_TASKS)}: judge it where its own code is"
        )
    return task


def labelled(portfolio: Portfolio, place: Path, *, split: str | None = None) -> Labelled:
    """The images at `place`, a folder or a file that lists images: those of `split`, else of test, else of val.

    Where the place is not divided, it is a fifth of it, the one that a build holds out; `split` "all" takes all of it.
    Classes are matched by their names. Raises `DataError` for a place of another task, of other classes, or without
    that part.
    """
    if split not in (None, ALL, *SPLITS):
        raise unknown("split", str(split), (*SPLITS, ALL))
    task_of(portfolio)
    found = _read(portfolio, place)
    chosen = split or found.judged_by  # as a build
    if chosen == ALL:
        files = _joined(list(found.parts.values()), place)
    elif chosen in found.parts:
        files = found.parts[chosen]
    else:
        raise DataError(
            f"'{place}' has no labelled part {chosen}; it has {' and '.join(found.parts)}: name one with --split"
        )
    notes = list(found.notes)
    if found.automatic and chosen != ALL:
        notes.append(
            "it is not divided: a fifth is held out, always the same, as in a build; --split all takes all of it"
        )
    notes += _absent(files, portfolio, f"'{place}' ({chosen})")
    return Labelled(place, chosen, files, found.layout, tuple(notes))


def _read(portfolio: Portfolio, place: Path) -> Listing:
    classes, task = portfolio.classes, portfolio.task.name
    if not place.exists():
        raise DataError(
            f"there is no folder '{place}': name a folder of labelled images, or a file that lists them; data sets"
            " that have a name of their own are for builds"
        )
    if not (place.is_dir() or place.suffix.lower() in reading.LISTS):
        raise DataError(
            f"'{place}' is neither a folder of labelled images nor a file that lists them"
            f" ({', '.join(sorted(reading.LISTS))})"
        )
    own = class_names(place) if task == "segmentation" and place.is_dir() else None
    try:
        if own is None or own == classes:
            return reading.read(place, task, classes=classes, train=False)
        # Masks hold the numbers of classes, in the order of the folder's own list.
        return _renumbered(reading.read(place, task, train=False), classes, place)
    except OtherTask as error:
        raise DataError(
            f"{error.what}, which portfolio '{portfolio.name}' is for: give labelled data of that"
        ) from None


def _renumbered(found: Listing, classes: Sequence[str], place: Path) -> Listing:
    """Masks whose classes have other numbers than the portfolio's, matched by name."""
    lacks = [name for name in classes if name not in found.classes]
    more = [name for name in found.classes if name not in classes]
    if lacks or more:
        said = [f"lacks {some(lacks)}" if lacks else "", f"has {some(more)} besides" if more else ""]
        raise DataError(
            f"the classes of '{place}' are not the portfolio's ({some(classes)}): it {' and '.join(filter(None, said))}"
        )
    numbers = np.arange(256, dtype=np.uint8)
    numbers[: len(found.classes)] = [classes.index(name) for name in found.classes]
    parts: dict[str, Files] = {}
    for name, files in found.parts.items():
        assert isinstance(files.targets, Masks)
        parts[name] = Files(files.paths, Masks(files.targets.paths, numbers[files.targets.classes]))
    return replace(found, parts=parts, classes=tuple(classes))


def _absent(files: Files, portfolio: Portfolio, where: str) -> list[str]:
    """A note of classes that have nothing here; for one class an image that is `DataError`: accuracy is of all."""
    missing = absent_in(portfolio.task.name, files.targets, len(portfolio.classes))
    names = [portfolio.classes[i] for i in missing]
    if names and portfolio.task.name == "classification":
        raise DataError(
            f"{where} has no images of {some(names)}: the portfolio tells {len(portfolio.classes)} classes apart, and"
            " an accuracy on fewer means something else; add images of each"
        )
    return told_of_absent(names, "judge by")


def _joined(parts: Sequence[Files], place: Path) -> Files:
    """All parts as one."""
    paths = tuple(path for part in parts for path in part.paths)
    targets: Sequence[Any] = [part.targets for part in parts]
    first = targets[0]
    if isinstance(first, Values):
        return Files(paths, Values(np.concatenate([one.values for one in targets]), first.several))
    if isinstance(first, Boxes):
        boxes, frames = ([x for one in targets for x in getattr(one, name)] for name in ("boxes", "frames"))
        return Files(paths, Boxes(tuple(boxes), tuple(frames)))
    if isinstance(first, Masks):
        return Files(paths, Masks(tuple(path for one in targets for path in one.paths), first.classes))
    raise DataError(f"'{place}': parts with targets of this kind cannot be taken together; name one with --split")
