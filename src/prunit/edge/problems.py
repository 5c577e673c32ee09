"""What is wrong with a manifest, in one line: no file, no text, no JSON, another version, a field that does not fit."""

import json
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import ValidationError

from prunit.edge.records import Record
from prunit.errors import PortfolioError, unknown
from prunit.remote import Store, hint_for


def text_of(path: Path) -> str:
    """The text of a manifest; `PortfolioError` says why there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if hint := hint_for(path.parent):
            raise PortfolioError(hint) from None
        if path.parent.is_file():
            raise PortfolioError(
                f"'{path.parent}' is no portfolio: it is a file; name the folder that holds {path.name}"
            ) from None
        raise PortfolioError(
            f"'{path.parent}' is no portfolio: it holds no {path.name}; 'prunit build … --out DIR' writes one"
        ) from None
    except UnicodeDecodeError as error:
        raise PortfolioError(f"cannot read '{path}': it is not text ({error.reason})") from None
    except OSError as error:
        raise PortfolioError(f"cannot read '{path}': {error.strerror or error}") from error


def text_at(address: str, name: str) -> tuple[str, str]:
    """The text of a manifest at an address, and its own address; `PortfolioError` says why there is none."""
    store = Store.open(address)
    data = store.read(name)
    if data is None:
        raise PortfolioError(
            f"'{store.address}' is no portfolio: it holds no {name}; 'prunit build … --out {store.address}' writes one"
        )
    try:
        return data.decode(), f"{store.address.rstrip('/')}/{name}"
    except UnicodeDecodeError as error:
        raise PortfolioError(f"cannot read '{name}' in '{store.address}': it is not text ({error.reason})") from None


def check_version(path: Path | str, text: str, newest: int) -> None:
    """Refuses what is not a manifest, or is one of a newer prunit, before its fields are looked at."""
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PortfolioError(f"cannot read '{path}': it is not JSON or was cut short ({error})") from None
    head = cast("dict[str, object]", data) if isinstance(data, dict) else {}
    if head.get("format") != "prunit-portfolio":
        raise PortfolioError(
            f"cannot read '{path}': its field 'format' is not 'prunit-portfolio', so it is another program's file"
        )
    version = head.get("version")
    if isinstance(version, int) and version > newest:
        raise PortfolioError(
            f"cannot read '{path}': its field 'version' is {version} and this prunit reads up to {newest}; "
            "upgrade prunit: pip install --upgrade prunit"
        )


def first_problem(error: ValidationError, top: type[Record]) -> str:
    """One line: the field of `top`, as `variants[0].metrics.macs`, and what is wrong with it."""
    problems = error.errors(include_url=False, include_context=False)
    # A misspelt key is also a missing one; the misspelling is what helps.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    where, message = first["loc"], first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = str(unknown("key", str(where[-1]), _record_at(where[:-1], top).model_fields))
        where = where[:-1]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where).lstrip(".")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{path or 'top level'}: {message}{more}"


def _record_at(where: tuple[int | str, ...], record: type[Record]) -> type[Record]:
    """The kind of record that lies at a place in another."""
    for step in where:
        if isinstance(step, str):
            record = _record_in(record.model_fields[step].annotation) or record
    return record


def _record_in(annotation: object) -> type[Record] | None:
    """The record in a field's type: itself, or what a tuple or an optional of it holds."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return annotation
    return next((found for part in get_args(annotation) if (found := _record_in(part))), None)
