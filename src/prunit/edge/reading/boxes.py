"""What the readers of boxes have in common: classes by name, and boxes that cannot be used left out by name."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prunit.edge.reading.listing import Files, some
from prunit.edge.reading.targets import Boxes, clipped, has_area
from prunit.errors import DataError

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Object:
    """A box x1, y1, x2, y2 in the units of its frame, and the name or number of its class."""

    box: Box
    label: str
    ignored: bool = False


@dataclass(frozen=True)
class Photo:
    """A photo and what was marked in it; `frame` as in `Boxes.frames`, `file` is where that stands."""

    path: Path
    file: Path
    frame: tuple[int, int]
    objects: tuple[Object, ...]


@dataclass(frozen=True)
class Notes:
    """What a reader left out, put together to a few words at its end."""

    without_area: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def told(self) -> tuple[str, ...]:
        """A note for each kind."""
        found = list(self.others)
        if self.without_area:
            boxes = f"{len(self.without_area)} box{'' if len(self.without_area) == 1 else 'es'} without area left out"
            found.append(f"{boxes}: {some(self.without_area)}")
        if self.cut:
            boxes = f"{len(self.cut)} box{'' if len(self.cut) == 1 else 'es'} cut at the border"
            found.append(f"{boxes}: {some(self.cut, 3)}")
        return tuple(found)


def names_in(photos: Sequence[Photo]) -> tuple[str, ...]:
    """The classes that have a box, by name."""
    return tuple(sorted({one.label for photo in photos for one in photo.objects}))


def files_of(photos: Sequence[Photo], classes: Sequence[str], notes: Notes) -> Files:
    """The photos with their boxes: cut at the border, and without those of which nothing is left (named in `notes`)."""
    number = {name: i for i, name in enumerate(classes)}
    found: list[np.ndarray[tuple[int, int], np.dtype[np.float64]]] = []
    for photo in photos:
        rows = np.zeros((len(photo.objects), 6), np.float64)
        for row, one in zip(rows, photo.objects, strict=True):
            if one.label not in number:
                raise DataError(
                    f"'{photo.file}' has a box of '{one.label}', which is none of the classes {some(classes)}"
                )
            row[:] = (*one.box, number[one.label], one.ignored)
        if not np.isfinite(rows).all():
            raise DataError(f"'{photo.file}' has a box with a coordinate that is no finite number")
        if photo.frame != (0, 0):
            whole = rows[:, :4].copy()
            rows[:, :4] = clipped(rows[:, :4], photo.frame)
            # Less than what labels are rounded to is no news: six decimals of shares, a few hundredths of a pixel.
            rounding = 1e-5 if photo.frame == (1, 1) else 0.05
            beyond = (np.abs(rows[:, :4] - whole) > rounding).any(axis=1) & has_area(rows)
            notes.cut.extend([photo.file.name] * int(beyond.sum()))
        there = has_area(rows)
        notes.without_area.extend([photo.file.name] * int((~there).sum()))
        found.append(rows[there])
    return Files(tuple(p.path for p in photos), Boxes(tuple(found), tuple(p.frame for p in photos)))
