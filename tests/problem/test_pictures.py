"""Pictures have the pixels that everybody sees in them, or are refused with the name of their file."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from krelax.errors import InputError
from krelax.problem.pictures import read_pictures

Image = pytest.importorskip("PIL.Image")

RNG = np.random.default_rng(0)
GREY, COLOURS = RNG.integers(0, 256, (5, 4), dtype=np.uint8), RNG.integers(0, 256, (5, 4, 3), dtype=np.uint8)
SMOOTH = np.linspace(0, 200, 16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8)


def saved(pixels: Any, kind: str = "PNG", **more: Any) -> bytes:
    image, file = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels), BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def turned(orientation: int) -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def read(folder: Path, content: bytes, name: str = "a.png") -> NDArray[Any]:
    """Pixels from 0 to 255."""
    (folder / name).write_bytes(content)
    return np.round(read_pictures(folder, None, needs_labels=False).images * 255)


PALETTE = Image.fromarray(COLOURS).quantize(16)
WITHOUT_LOSS = {
    "grey": (saved(GREY), GREY),
    "colours": (saved(COLOURS), COLOURS),
    "two values": (saved(GREY > 99), np.where(GREY > 99, 255, 0)),
    "palette": (saved(PALETTE), np.asarray(PALETTE.convert("RGB"))),
    "palette, nothing transparent": (
        saved(PALETTE, transparency=bytes([255] * 16)),
        np.asarray(PALETTE.convert("RGB")),
    ),
    "alpha of 255": (saved(np.dstack([COLOURS, np.full_like(GREY, 255)])), COLOURS),
    "upright": (saved(COLOURS, **turned(1)), COLOURS),
    "no pixel of the transparent value": (saved(GREY | 1, transparency=0), GREY | 1),
}


@pytest.mark.parametrize("kind", WITHOUT_LOSS)
def test_pixels_of_png(tmp_path: Path, kind: str) -> None:
    content, pixels = WITHOUT_LOSS[kind]
    np.testing.assert_array_equal(read(tmp_path, content)[0], pixels)


@pytest.mark.parametrize("more", [{}, {"progressive": True}, {"exif": b""}], ids=["baseline", "progressive", "exif"])
def test_pixels_of_jpeg(tmp_path: Path, more: dict[str, Any]) -> None:
    for pixels in (SMOOTH, SMOOTH[..., 0]):
        found = read(tmp_path, saved(pixels, "JPEG", quality=95, **more), "a.jpg")[0]
        assert found.shape == pixels.shape
        assert np.abs(found - pixels).max() < 16


REFUSED = {
    "empty": (b"", "picture that can be read (empty)"),
    "text": (b"no picture at all", "picture that can be read (neither PNG nor JPEG)"),
    "GIF by another name": (saved(GREY, "GIF"), "neither PNG nor JPEG"),
    "16 bits": (saved(GREY.astype(np.uint16) * 257), "has 16 bits in a channel"),
    "transparent colour": (saved(PALETTE, transparency=3), "is transparent in places"),
    "transparent grey": (saved(GREY, transparency=int(GREY[0, 0])), "is transparent in places"),
    "transparent": (saved(np.dstack([GREY, GREY // 2])), "is transparent in places"),
    "animated": (saved(GREY, save_all=True, append_images=[Image.fromarray(255 - GREY)]), "is several pictures"),
    "turned": (saved(COLOURS, **turned(6)), "(Exif orientation 6), which some programs do"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_named(tmp_path: Path, kind: str) -> None:
    content, words = REFUSED[kind]
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path / 'a.png'}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sixteen_bits_of_colour_are_not_rounded(tmp_path: Path) -> None:
    """Pillow writes no such file: a chunk says how many bits there are, and its checksum is made anew."""
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = (4).to_bytes(4, "big") + (5).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOURS.astype(np.uint16) * 200)
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    with Image.open(BytesIO(whole)) as image:
        assert image.mode == "RGB"
    with pytest.raises(InputError, match="has 16 bits in a channel"):
        read(tmp_path, whole)


def test_jpegs_that_are_refused(tmp_path: Path) -> None:
    for content, words in (
        (saved(Image.fromarray(COLOURS).convert("CMYK"), "JPEG"), "pixels of the kind CMYK"),
        (saved(COLOURS, "JPEG", **turned(3)), "Exif orientation 3"),
        (saved(COLOURS, "JPEG")[:-20], "is not a picture that can be read"),
    ):
        with pytest.raises(InputError, match=words):
            read(tmp_path, content, "a.jpeg")


@pytest.mark.parametrize("pixels", [GREY, np.zeros((8, 8), np.uint8)], ids=["noise", "one value"])
def test_a_png_that_is_cut_anywhere_is_refused(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    """Even where all pixels are there."""
    whole = saved(pixels)
    for length in range(len(whole)):
        with pytest.raises(InputError, match=r"a\.png: is not a picture that can be read"):
            read(tmp_path, whole[:length])
    read(tmp_path, whole)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "BMP", "TIFF"])
def test_pictures_of_other_kinds_are_not_left_out(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"b.{kind.lower()}").write_bytes(b"whatever it is")
    with pytest.raises(InputError, match=rf"b\.{kind.lower()}: is neither PNG nor JPEG"):
        read(tmp_path, saved(GREY))


def test_files_that_are_no_pictures_are_left_alone(tmp_path: Path) -> None:
    for name in ("readme.txt", ".hidden.png", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"no picture")
    assert read(tmp_path, saved(GREY)).shape == (1, *GREY.shape)
