"""The little of YAML that lists of data sets use, so that no package for it is needed on a device."""

import re
from pathlib import Path
from typing import Final

from prunit.edge.reading.places import read_text
from prunit.errors import DataError

Value = str | list[str] | dict[str, str]
_KEY: Final = re.compile(r"""^("[^"]*"|'[^']*'|[^\s:#'"\[{][^:#]*?)\s*:(?:\s+(.*))?$""")
_PIECE: Final = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^,]*)\s*(?:,|$)""")


def settings(path: Path) -> dict[str, Value]:
    """The outermost keys of a file: text, lists of text, and texts by key, in blocks or in brackets.

    What lies deeper is left out. `DataError` for a bracket that is not closed.
    """
    lines = [line for line in map(_bare, read_text(path).splitlines()) if line.strip() and line.strip() != "---"]
    found: dict[str, Value] = {}
    at = 0
    while at < len(lines):
        match = _KEY.match(lines[at])
        at += 1
        if match is None or lines[at - 1][0].isspace():
            continue
        key, text = _plain(match[1]), (match[2] or "").strip()
        if text[:1] in ("[", "{"):
            closing = {"[": "]", "{": "}"}[text[0]]
            while not text.endswith(closing):
                if at == len(lines):
                    raise DataError(f"'{path}': '{key}' opens a {text[0]} that is never closed")
                text += " " + lines[at].strip()
                at += 1
            pieces = [piece for piece in _PIECE.findall(text[1:-1]) if piece.strip()]
            found[key] = _of([f"- {p}" if closing == "]" else p for p in pieces])
        elif text:
            found[key] = _plain(text)
        else:
            block: list[str] = []
            while at < len(lines) and (lines[at][0].isspace() or lines[at].startswith("- ")):
                block.append(lines[at])
                at += 1
            depth = min((len(line) - len(line.lstrip()) for line in block), default=0)
            found[key] = _of([line.strip() for line in block if len(line) - len(line.lstrip()) == depth])
    return found


def _of(items: list[str]) -> Value:
    if all(item.startswith("- ") for item in items):
        return [_plain(item[2:]) for item in items] if items else ""
    pairs = (item.partition(":") for item in items)
    return {_plain(key): _plain(value) for key, _, value in pairs}


def _bare(line: str) -> str:
    """A line without its comment."""
    quoted = ""
    for i, c in enumerate(line):
        if quoted:
            quoted = "" if c == quoted else quoted
        elif c in "\"'" and (i == 0 or line[i - 1] in " \t[{,:-"):
            quoted = c
        elif c == "#" and (i == 0 or line[i - 1].isspace()):
            return line[:i].rstrip()
    return line.rstrip()


def _plain(text: str) -> str:
    """A value without its quotes."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].replace("''", "'") if text[0] == "'" else re.sub(r"\\(.)", r"\1", text[1:-1])
    return "" if text in ("null", "~") else text
