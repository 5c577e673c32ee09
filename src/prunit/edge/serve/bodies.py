"""Bodies of requests as they were before they were packed: compressed ones, and files in a form.

Pure functions on bytes, which are already limited in number; what they become is limited here.
"""

import re
import zlib
from collections.abc import Callable
from typing import Any, Final

from prunit.edge.serve.settings import Refusal
from prunit.errors import MissingExtraError

ENCODINGS: Final = "gzip, deflate"
_WINDOW: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""How zlib calls the wrapping of each encoding (RFC 9110, 8.4.1)."""
_RAW: Final = -15
_MEMBERS: Final = 1000
_ENCODED_TWICE: Final = 2
_PARTS: Final = 20


def unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """The body before the encodings that the header `Content-Encoding` lists were applied, in their order.

    It has `most` bytes at most (`Refusal` 413), and nothing longer is ever held. 415 for encodings that are not read,
    400 for a body that is not what the header says. Several gzip files one behind the other are one text.
    """
    applied = [name for each in encoding.lower().split(",") if (name := each.strip()) not in ("", "identity")]
    unknown = next((name for name in applied if name not in _WINDOW), None)
    if unknown is not None:
        what = f"a body encoded as '{unknown[:40]}' is not read: send it as it is, or as {ENCODINGS}"
        raise Refusal(415, what, headers={"accept-encoding": ENCODINGS})
    if len(applied) > _ENCODED_TWICE:
        raise Refusal(415, f"a body encoded {len(applied)} times is not read: send it as it is")
    for name in reversed(applied):
        body = _inflated(body, name, most)
    return body


def _inflated(body: bytes, name: str, most: int) -> bytes:
    window = _WINDOW[name]
    if name == "deflate" and not _is_zlib(body):
        window = _RAW  # what some clients take "deflate" to be
    found = bytearray()
    for _ in range(_MEMBERS):
        reader = zlib.decompressobj(window)
        try:
            found += reader.decompress(body, most + 1 - len(found))
        except zlib.error:
            raise Refusal(400, f"the body is not {name}, as its Content-Encoding says") from None
        if len(found) > most:
            raise Refusal(413, f"a body may have {most} bytes, and this one has more once it is unpacked")
        if not reader.eof:
            raise Refusal(400, f"the body is {name} that was cut short")
        body = reader.unused_data
        if not body:
            return bytes(found)
        if name == "deflate":
            break
    raise Refusal(400, f"something follows the {name} in the body")


def _is_zlib(body: bytes) -> bool:
    """Whether the first two bytes are a header of zlib (RFC 1950, 2.2)."""
    return len(body) >= 2 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0


def file_in(body: bytes, content_type: str) -> bytes:
    """The one file in a body: a form's (multipart/form-data, as of `curl -F file=@photo.jpg`), else all of it.

    Whatever its field is called; one field alone needs no file name. Raises `Refusal` (400) for none, several, or what
    is no form.
    """
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        return body
    parts = _parts(body, content_type)
    files = [part for part in parts if part.is_file] or parts
    if len(files) != 1:
        raise Refusal(400, f"the form has {len(files)} files: send one, curl -F file=@photo.jpg")
    return bytes(files[0].content)


class _Part:
    """A part of a form while it is read."""

    def __init__(self) -> None:
        self.header, self.value, self.content = bytearray(), bytearray(), bytearray()
        self.is_file = False

    def end_header(self) -> None:
        """A header is complete."""
        name, value = bytes(self.header).strip().lower(), bytes(self.value).lower()
        if name == b"content-disposition" and re.search(rb";\s*filename\*?\s*=", value):
            self.is_file = True
        self.header.clear()
        self.value.clear()


def _parts(body: bytes, content_type: str) -> list[_Part]:
    try:
        from python_multipart.exceptions import FormParserError
        from python_multipart.multipart import MultipartParser, parse_options_header
    except ImportError as error:
        raise MissingExtraError("reading the files of forms", "python-multipart", "serve") from error
    found: list[_Part] = []
    ends: list[bool] = []

    def begin() -> None:
        if len(found) == _PARTS:
            raise Refusal(400, f"the form has more than {_PARTS} parts: send one file")
        found.append(_Part())

    def into(field: Callable[[_Part], bytearray]) -> Callable[[bytes, int, int], None]:
        return lambda data, start, end: field(found[-1]).extend(data[start:end])

    callbacks: Any = {
        "on_part_begin": begin,
        "on_header_field": into(lambda part: part.header),
        "on_header_value": into(lambda part: part.value),
        "on_header_end": lambda: found[-1].end_header(),
        "on_part_data": into(lambda part: part.content),
        "on_end": lambda: ends.append(True),
    }
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise Refusal(400, "the form's Content-Type names no boundary")
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
    except FormParserError:
        raise Refusal(400, "the body is no form: send one file, curl -F file=@photo.jpg") from None
    if not ends:
        raise Refusal(400, "the form was cut short: its closing boundary is missing")
    return found
