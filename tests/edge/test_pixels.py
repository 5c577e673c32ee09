"""An image file's pixels as its viewer shows them, whatever the file's format, mode and orientation."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunit.edge.pixels import FORMATS, fitted, opened
from prunit.errors import DataError

UPRIGHT = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
"""x_HWC of no symmetry."""
STORED_AS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: x.swapaxes(0, 1)[:, ::-1],
}
"""How an upright image lies in a file of each EXIF orientation (CIPA DC-008, 2012, 4.6.4 A)."""


def stored(image: Image.Image, kind: str, **options: Any) -> Any:
    """The image as a file of that kind holds it, opened."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return opened(io.BytesIO(file.getvalue()))


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def shown(image: Any, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Any:
    """x_HWC, or x_HW of a grey model."""
    x_CHW = fitted(image, size, mode)
    return x_CHW[0] if mode == "L" else x_CHW.transpose(1, 2, 0)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth: int, colour: int, rows: list[bytes], width: int, transparent: bytes = b"") -> Any:
    """A PNG of any depth (Pillow writes few): rows are packed samples, `transparent` is its tRNS chunk."""
    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", head) + (chunk(b"tRNS", transparent) if transparent else b"")
    file = b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return opened(io.BytesIO(file))


# ── orientation ──


@pytest.mark.parametrize("value", STORED_AS)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_a_file_is_turned_as_its_orientation_says(kind: str, options: dict[str, Any], value: int) -> None:
    image = Image.fromarray(np.ascontiguousarray(STORED_AS[value](UPRIGHT)))
    assert (shown(stored(image, kind, exif=orientation(value), **options)) == UPRIGHT).all()


@pytest.mark.parametrize("value", STORED_AS)
@pytest.mark.parametrize("size", [(48, 32), (6, 4), (4, 6), (8, 8)])
def test_a_jpeg_is_turned_also_where_it_is_decoded_smaller(value: int, size: tuple[int, int]) -> None:
    smooth = Image.fromarray(UPRIGHT).resize((128, 192), Image.Resampling.BILINEAR)
    turned = Image.fromarray(np.ascontiguousarray(STORED_AS[value](np.asarray(smooth))))
    found = shown(stored(turned, "JPEG", exif=orientation(value), quality=95, subsampling=0), size)
    assert np.abs(found.astype(int) - shown(smooth, size)).max() < 25
    assert np.abs(found.astype(int) - shown(smooth, size)).mean() < 4


def test_an_orientation_told_in_xmp_counts_too() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    image = Image.fromarray(np.ascontiguousarray(STORED_AS[3](UPRIGHT)))
    assert (shown(stored(image, "WEBP", lossless=True, xmp=xmp)) == UPRIGHT).all()


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0no header of TIFF",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04six\0\0\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0\0\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0",
        b"",
    ],
    ids=["garbage", "beyond the end", "a text", "nine", "zero", "none"],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_exif_fails_no_image(kind: str, exif: bytes) -> None:
    flat = Image.new("RGB", (6, 6), (10, 200, 30))
    found = shown(stored(flat, kind, exif=exif), (6, 6))
    assert np.abs(found.astype(int) - (10, 200, 30)).max() < 6


# ── transparency ──

WHITE = 255


