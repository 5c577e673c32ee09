"""Names of a package that are imported when they are first used, so that what needs torch is not waited for."""

from collections.abc import Callable, Mapping
from importlib import import_module


def resolver(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A package's `__getattr__`: `homes` says in which of its modules each name is. `AttributeError` for any other."""

    def resolved(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return resolved
