"""A portfolio at an address (`s3://bucket/portfolio`): sent there and brought here, whole or not at all.

Both sides are laid out alike. The files of one portfolio lie in a folder of their own, `files-` and 16 hexadecimal
digits, drawn anew each time it is sent; `portfolio.json` beside it names them by these paths. It is written last, in
one step. So who reads it finds the old portfolio or the new one, and both are whole: what the old one needs goes only
when the new one is there.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, cast
from uuid import uuid4

from prunit.edge.portfolio import MANIFEST, Artifact, Portfolio, file_problem
from prunit.edge.problems import text_at
from prunit.edge.records import Record, StoredFile
from prunit.edge.served import FILE as FLEET
from prunit.edge.served import Fleet, of_variants, variants_in
from prunit.errors import ConfigError, FileError, PortfolioError, UnknownNameError
from prunit.files import inside, write_atomically
from prunit.remote import Store, check_to_folder, leftover

OnFile = Callable[[str, int, int], None]
"""Told of a file's name that is on its way now, how many went before it, and how many there are."""

EXTRAS: Final = ("report.html", "trials.json", FLEET)
"""What lies beside a portfolio for people, and which devices it serves: sent and brought along if it is there, without
a digest."""
_PLACE: Final = re.compile(r"files-[0-9a-f]{16}")
_FORGOTTEN_S: Final = 24 * 3600.0
"""Files that no portfolio names belong to one that is being sent, or was cut short; after so long to the latter."""
_TRIES: Final = 3
"""How often a portfolio that is replaced while it is being brought is begun again."""


def check_target(address: str) -> None:
    """Raise where a portfolio cannot be sent: see `Store.open`; something else is there; or it cannot be written.

    Writes a small file there and removes it.
    """
    store = Store.open(address)
    if store.read(MANIFEST) is not None:
        Portfolio.read(address)  # whatever else has that name is not to be replaced
    else:
        others = [name for name in store.names() if not (_PLACE.fullmatch(name) or leftover(name))]
        if others:
            what = f"holds '{others[0]}' and no {MANIFEST}" if others[0] else "is a file"
            raise ConfigError(
                f"'{store.address}' {what}: choose an address that is empty, not there yet, or a portfolio's"
            )
    store.check_writable()


def publish(
    folder: Path | str, address: str, *, extras: Mapping[str, Path] | None = None, on_file: OnFile | None = None
) -> Portfolio:
    """Send the portfolio in `folder` to an address, with its report; the portfolio as it is named there.

    An older one there is replaced in one step, at the end, and then removed; of the same one, to the byte, nothing is
    sent, and `on_file` told of nothing. `extras` are further files by name. Raises
    `PortfolioError` where a file here is not the manifest's, `FileError` where the store refuses: what was there is as
    it was then.
    """
    folder = Path(folder)
    portfolio = Portfolio.read(folder)
    if wrong := portfolio.verify(folder):
        raise PortfolioError(f"'{folder}' is not sent: {wrong[0]}")
    own = _place_of(portfolio)  # of one that was brought here
    files = {_below(own, path): inside(folder, path) for path in _files_of(portfolio)}
    files |= {name: path for name in EXTRAS if (path := folder / name).is_file()} | dict(extras or {})
    if odd := next((path for path in files if set(path) & set("*?[]")), ""):
        raise PortfolioError(f"'{folder}' is not sent: drivers take the name '{odd}' for a pattern; rename its variant")
    check_target(address)
    store, place = Store.open(address), f"files-{uuid4().hex[:16]}"
    if same := _already_there(store, portfolio, own, files):
        _tidy(store, _place_of(same), "")
        return same
    there = _moved(portfolio, lambda path: f"{place}/{_below(own, path)}")
    try:
        for done, (path, file) in enumerate(files.items()):
            if on_file:
                on_file(path, done, len(files))
            store.send(file, f"{place}/{path}")
        before = store.read(MANIFEST)
    except BaseException:
        with suppress(FileError):
            store.remove_folder(place)
        raise
    try:
        store.put(MANIFEST, there.text().encode())
    except FileError:
        # A store may have done what it then failed to confirm, or yet do it: the files stay, and it is asked.
        if not _stands(store, place):
            raise
    _tidy(store, place, _place_in(before))
    return there


