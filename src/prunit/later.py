"""Names of a package that are imported when they are first used, so that what needs torch is not waited for."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module


def resolver(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A package's `__getattr__`: `homes` says in which of its modules each name is. `AttributeError` for any other."""

    def resolved(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return resolved


@contextmanager
def loading() -> Iterator[None]:
    """While large packages are imported: nothing of them is garbage, and so nobody looks for any, now or later.

    Otherwise Python goes through hundreds of thousands of objects again and again while torch is imported, and through
    all of them when the process ends: for half as long as the import takes.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
