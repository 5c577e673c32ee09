"""The version of this prunit, as its files record it."""

from typing import Final

VERSION: Final[str] = "0.1.0"
