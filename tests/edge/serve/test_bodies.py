"""Bodies that came compressed, and files that came in a form."""

import gzip
import zlib

import pytest

from prunit.edge.serve.bodies import file_in, unpacked
from prunit.edge.serve.settings import Refusal

TEXT = b'{"inputs": []}' * 20


def raw_deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (TEXT, "identity"),
        (TEXT, ""),
        (gzip.compress(TEXT), "gzip"),
        (gzip.compress(TEXT), "GZip"),
        (gzip.compress(TEXT), "x-gzip"),
        (gzip.compress(TEXT), " identity , gzip "),
        (gzip.compress(TEXT[:50]) + gzip.compress(TEXT[50:]), "gzip"),
        (zlib.compress(TEXT), "deflate"),
        (zlib.compress(TEXT, 0), "deflate"),
        (raw_deflated(TEXT), "deflate"),
        (zlib.compress(gzip.compress(TEXT)), "gzip, deflate"),
    ],
)
def test_a_body_is_unpacked_as_its_header_says(body: bytes, encoding: str) -> None:
    assert unpacked(body, encoding, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("body", "encoding", "status", "complaint"),
    [
        (TEXT, "br", 415, "'br' is not read: send it as it is, or as gzip, deflate"),
        (gzip.compress(TEXT), "gzip, zstd", 415, "'zstd' is not read"),
        (TEXT, "gzip, gzip, gzip", 415, "3 times"),
        (TEXT, "gzip", 400, "is not gzip"),
        (TEXT, "deflate", 400, "is not deflate"),
        (zlib.compress(TEXT), "gzip", 400, "is not gzip"),
        (gzip.compress(TEXT)[:-5], "gzip", 400, "cut short"),
        (zlib.compress(TEXT)[:-5], "deflate", 400, "cut short"),
        (gzip.compress(TEXT) + b"more", "gzip", 400, "is not gzip"),
        (zlib.compress(TEXT) + b"more", "deflate", 400, "something follows"),
        (gzip.compress(b"") * 1001, "gzip", 400, "something follows"),
    ],
)
def test_what_cannot_be_unpacked_is_refused(body: bytes, encoding: str, status: int, complaint: str) -> None:
    with pytest.raises(Refusal, match=complaint) as raised:
        unpacked(body, encoding, 10_000)
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(TEXT), "gzip"),
        (zlib.compress(TEXT), "deflate"),
        (raw_deflated(TEXT), "deflate"),
        (gzip.compress(TEXT[:-1]) + gzip.compress(TEXT[-1:]), "gzip"),
        (gzip.compress(gzip.compress(TEXT)), "gzip, gzip"),
    ],
)
def test_what_gets_too_large_is_refused(body: bytes, encoding: str) -> None:
    with pytest.raises(Refusal, match=f"may have {len(TEXT) - 1} bytes") as raised:
        unpacked(body, encoding, len(TEXT) - 1)
    assert raised.value.status == 413


PHOTO = b"\x89PNG\r\n\r\n--not the boundary\r\n\0\xff"
FORM = "multipart/form-data; boundary=xyz"


def form(*parts: tuple[str, bytes]) -> bytes:
    """Headers and content of each part."""
    return (
        b"".join(b"--xyz\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + b"--xyz--\r\n"
    )


def disposition(rest: str) -> str:
    return f"Content-Disposition: form-data; {rest}"


FILE = (disposition('name="file"; filename="photo.jpg"') + "\r\nContent-Type: image/jpeg", PHOTO)


@pytest.mark.parametrize("content_type", ["", "image/png", "application/x-www-form-urlencoded", "multipart/mixed"])
def test_without_a_form_the_body_is_the_file(content_type: str) -> None:
    assert file_in(PHOTO, content_type) == PHOTO


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(FILE), FORM),
        (form(FILE), 'Multipart/Form-Data; charset=utf-8; boundary="xyz"'),
        (form((disposition('name="picture"; filename=""'), PHOTO)), FORM),
        (form((disposition('name="file"'), PHOTO)), FORM),
        (form((disposition("name=\"file\"; filename*=UTF-8''f%C3%BCr.jpg"), PHOTO)), FORM),
        (form((disposition('name="model"'), b"large"), FILE, (disposition('name="top"'), b"5")), FORM),
    ],
)
def test_the_file_of_a_form_is_found(body: bytes, content_type: str) -> None:
    pytest.importorskip("python_multipart", reason="python-multipart reads forms")
    assert file_in(body, content_type) == PHOTO


@pytest.mark.parametrize(
    ("body", "content_type", "complaint"),
    [
        (form(FILE, FILE), FORM, "has 2 files: send one, curl -F file=@photo.jpg"),
        (form(*[(disposition(f'name="{i}"'), b"1") for i in range(3)]), FORM, "has 3 files"),
        (form(*[FILE] * 21), FORM, "more than 20 parts"),
        (b"--xyz--\r\n", FORM, "has 0 files|is no form|cut short"),
        (PHOTO, FORM, "is no form|cut short"),
        (form(FILE)[:-20], FORM, "cut short"),
        (form(FILE), "multipart/form-data", "names no boundary"),
        (form(FILE), "multipart/form-data; boundary=" + "x" * 300, "is no form"),
    ],
)
def test_what_is_no_form_of_one_file_is_refused(body: bytes, content_type: str, complaint: str) -> None:
    pytest.importorskip("python_multipart", reason="python-multipart reads forms")
    with pytest.raises(Refusal, match=complaint) as raised:
        file_in(body, content_type)
    assert raised.value.status == 400
