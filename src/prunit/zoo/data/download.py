"""Files of a data set from their public addresses: checked, and in place all at once or not at all."""

import hashlib
import http.client
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prunit.errors import DataError

TIMEOUT_S = 30


@dataclass(frozen=True)
class Source:
    """A file to fetch: one of the data set's, or a .tar.gz of the folder that holds them."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.url).name


def fetch(name: str, sources: Sequence[Source], folder: Path) -> None:
    """Put what `sources` hold into `folder`. Nothing half-finished is ever seen there."""
    url = ""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside its goal, so that moving the files there is a rename.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as temporary:
            ready = Path(temporary) / "ready"
            ready.mkdir()
            for source in sources:
                url = source.url
                _fetch(source, Path(temporary) / source.name)
                _unpack(Path(temporary) / source.name, folder.name, ready)
            _move(ready, folder)
    except (OSError, http.client.HTTPException, tarfile.TarError, EOFError, zlib.error) as cause:
        what = cause.reason if type(cause) is urllib.error.URLError else cause
        files = ", ".join(source.name for source in sources)
        raise DataError(
            f"cannot download data set '{name}': tried {url or 'nothing yet'} into '{folder}' and got:"
            f" {' '.join(str(what).split()) or type(what).__name__}. By hand: fetch {files} from"
            f" {sources[0].url.rpartition('/')[0]}/ on a machine with network, so that their files are in '{folder}'"
        ) from cause


def _fetch(source: Source, path: Path) -> None:
    with urllib.request.urlopen(source.url, timeout=TIMEOUT_S) as answer, path.open("wb") as file:
        shutil.copyfileobj(answer, file)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != source.md5:
        raise DataError(
            f"{source.url} gave other content than expected: md5 {found} instead of {source.md5}"
            f" ({path.stat().st_size} bytes). Nothing was kept; try again or fetch it elsewhere"
        )


def _move(ready: Path, folder: Path) -> None:
    if not folder.exists():
        ready.replace(folder)
        return
    for file in sorted(ready.iterdir()):
        file.replace(folder / file.name)


def _unpack(path: Path, folder: str, ready: Path) -> None:
    if not path.name.endswith(".tar.gz"):
        path.replace(ready / path.name)
        return
    unpacked = path.parent / "unpacked"
    with tarfile.open(path) as archive:
        archive.extractall(unpacked, filter="data")  # refuses absolute paths, links and .. that lead outside
    for file in sorted((unpacked / folder).iterdir()):
        file.replace(ready / file.name)
