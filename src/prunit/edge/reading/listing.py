"""What reading labelled images gives: `Listing`, the files and targets of its parts, no photo decoded yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from prunit.edge.reading.targets import Boxes, Targets, Values
from prunit.errors import DataError

HELD_OUT: Final = 0.2
"""The share of images that an automatic split keeps from training."""


@dataclass(frozen=True, eq=False)
class Files:
    """Image files and their targets."""

    paths: tuple[Path, ...]
    targets: Targets

    def __len__(self) -> int:
        return len(self.paths)

    def taken(self, index: Sequence[int]) -> "Files":
        """Some of them, in this order."""
        return Files(tuple(self.paths[i] for i in index), self.targets.taken(index))


@dataclass(frozen=True, eq=False)
class Listing:
    """Labelled images, none of them opened yet: parts train, val and test, as far as they are there.

    Models are judged by test, so that val, where both are there, can be used to choose by: test is not looked at before
    the end. Without a part to judge by, a fifth of the training images became `val` (`automatic`).
    """

    layout: str
    """How the files lie there, in a word: VOC, COCO, YOLO, masks, CSV, class folders."""
    parts: Mapping[str, Files]
    classes: tuple[str, ...]
    """What is told apart: names of classes, or of values that are estimated."""
    notes: tuple[str, ...] = ()
    """What was left out or taken to mean something, each in a few words."""
    automatic: bool = False

    @property
    def train(self) -> Files:
        return self.parts["train"]

    @property
    def judged_by(self) -> str:
        """The name of the part by which models are judged: test, else val, else the only one there is."""
        return next((name for name in ("test", "val") if name in self.parts), next(iter(self.parts)))

    @property
    def judged(self) -> Files:
        """The images by which models are judged."""
        return self.parts[self.judged_by]

    @property
    def watched(self) -> Files | None:
        """The images by which a training is watched and choices are made: val, where models are judged by test."""
        return self.parts.get("val") if self.judged_by == "test" else None

    def with_note(self, note: str) -> "Listing":
        """The same, with one more thing to say."""
        return replace(self, notes=(*self.notes, note))

    @property
    def told(self) -> str:
        """In one line what was read: images, boxes, classes, parts, and what was left out."""
        images = sum(len(part) for part in self.parts.values())
        boxes = [part.targets.number for part in self.parts.values() if isinstance(part.targets, Boxes)]
        what = f"{images:,} photos with {sum(boxes):,} boxes" if boxes else f"{images:,} images"
        several = len(self.classes) != 1
        values = any(_is_values(part.targets) for part in self.parts.values())
        kind = ("values" if several else "value") if values else ("classes" if several else "class")
        names = f"{len(self.classes)} {kind} ({some(self.classes)}"
        parts = ", ".join(f"{name} {len(part):,}{self._use(name)}" for name, part in self.parts.items())
        return "; ".join([f"{what} of {names}; {self.layout}): {parts}", *self.notes])

    def _use(self, name: str) -> str:
        if self.automatic:
            return f" ({HELD_OUT:.0%} held out, drawn with a fixed seed)" if name == "val" else ""
        if name == "train" or len(self.parts) == 1:
            return ""
        return " (judged by)" if name == self.judged_by else " (watched in training)"


def arranged(
    parts: Mapping[str, Files],
    classes: Sequence[str],
    layout: str,
    place: Path,
    *,
    notes: Sequence[str] = (),
    train: bool = True,
) -> Listing:
    """The listing of the parts that were found at `place`; where none is to judge by, a fifth is held out.

    A test without a single box, as competitions have it, tells nothing: beside a val it is left aside. `DataError`
    where a part has no images, and where there is nothing to train on though `train` asks for it.
    """
    empty = next((name for name, files in parts.items() if not len(files)), None)
    if empty is not None or not parts:
        raise DataError(f"'{place}' ({layout}): {f'part {empty} has' if parts else 'there are'} no labelled images")
    if "val" in parts and "test" in parts and _says_nothing(parts["test"].targets):
        parts = {name: files for name, files in parts.items() if name != "test"}
        notes = [*notes, "test has not a single box and is left aside"]
    if len(parts) == 1 and next(iter(parts)) not in ("val", "test"):
        trained, held = split(next(iter(parts.values())))
        return Listing(layout, {"train": trained, "val": held}, tuple(classes), tuple(notes), automatic=True)
    if train and "train" not in parts:
        raise DataError(f"'{place}' ({layout}) has {' and '.join(parts)} but no part to train on: name one train")
    order = [name for name in ("train", "val", "test") if name in parts]
    return Listing(layout, {name: parts[name] for name in order}, tuple(classes), tuple(notes))


def split(files: Files, seed: int = 0) -> tuple[Files, Files]:
    """Training images and a fifth that is held out, of each stratum as large a share as can be; always the same.

    Of a stratum of one image that image is trained on. The order of the files stays.
    """
    if len(files) < 2:
        raise DataError(
            f"{len(files)} image{'' if len(files) == 1 else 's'} cannot be split into train and val: give more"
        )
    strata = files.targets.strata()
    shuffled = np.random.default_rng(seed).permutation(len(files))
    # Shuffled inside the strata, which lie one behind the other: every fifth is a fifth of each.
    order = shuffled[np.argsort(strata[shuffled], kind="stable")]
    step = round(1 / HELD_OUT)
    every = order[min(step // 2, len(order) - 1) :: step]
    alone = np.bincount(strata)[strata[every]] == 1
    held = np.zeros(len(files), np.bool_)
    held[every if alone.all() else every[~alone]] = True
    return files.taken(np.flatnonzero(~held).tolist()), files.taken(np.flatnonzero(held).tolist())


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of many names."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _says_nothing(targets: Targets) -> bool:
    return isinstance(targets, Boxes) and not targets.number


def _is_values(targets: Targets) -> bool:
    return isinstance(targets, Values) and targets.values.ndim == 2 and not targets.several
