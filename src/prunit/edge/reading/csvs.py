"""A CSV whose first column names an image: for regression, multilabel and classification."""

import csv
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from prunit.edge.reading.listing import Files, Listing, arranged, some
from prunit.edge.reading.places import SUFFIXES, WHOLE, child, class_names, files_in, folders_in, part_in, read_text
from prunit.edge.reading.targets import Values
from prunit.errors import DataError

LAYOUT: Final = "train.csv and val.csv, or one CSV: a header, then file,value[,value ...] on each line"
_DELIMITERS: Final = (",", ";", "\t")
_JOINED: Final = (("labels",), ("label",), ("tags",), ("classes",))
"""The columns of a table of which one holds all labels of an image."""
_BETWEEN: Final = ("|", ";")


@dataclass(frozen=True)
class _Table:
    file: Path
    columns: tuple[str, ...]
    """Without the first."""
    paths: tuple[Path, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]


def looks_so(place: Path) -> bool:
    """Whether the place is, or holds, a CSV file."""
    return place.suffix.lower() == ".csv" if place.is_file() else place.is_dir() and bool(files_in(place, ".csv"))


def read_values(place: Path, *, known: Sequence[str] | None = None, train: bool = True) -> Listing:
    """For regression: each further column is a value; its header names it."""
    tables, notes = _tables(place)
    names = tuple(known or next(iter(tables.values())).columns)
    files = {part: _files(table, _numbers(table, names)) for part, table in tables.items()}
    return arranged(files, names, "CSV", place, notes=notes, train=train)


def read_labels(place: Path, *, known: Sequence[str] | None = None, train: bool = True) -> Listing:
    """For multilabel: a column of 0 and 1 for each label, or one column `labels` with names joined by | or ;."""
    tables, notes = _tables(place)
    first = next(iter(tables.values()))
    if tuple(name.lower() for name in first.columns) not in _JOINED:
        names = tuple(known or first.columns)
        values = {part: _numbers(table, names, binary=True) for part, table in tables.items()}
    else:
        given = {part: [_split(row[0]) for row in table.rows] for part, table in tables.items()}
        held = sorted({name for rows in given.values() for row in rows for name in row})
        names = tuple(known or class_names(first.file.parent) or held)
        values = {part: _marked(tables[part], rows, names) for part, rows in given.items()}
    if not names:
        raise DataError(f"'{first.file}' holds no label at all")
    files = {part: _files(table, values[part], several=True) for part, table in tables.items()}
    return arranged(files, names, "CSV", place, notes=notes, train=train)


def read_classes(place: Path, *, known: Sequence[str] | None = None, train: bool = True) -> Listing:
    """For classification: the second column names the class."""
    tables, notes = _tables(place)
    for table in tables.values():
        if len(table.columns) > 1:
            raise DataError(
                f"'{table.file}' has the columns {some(table.columns)} besides that of the files: for classification"
                " there must be one, for several write --task multilabel or regression"
            )
    names = known or sorted({row[0] for table in tables.values() for row in table.rows})
    if len(names) < 2:
        raise DataError(f"'{place}' (CSV) names {len(names)} class ({some(names)}): there must be two or more")
    files: dict[str, Files] = {}
    for part, table in tables.items():
        marked = _marked(table, [row[:1] for row in table.rows], names)
        files[part] = Files(table.paths, Values(marked.argmax(axis=1).astype(np.int64)))
    return arranged(files, names, "CSV", place, notes=notes, train=train)


def _tables(place: Path) -> tuple[dict[str, _Table], list[str]]:
    """The tables of the parts, each image once, and what is to be said of them."""
    tables, notes = _tables_as_written(place)
    found: dict[str, _Table] = {}
    for part, table in tables.items():
        found[part], twice = _each_once(table)
        if twice:
            rows = f"{len(twice)} row{'s' if len(twice) > 1 else ''}"
            notes.append(f"{table.file.name}: {rows} left out, the same again: {some(twice)}")
    return found, notes


def _each_once(table: _Table) -> tuple[_Table, list[str]]:
    """The table with the first row of each image, and what was left out; `DataError` where rows say different things.

    An image that stood there twice would be trained on twice, and could be on both sides of a split.
    """
    first: dict[str, int] = {}
    twice: list[str] = []
    for i, path in enumerate(table.paths):
        before = first.setdefault(os.path.normpath(path), i)
        if before == i:
            continue
        if not all(map(_same, table.rows[before], table.rows[i])):
            one, other = (some(table.rows[n]) for n in (before, i))
            raise DataError(
                f"'{table.file}' names '{path.name}' in line {table.lines[before]} ({one}) and in line"
                f" {table.lines[i]} ({other}): keep the one that is right; several labels of an image go into one row,"
                " joined by |"
            )
        twice.append(f"line {table.lines[i]}")
    kept = sorted(first.values())
    paths, rows, lines = (tuple(of[i] for i in kept) for of in (table.paths, table.rows, table.lines))
    return replace(table, paths=paths, rows=rows, lines=lines), twice


def _same(one: str, other: str) -> bool:
    return one == other or (_is_number(one) and _is_number(other) and float(one) == float(other))