def squared(mode: str) -> Image.Image:
    """Colours (10, 20, 30) everywhere, seen in the lower half only."""
    image = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    image.paste((10, 20, 30, 255), (0, 2, 4, 4))
    return image if mode == "RGBA" else image.convert("LA")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_what_cannot_be_seen_is_white(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = shown(stored(squared("RGBA"), kind, **options), (4, 4))
    assert (found[:2] == WHITE).all()
    assert (found[2:] == (10, 20, 30)).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_half_seen_is_half_white_in_every_mode_with_alpha(mode: str) -> None:
    grey = Image.merge("LA", (Image.new("L", (4, 4), 55), Image.new("L", (4, 4), 51)))  # a fifth is seen
    for image in (grey, grey.convert("RGBA"), grey.convert("RGBA").convert("RGBa"), grey.convert("La")):
        assert np.abs(shown(image, (4, 4), mode).astype(int) - 215).max() <= 3, image.mode


def test_a_resized_edge_takes_nothing_from_what_cannot_be_seen() -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((255, 255, 255, 255), (0, 4, 8, 8))
    assert (shown(image, (3, 3)) == WHITE).all()


def test_palettes_with_transparent_entries() -> None:
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 1), 1)
    for kind, transparency in (("PNG", b"\0\xff"), ("PNG", 0), ("GIF", 0)):
        found = shown(stored(palette, kind, transparency=transparency), (2, 2))
        assert found[0, 0].tolist() == [255, 255, 255], (kind, transparency)
        assert found[1, 1].tolist() == [40, 50, 60], (kind, transparency)
    assert shown(stored(palette, "PNG", transparency=b"\x80"), (2, 2))[0, 0].tolist() == [132, 137, 142]
    with_alpha = Image.merge("RGBA", (*palette.convert("RGB").split(), Image.new("L", (2, 2), 0))).convert("PA")
    assert (shown(with_alpha, (2, 2)) == WHITE).all()
    assert (shown(with_alpha, (2, 2), "L") == WHITE).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("image", "levels"),
    [
        (lambda: png(1, 0, [b"\x40"], 2), [0, 255]),
        (lambda: png(1, 0, [b"\x40"], 2, b"\0\0"), [255, 255]),
        (lambda: png(1, 0, [b"\x40"], 2, b"\0\1"), [0, 255]),
        (lambda: png(2, 0, [b"\x60"], 2, b"\0\1"), [255, 170]),
        (lambda: png(4, 0, [b"\x36"], 2, b"\0\3"), [255, 102]),
        (lambda: png(8, 0, [b"\x36\x37"], 2, b"\0\x36"), [255, 55]),
        (lambda: png(8, 2, [b"\7\7\7\x08\x08\x08"], 2, b"\0\7\0\7\0\7"), [255, 8]),
        (lambda: png(16, 2, [b"\7\1" * 3 + b"\x08\1" * 3], 2, b"\7\1" * 3), [255, 8]),
        (lambda: png(16, 0, [b"\x80\x80\x12\x34"], 2, b"\x12\x34"), [128, 255]),
        (lambda: png(16, 4, [b"\x80\x80\xff\xff\x12\x34\0\0"], 2), [128, 255]),
        (lambda: png(16, 6, [b"\x80\x80" * 3 + b"\xff\xff" + b"\x12\x34" * 3 + b"\0\0"], 2), [128, 255]),
        (lambda: png(8, 0, [b"\x36\x37"], 2, b"\x01\x36"), [54, 55]),  # no pixel of 8 bits can be 0x136
    ],
)
def test_one_transparent_colour_in_every_depth_of_a_png(mode: str, image: Any, levels: list[int]) -> None:
    found = shown(image(), (1, 2), mode).reshape(1, 2, -1)
    assert (found == np.array(levels)[None, :, None]).all(), found


# ── depth and modes ──


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "image",
    [
        lambda x: stored(Image.fromarray(x), "PNG"),
        lambda x: stored(Image.fromarray(x), "TIFF"),
        lambda x: stored(Image.fromarray(x), "TIFF", compression="tiff_lzw"),
        lambda x: stored(Image.fromarray(x.astype(np.int32)), "PPM"),
        lambda x: Image.fromarray(x),
        lambda x: Image.frombytes("I;16B", (4, 1), x.astype(">u2").tobytes()),
        lambda x: Image.fromarray(x.astype(np.int32)),
    ],
    ids=["png", "tiff", "tiff-lzw", "pgm", "I;16", "I;16B", "I"],
)
def test_grey_of_16_bits_is_scaled_and_not_cut_off(image: Any, mode: str) -> None:
    found = shown(image(np.array([[0, 300, 32896, 65535]], np.uint16)), (1, 4), mode).reshape(4, -1)
    assert found[:, 0].tolist() == [0, 1, 128, 255]


def test_16_bits_are_turned_too() -> None:
    x_HW = np.arange(24, dtype=np.uint16).reshape(6, 4) * 257
    for value in (3, 6):
        image = Image.fromarray(np.ascontiguousarray(STORED_AS[value](x_HW)))
        assert (shown(stored(image, "PNG", exif=orientation(value)), mode="L") == np.arange(24).reshape(6, 4)).all()


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (Image.fromarray(np.full((2, 2), 0.5, np.float32)), "floating-point pixels"),
        (Image.fromarray(np.full((2, 2), 70_000, np.int32)), "more than 16 bits"),
        (Image.fromarray(np.full((2, 2), -1, np.int32)), "more than 16 bits"),
        (stored(Image.fromarray(np.full((2, 2), 7, np.int32)), "TIFF"), "more than 16 bits"),
        (stored(Image.fromarray(np.full((2, 2), 7, np.float32)), "TIFF"), "floating-point pixels"),
    ],
)
def test_pixels_whose_white_is_not_known_are_refused(image: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=f"{complaint}.*convert it to 8 or 16 bits"):
        fitted(image, (2, 2))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBX", "P", "L", "1"])
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_other_modes_keep_black_and_white(mode: str, wanted: str) -> None:
    black_and_white = Image.new("RGB", (2, 1), (255, 255, 255))
    black_and_white.putpixel((0, 0), (0, 0, 0))
    image = black_and_white.convert(mode)
    found = shown(image, (1, 2), wanted).reshape(2, -1)
    assert (found[0] < 4).all()
    assert (found[1] > 251).all()


def test_the_first_of_several_frames_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        image = stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert shown(image, (4, 4))[0, 0].tolist() == [255, 0, 0], kind


def test_every_format_is_opened_and_no_other() -> None:
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    for kind in FORMATS:
        assert np.abs(shown(stored(red, kind), (4, 4)).astype(int) - (255, 0, 0)).max() < 3, kind
    with pytest.raises(OSError, match="cannot identify"):
        stored(red, "TGA")