def _already_there(store: Store, portfolio: Portfolio, own: str, files: Mapping[str, Path]) -> Portfolio | None:
    """The portfolio there, if it is this one to the byte, with all its files; None if anything is to be sent.

    A new manifest for files that are there already is none: another who sends may be about to remove them.
    """
    manifest = store.read(MANIFEST)
    place = _place_in(manifest)
    there = _moved(portfolio, lambda path: f"{place}/{_below(own, path)}")
    if not place or manifest != there.text().encode():
        return None
    digests = {_below(own, path) for path in _files_of(portfolio)}
    sizes = store.sizes(place)
    if sizes != {path: file.stat().st_size for path, file in files.items()}:
        return None
    others = [path for path in files if path not in digests]
    return there if all(store.read(f"{place}/{path}") == files[path].read_bytes() for path in others) else None


def _stands(store: Store, place: str) -> bool:
    """Whether the manifest there names the files in a place; not, where that cannot be read."""
    with suppress(FileError):
        return _place_in(store.read(MANIFEST)) == place
    return False


def _tidy(store: Store, place: str, before: str) -> None:
    """Remove what the replaced portfolio had, and what was forgotten. Not more: another one may be on its way.

    Nothing depends on it, so what cannot be removed stays until the next time.
    """
    with suppress(FileError):
        if before and before != place:
            store.remove_folder(before)
    with suppress(FileError):
        for name in store.names():
            ours = _PLACE.fullmatch(name) or leftover(name)
            if ours and name != place and store.age_s(name) > _FORGOTTEN_S:
                store.remove_folder(name)


def fetch(address: str, folder: Path | str, *, device: str | None = None, on_file: OnFile | None = None) -> Portfolio:
    """Bring the portfolio at an address into `folder`; the portfolio as it is named here.

    For a `device` of the fleet that it was built for it is cut to the variants that serve it: nothing else is brought.

    An older one here is replaced in one step, once every file of the new one is there and has its digest; files that
    are here already are not brought again. A server that watches the folder goes over to it: the files of the one
    before stay until the next time. Raises `ConfigError` for a folder that holds anything else, `PortfolioError` where
    the address holds no portfolio or a damaged one, or none for that device, `UnknownNameError` for a device that is
    not in its fleet, `FileError` where it cannot be read.
    """
    folder, store = Path(folder), Store.open(address)
    _check_here(folder)
    for attempt in range(1, _TRIES + 1):
        text, where = text_at(address, MANIFEST)
        there = Portfolio.of_text(text, where)
        source = _place_of(there)
        try:
            there, beside = _wanted(store, source, there, device)
            drawn = hashlib.sha256(((device or "") + text).encode()).hexdigest()[:16]
            place = source if source and device is None else f"files-{drawn}"
            here = _moved(there, lambda path, place=place, source=source: f"{place}/{_below(source, path)}")
            with _nothing_left(folder):
                _bring(store, there, here, folder, on_file)
        except (FileError, UnknownNameError):
            if attempt < _TRIES and store.read(MANIFEST) != text.encode():
                continue
            raise
        _settle(here, folder, place, beside)
        return here
    raise AssertionError("the last attempt returns or raises")


def _wanted(
    store: Store, source: str, there: Portfolio, device: str | None
) -> tuple[Portfolio, dict[str, bytes | None]]:
    """What is to be brought of a portfolio, whose files lie in `source`, and by name what lies beside it.

    For a device its variants alone, and what is said of it; not the report, which is of them all.
    """

    def beside(name: str) -> bytes | None:
        return store.read(f"{source}/{name}" if source else name)

    if device is None:
        return there, {name: beside(name) for name in EXTRAS}
    data = beside(FLEET)
    fleet = None if data is None else Fleet.of_bytes(data, f"{store.address}/{FLEET}")
    cut = of_variants(there, variants_in(there, fleet, device, store.address))
    assert fleet is not None
    return cut, {**dict.fromkeys(EXTRAS), FLEET: fleet.only([device]).text().encode()}


