"""What a user's own factory returns: `path/to/file.py:factory` or `package.module:factory`.

The file's folder (for a module: the working folder) is importable while the file is read and the factory runs, so
that it finds the modules beside it, as it would as a script.
"""

import contextlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from types import ModuleType

from prunit.errors import PrunitError


def call(reference: str, offered: Mapping[str, object], *, error: type[PrunitError]) -> object:
    """What the factory at `reference` returns, called with those of `offered` that its signature names.

    Nothing is passed through `**kwargs`: a factory that hands them on to a constructor would fail on names that it
    never asked for. Every mistake is raised as `error`, in one line.
    """
    check(reference, error=error)
    place, _, attribute = reference.rpartition(":")
    is_file, path = place.endswith(".py"), Path(place).expanduser()
    with _importable(path.resolve().parent if is_file else Path.cwd()):
        module = _from_file(path, error) if is_file else _from_name(place, error)
        factory = _attribute(module, attribute, place, error)
        settings = _settings(factory, offered, reference, error)
        try:
            return factory(**settings)
        except (Exception, SystemExit) as cause:
            called = ", ".join(f"{name}={value!r}" for name, value in settings.items())
            raise error(f"'{place}': {attribute}({called}) raised {reason(cause, module.__file__)}") from cause


def check(reference: str, *, error: type[PrunitError]) -> None:
    """Raise `error` where there is no such file or module, as far as that shows without running anything of it."""
    place, _, attribute = reference.rpartition(":")
    if not place or not attribute:
        raise error(f"'{reference}' names no factory: write path/to/file.py:FACTORY or package.module:FACTORY")
    if place.endswith(".py"):
        path = Path(place).expanduser()
        if not path.is_file():
            raise error(f"'{reference}': there is no file '{path}' (working folder: {Path.cwd()})")
        return
    with _importable(Path.cwd()):
        try:
            found = importlib.util.find_spec(place.partition(".")[0]) is not None
        except ValueError:  # no name of a module, or one without a place: importing it tells
            return
    if not found:
        raise error(_no_module(place))


def reason(cause: BaseException, file: str | None = None) -> str:
    """What went wrong in one line, and where in `file`: `ValueError: depth must be odd (net.py:12)`."""
    text = " ".join(str(cause).split())
    text = text if len(text) <= 300 else f"{text[:297]}..."
    lines = [frame.lineno for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == file]
    place = f" ({Path(file).name}:{lines[-1]})" if file and lines else ""
    return f"{type(cause).__name__}{': ' if text else ''}{text}{place}"


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)


def _from_file(path: Path, error: type[PrunitError]) -> ModuleType:
    # The prefix keeps a file called random.py from taking the place of the standard library's.
    name = f"prunit_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, because dataclasses look their module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as cause:
        del sys.modules[name]
        raise error(f"'{path}' cannot be imported: {reason(cause, str(path))}") from cause
    return module


def _from_name(name: str, error: type[PrunitError]) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as cause:
        if cause.name and (name == cause.name or name.startswith(f"{cause.name}.")):
            raise error(_no_module(name)) from cause
        raise error(f"module '{name}' cannot be imported: {reason(cause)}") from cause
    except (Exception, SystemExit) as cause:
        raise error(f"module '{name}' cannot be imported: {reason(cause)}") from cause


def _no_module(name: str) -> str:
    return (
        f"there is no module '{name}', neither installed nor in the working folder {Path.cwd()};"
        " for a file write path/to/file.py:FACTORY"
    )


def _attribute(module: ModuleType, attribute: str, place: str, error: type[PrunitError]) -> Callable[..., object]:
    try:
        found = reduce(getattr, attribute.split("."), module)
    except AttributeError as cause:
        own = sorted(
            name
            for name, value in vars(module).items()
            if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        )
        has = f"it defines: {', '.join(own)}" if own else "it defines no function or class"
        raise error(f"'{place}' has no '{attribute}'; {has}") from cause
    # An nn.Module is callable too: calling it would run its forward.
    if not callable(found) or (hasattr(found, "forward") and not isinstance(found, type)):
        raise error(
            f"'{place}': {attribute} is an object of type {type(found).__name__}, not a factory;"
            f" write 'def build(): return ...' there and ask for {place}:build"
        )
    return found


def _settings(
    factory: Callable[..., object], offered: Mapping[str, object], reference: str, error: type[PrunitError]
) -> dict[str, object]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return {}
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    nameable = {p.name for p in named} & set(offered)
    missing = [name for name in required if name not in nameable]
    if missing:
        raise error(
            f"'{reference}' needs the argument{'s' if len(missing) > 1 else ''} {', '.join(missing)}, which prunit does"
            f" not know (it offers {', '.join(offered)}): give a default"
        )
    return {name: value for name, value in offered.items() if name in nameable}
