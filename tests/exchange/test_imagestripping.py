import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from exchange import ExchangeError
from exchange.imagestripping import strip_image


@pytest.fixture
def grey() -> np.ndarray:
    """uint8 (60, 80), every row another ramp."""
    return (np.arange(4800).reshape(60, 80) * 7 % 251).astype(np.uint8)


def exif() -> bytes:
    tags = Image.Exif()
    tags[0x010E], tags[0x013B] = "Plant description", "Plant artist"
    return tags.tobytes()


def png(pixels: np.ndarray) -> bytes:
    text, buffer = PngInfo(), io.BytesIO()
    text.add_text("Patient", "Plant Jane")
    text.add_itxt("Comment", "Plant 花子", zip=True)
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=text, exif=exif(), dpi=(300, 300))
    return buffer.getvalue() + b"Plant behind the end"


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif(), comment="Plant comment", **options)
    return buffer.getvalue() + b"Plant behind the end"


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_png_keeps_its_pixels_and_nothing_else(tmp_path: Path, grey: np.ndarray, depth: type) -> None:
    (tmp_path / "a.png").write_bytes(png(grey.astype(depth) * (1 if depth is np.uint8 else 257)))
    content, suffix = strip_image(tmp_path / "a.png")
    assert suffix == ".png"
    assert b"Plant" not in content
    kinds = {content[at + 4 : at + 8] for at in _chunks(content)}
    assert kinds == {b"IHDR", b"IDAT", b"IEND"}
    before, after = Image.open(tmp_path / "a.png"), Image.open(io.BytesIO(content))
    assert np.array_equal(np.asarray(before), np.asarray(after))


def _chunks(content: bytes) -> list[int]:
    places, at = [], 8
    while at < len(content):
        places.append(at)
        at += 12 + struct.unpack_from(">L", content, at)[0]
    return places


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"quality": 100}])
def test_a_jpeg_keeps_its_compressed_pixels_and_nothing_else(tmp_path: Path, grey: np.ndarray, options: dict) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(grey, **options))
    content, suffix = strip_image(tmp_path / "a.jpg")
    assert suffix == ".jpg"
    assert b"Plant" not in content
    assert b"Exif" not in content
    before, after = Image.open(tmp_path / "a.jpg"), Image.open(io.BytesIO(content))
    assert np.array_equal(np.asarray(before), np.asarray(after))
    assert not after.getexif()


def test_a_colour_jpeg_keeps_its_colours_and_a_thumbnail_goes(tmp_path: Path, grey: np.ndarray) -> None:
    content = jpeg(np.stack([grey, grey, grey], axis=-1))
    thumbnail = b"\xff\xe0" + struct.pack(">H", 16 + 6) + b"JFIF\0\x01\x01\0\0\x01\0\x01\x01\x02" + b"Plant!"
    (tmp_path / "a.jpg").write_bytes(content[:2] + thumbnail + content[20:])
    stripped, _ = strip_image(tmp_path / "a.jpg")
    assert b"Plant" not in stripped
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(stripped))), np.asarray(Image.open(io.BytesIO(content))))


def test_stripping_twice_changes_nothing_more(tmp_path: Path, grey: np.ndarray) -> None:
    for name, content in (("a.png", png(grey)), ("a.jpg", jpeg(grey))):
        (tmp_path / name).write_bytes(content)
        once, _ = strip_image(tmp_path / name)
        (tmp_path / name).write_bytes(once)
        assert strip_image(tmp_path / name)[0] == once


def test_other_formats_are_refused(tmp_path: Path, grey: np.ndarray) -> None:
    for kind in ("TIFF", "PPM", "BMP"):
        Image.fromarray(grey).save(tmp_path / "film", kind)
        with pytest.raises(ExchangeError, match="only PNG and JPEG"):
            strip_image(tmp_path / "film")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 0.999), is_png=st.booleans())
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path, grey: np.ndarray, cut: float, is_png: bool) -> None:
    content = (png(grey) if is_png else jpeg(grey)).removesuffix(b"Plant behind the end")
    (tmp_path / "cut").write_bytes(content[: int(cut * len(content))])
    with pytest.raises(ExchangeError):
        strip_image(tmp_path / "cut")


def test_a_chunk_with_a_wrong_checksum_or_of_an_unknown_critical_kind_is_refused(
    tmp_path: Path, grey: np.ndarray
) -> None:
    content = png(grey)
    (tmp_path / "a.png").write_bytes(content[:40] + b"\0" + content[41:])
    with pytest.raises(ExchangeError, match="damaged"):
        strip_image(tmp_path / "a.png")
    body = b"NAMEPlant"
    chunk = struct.pack(">L", 5) + body + struct.pack(">L", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    with pytest.raises(ExchangeError, match="damaged"):
        strip_image(tmp_path / "a.png")
