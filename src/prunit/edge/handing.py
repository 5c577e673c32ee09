"""A portfolio, or some of its variants, copied into a folder of its own: what a device gets that needs no more."""

import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from prunit.edge.install import FOLDER
from prunit.edge.portfolio import MANIFEST, Portfolio, file_problem
from prunit.edge.served import FILE, Fleet, of_variants
from prunit.errors import FileError, PortfolioError
from prunit.files import inside
from prunit.remote import check_to_folder


def copied_to(
    to: Path, portfolio: Portfolio, folder: Path, names: Collection[str] | None = None, device: str | None = None
) -> Portfolio:
    """The portfolio as it now lies in the folder `to`: with the variants of these names, or all.

    All files that its manifest names are copied, each checked by its hash, and what is said of a fleet (of one `device`
    only). The folder is there whole or not at all. One that holds what was copied there before is replaced when all is
    ready, by two renames: who opens a file between them finds none, and a server that watches the folder goes over to
    the new one. Raises `FileError` where it cannot be written, or holds anything else or what is for other devices, and
    `PortfolioError` for a file that is damaged, `ConfigError` where `to` was an address.
    """
    check_to_folder(to)
    found = portfolio if names is None else of_variants(portfolio, names)
    fleet = Fleet.read(folder)
    if fleet is not None and device is not None:
        fleet = fleet.only([device])
    own, place = folder.resolve(), to.resolve()
    if place == own or place in own.parents:
        raise FileError(f"'{to}' is or holds the portfolio's own folder: name another one to copy it to")
    if wrong := _in_the_way(to, found, fleet):
        raise FileError(f"{wrong}: name a folder that is empty or not there yet")
    staged = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir(parents=True)
        for variant in found.variants:
            for path, _, sha256 in variant.files:
                wrong = file_problem(folder, path, None, sha256)
                if wrong:
                    raise PortfolioError(f"{wrong}; copy the portfolio to '{folder}' again")
                (staged / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(inside(folder, path), staged / path)
        if fleet is not None:
            fleet.write(staged)
        found.write(staged)
        _exchange(staged, place)
    except OSError as error:
        raise FileError(f"cannot copy '{folder}' to '{to}': {error.strerror or error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return found


def _in_the_way(to: Path, portfolio: Portfolio, fleet: Fleet | None) -> str:
    """Why a folder may not be replaced by this portfolio; '' if it may: nothing is there, or an earlier copy of it."""
    if not to.exists():
        return ""
    if not to.is_dir():
        return f"'{to}' is a file"
    if not any(to.iterdir()):
        return ""
    try:
        before, served = Portfolio.read(to), Fleet.read(to)
    except PortfolioError:
        return f"'{to}' is not empty"
    own = {MANIFEST, FILE, *(path for variant in before.variants for path, *_ in variant.files)}
    others = (path.relative_to(to) for path in to.rglob("*") if path.is_symlink() or not path.is_dir())
    more = next((path for path in others if path.parts[0] != FOLDER and path.as_posix() not in own), None)
    if more is not None:
        return f"'{to}' is not empty, and '{more}' is no file of a copy"
    if (before.name, before.model, before.data) != (portfolio.name, portfolio.model, portfolio.data):
        return f"'{to}' is not empty: it holds another portfolio, '{before.name}' of {before.model} on {before.data}"
    if _devices_of(served) != _devices_of(fleet):
        return f"'{to}' is not empty: it holds what is for {', '.join(_devices_of(served)) or 'no fleet'}"
    return ""


def _devices_of(fleet: Fleet | None) -> tuple[str, ...]:
    return () if fleet is None else tuple(each.device for each in fleet.devices)


def _exchange(staged: Path, to: Path) -> None:
    """Put a folder in the place of another one, whose installed forms it keeps: those that still hold are used."""
    if not to.is_dir():
        staged.rename(to)
        return
    aside = staged.with_suffix(".old")
    shutil.rmtree(aside, ignore_errors=True)
    to.rename(aside)
    try:
        staged.rename(to)
    except OSError:
        aside.rename(to)
        raise
    with suppress(OSError):
        (aside / FOLDER).rename(to / FOLDER)
    shutil.rmtree(aside, ignore_errors=True)