def _bring(store: Store, there: Portfolio, here: Portfolio, folder: Path, on_file: OnFile | None) -> None:
    files = list(zip(_files_of(there), _files_of(here).items(), strict=True))
    for done, (path, (local, sha256)) in enumerate(files):
        if file_problem(folder, local, None, sha256) is None:
            continue
        if on_file:
            on_file(Path(path).name, done, len(files))
        file = inside(folder, local)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot write '{file}': {error.strerror or error}") from error
        try:
            store.bring(path, file)
        except FileError:
            file.unlink(missing_ok=True)  # a part
            raise
    if wrong := here.verify(folder):
        so = f"'{folder}' stays as it was" if (folder / MANIFEST).exists() else f"nothing was installed in '{folder}'"
        raise PortfolioError(f"'{store.address}' holds a damaged portfolio, and {so}: {wrong[0]}")


@contextmanager
def _nothing_left(folder: Path) -> Generator[None, None, None]:
    """Inside, a folder is made and filled; what fails leaves none that was not there.

    But for files that came before the store failed: they are not brought again.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except (FileError, PortfolioError) as error:
        if new and (isinstance(error, PortfolioError) or not any(path.is_file() for path in folder.rglob("*"))):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                for path in new[1:]:
                    path.rmdir()  # another's may lie there by now
        raise


def _settle(here: Portfolio, folder: Path, place: str, beside: Mapping[str, bytes | None]) -> None:
    """The manifest, and by name what lies beside it; then the folders go that neither it nor the one before names."""
    before = _place_in((folder / MANIFEST).read_bytes() if (folder / MANIFEST).exists() else None)
    here.write(folder)
    for name, data in beside.items():
        if data is not None:
            write_atomically(folder / name, data)
        else:  # of the portfolio before
            (folder / name).unlink(missing_ok=True)
    for path in folder.iterdir():
        if _PLACE.fullmatch(path.name) and path.name not in (place, before):
            shutil.rmtree(path, ignore_errors=True)


def _check_here(folder: Path) -> None:
    """Raise `ConfigError` for a folder that is no place for what is brought: nothing of another's is touched."""
    check_to_folder(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"'{folder}' is a file: name a folder to bring the portfolio to")
    if (folder / MANIFEST).exists():
        if not _place_in((folder / MANIFEST).read_bytes()):
            raise ConfigError(
                f"'{folder}' holds a portfolio that came by other means: name a folder that is empty or not there yet"
            )
    elif any(not (_PLACE.fullmatch(p.name) or p.name.startswith(".")) for p in folder.iterdir()):
        raise ConfigError(f"'{folder}' is not empty: name a folder that is empty or not there yet")


def _place_in(manifest: bytes | None) -> str:
    """As `_place_of`, of a manifest's text; '' if it is none."""
    try:
        return _place_of(Portfolio.of_text((manifest or b"").decode(), MANIFEST))
    except (PortfolioError, UnicodeDecodeError):
        return ""


def _place_of(portfolio: Portfolio) -> str:
    """The folder in which a portfolio's files lie, '' if they do not lie in one of ours."""
    places = {path.partition("/")[0] for path in _files_of(portfolio)}
    only = places.pop() if len(places) == 1 else ""
    return only if _PLACE.fullmatch(only) else ""


def _below(place: str, path: str) -> str:
    """A path as seen from one of our folders, if it has one."""
    return path.removeprefix(f"{place}/") if place else path


def _files_of(portfolio: Portfolio) -> dict[str, str]:
    """The SHA-256 of each file that a manifest names, by its path; two variants may have one in common."""
    found: dict[str, str] = {}
    _visit(portfolio, lambda path, sha256: found.setdefault(path, sha256) and path)
    return found


def _moved(portfolio: Portfolio, to: Callable[[str], str]) -> Portfolio:
    """The portfolio whose files have other paths."""
    return _visit(portfolio, lambda path, sha256: to(path))


def _visit(value: Any, to: Callable[[str, str], str]) -> Any:
    """The same record with all paths of files in it put through a function of path and SHA-256."""
    match value:
        case StoredFile():
            return value.model_copy(update={"path": to(value.path, value.sha256)})
        case Artifact():
            own = to(value.path, value.sha256)
            return value.model_copy(update={"path": own, "self_test": to(value.self_test, value.self_test_sha256)})
        case Record():
            return value.model_copy(update={name: _visit(field, to) for name, field in value})
        case tuple():
            return tuple(_visit(each, to) for each in cast("tuple[Any, ...]", value))
        case _:
            return value