def _tables_as_written(place: Path) -> tuple[dict[str, _Table], list[str]]:
    if place.is_file():
        return {WHOLE: _table(place)}, []
    found: dict[str, list[Path]] = {}
    for file in files_in(place, ".csv"):
        found.setdefault(part_in(file.stem) or WHOLE, []).append(file)
    if len(found) > 1:
        found.pop(WHOLE, None)
    several = next((files for files in found.values() if len(files) > 1), None)
    if several is not None:
        raise DataError(
            f"'{place}' holds {some([file.name for file in several])}: which of them is for what? Call them train.csv,"
            " val.csv and test.csv, or give one of them"
        )
    if not found:
        raise DataError(f"'{place}' holds no CSV file; expected {LAYOUT}")
    tables = {part: _table(files[0]) for part, files in found.items()}
    columns = next(tables[part].columns for part in ("train", "val", "test", WHOLE) if part in tables)
    notes: list[str] = []
    for part, table in list(tables.items()):
        lost = [name for name in columns if name not in table.columns]
        if lost:
            if part != "test":
                raise DataError(
                    f"'{table.file}' has no column {some(lost)}; it has {some(table.columns) or 'files alone'}"
                )
            del tables[part]  # of competitions: images whose values are kept secret
            notes.append(f"{table.file.name} has no {some(lost)} and is not used")
    return tables, notes


def _table(file: Path) -> _Table:
    """A CSV file's rows. Paths are relative to it, or to `images` beside it; an ending that is left out is found."""
    text = read_text(file)
    first = next(iter(text.splitlines()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = [name.strip() for name in next(rows, list[str]())]
        lines = [(rows.line_num, [cell.strip() for cell in row]) for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as cause:
        raise DataError(f"'{file}' is no CSV: {cause}") from cause
    if not lines:
        raise DataError(f"'{file}' holds no image: a header and then file,value on each line are needed")
    if len(set(header)) < len(header) or not all(header[1:]):
        raise DataError(f"'{file}' line 1: each column needs a name of its own; it has {some(header)}")
    if len(header) == 1 and part_in(file.stem) != "test":
        raise DataError(f"'{file}' has one column, '{header[0]}': needed are file,value")
    odd = next(((number, row) for number, row in lines if len(row) != len(header)), None)
    if odd is not None:
        raise DataError(f"'{file}' line {odd[0]} has {len(odd[1])} cells, the header {len(header)}: {some(header)}")
    names = [row[0].replace("\\", "/") for _, row in lines]
    if _is_number(header[-1]) and any(header[0].lower().endswith(suffix) for suffix in SUFFIXES):
        raise DataError(f"'{file}' line 1 is an image ({header[0]}), not a header: write file,NAME above it")
    return _Table(
        file,
        tuple(header[1:]),
        _paths(file, names),
        tuple(tuple(row[1:]) for _, row in lines),
        tuple(n for n, _ in lines),
    )


def _paths(file: Path, names: Sequence[str]) -> tuple[Path, ...]:
    near = file.parent
    part = part_in(file.stem)
    inside = [name for name in folders_in(near) if name == file.stem or (part is not None and part_in(name) == part)]
    homes = [near, *filter(None, [child(near, ("images", "image", "imgs"))]), *(near / name for name in inside)]
    for home in homes:
        if (home / names[0]).is_file():
            return tuple(home / name for name in names)
        ending = next((suffix for suffix in sorted(SUFFIXES) if (home / f"{names[0]}{suffix}").is_file()), None)
        if ending is not None:
            return tuple(home / f"{name}{ending}" for name in names)
    tried = some([str(home) for home in homes if home.is_dir()])
    raise DataError(f"'{file}' names the image '{names[0]}', which is in none of {tried}")


def _files(table: _Table, values: np.ndarray[tuple[int, int], np.dtype[np.float32]], several: bool = False) -> Files:
    return Files(table.paths, Values(values, several))


def _numbers(
    table: _Table, names: Sequence[str], *, binary: bool = False
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """(N, D): the columns of these names as numbers; with `binary` 0 and 1 alone."""
    if lost := [name for name in names if name not in table.columns]:
        raise DataError(f"'{table.file}' has no column {some(lost)}; it has {some(table.columns)}")
    at = [table.columns.index(name) for name in names]
    found = np.zeros((len(table.rows), len(names)), np.float32)
    for values, row, line in zip(found, table.rows, table.lines, strict=True):
        for i, column in enumerate(at):
            if not _is_number(row[column]) or (binary and float(row[column]) not in (0, 1)):
                wanted = "0 or 1" if binary else "a number, with a point before its decimals"
                what = f"'{names[i]}' should be {wanted} and is '{row[column]}'"
                raise DataError(f"'{table.file}' line {line}: {what}")
            values[i] = float(row[column])
    return found


def _marked(
    table: _Table, given: Sequence[Sequence[str]], names: Sequence[str]
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """(N, K): 1 where a label is given."""
    number = {name: i for i, name in enumerate(names)}
    found = np.zeros((len(given), len(names)), np.float32)
    for row, labels, line in zip(found, given, table.lines, strict=True):
        for label in labels:
            if label not in number:
                raise DataError(f"'{table.file}' line {line}: '{label}' is none of the classes {some(names)}")
            row[number[label]] = 1
    return found


def _split(text: str) -> list[str]:
    """The labels in a cell."""
    for mark in _BETWEEN[1:]:
        text = text.replace(mark, _BETWEEN[0])
    return [label.strip() for label in text.split(_BETWEEN[0]) if label.strip()]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
