"""What the records of a manifest have in common: frozen plain data, paths inside the folder, files with hashes."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt

from prunit.errors import PortfolioError
from prunit.files import inside, sha256_of, why_not_relative
from prunit.shown import Shown


def _relative(path: str) -> str:
    problem = why_not_relative(path)
    if problem:
        raise ValueError(problem)
    return path


RelativePath = Annotated[str, AfterValidator(_relative)]
"""A path inside the portfolio folder, with '/'."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Record(Shown, BaseModel):
    """Frozen plain data that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StoredFile(Record):
    """A file of the portfolio folder, with what is needed to check it."""

    path: RelativePath
    sha256: Sha256
    bytes: NonNegativeInt

    @classmethod
    def of(cls, folder: Path, path: str) -> Self:
        """The record of the file `path` as it now lies in `folder`."""
        file = inside(folder, path)
        try:
            return cls(path=path, sha256=sha256_of(file), bytes=file.stat().st_size)
        except OSError as error:
            raise PortfolioError(f"cannot read '{file}': {error.strerror or error}") from error
