"""PNG, JPEG, PGM and TIFF: depth, colour, damage."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from embedder.mammogram import MammogramError, read_header, read_mammogram


@pytest.fixture
def grey() -> np.ndarray:
    """uint8 (70, 90): a bright disc of texture on black."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:70, 0:90]
    return np.where((y - 35) ** 2 + x**2 < 900, rng.integers(90, 256, (70, 90)), 0).astype(np.uint8)


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.pgm", "PGM"), ("a.tif", "TIFF"), ("noname", "PNG")])
def test_eight_bits_are_scaled_by_255(tmp_path, grey, name, kind):
    path = tmp_path / name
    Image.fromarray(grey).save(path, "PPM" if kind == "PGM" else kind)
    mammogram = read_mammogram(path)
    np.testing.assert_array_equal(mammogram.pixels, grey.astype(np.float32) / 255)
    assert (mammogram.format, mammogram.bits, mammogram.rows, mammogram.columns) == (kind, 8, 70, 90)
    assert mammogram.pixels.dtype == np.float32
    assert not mammogram.inverted
    assert mammogram.patient_id is mammogram.spacing_mm is mammogram.view is None


@pytest.mark.parametrize("name", ["a.png", "a.tif", "lzw.tif"])
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_sixteen_bits_are_kept_and_scaled_by_the_depth_that_they_use(tmp_path, grey, name, bits):
    stored = (grey.astype(np.uint16) << (bits - 8)) | (np.arange(90) % 4).astype(np.uint16)
    path = tmp_path / name
    Image.fromarray(stored).save(path, **({"compression": "tiff_lzw"} if name == "lzw.tif" else {}))
    mammogram = read_mammogram(path)
    assert mammogram.bits == 16
    np.testing.assert_allclose(mammogram.pixels, stored / ((1 << bits) - 1), atol=1e-6)


@pytest.mark.parametrize("largest", [100, 255, 4095, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_pgm_is_scaled_by_its_own_maximum(tmp_path, grey, largest, plain):
    stored = (grey / 255 * largest * 0.9).astype(int)
    path = tmp_path / "a.pgm"
    body = (
        " ".join(map(str, stored.ravel())).encode()
        if plain
        else stored.astype(">u2" if largest > 255 else "u1").tobytes()
    )
    path.write_bytes(b"P%d\n# a comment\n90 70\n%d\n" % (2 if plain else 5, largest) + body)
    np.testing.assert_allclose(read_mammogram(path).pixels, stored / largest, atol=0.5 / 255 if largest < 256 else 1e-4)
    assert read_header(path).bits == (16 if largest > 255 else 8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_in_another_coat_becomes_grey(tmp_path, grey, mode):
    path = tmp_path / "a.png"
    image = Image.fromarray(grey)
    if mode == "P":
        image = Image.merge("RGB", [image] * 3).quantize(256)
        expected = np.asarray(image.convert("L"))
    else:
        image, expected = image.convert(mode), grey
        if "A" in mode:
            image.putalpha(Image.fromarray(255 - grey))
    image.save(path)
    np.testing.assert_allclose(read_mammogram(path).pixels, expected / 255, atol=1e-6)


def test_what_is_really_coloured_is_refused(tmp_path, grey):
    colours = np.repeat(grey[..., None], 3, axis=2)
    colours[30:34, 10:14] = (255, 40, 40)
    path = tmp_path / "marked.png"
    Image.fromarray(colours).save(path)
    with pytest.raises(MammogramError, match=r"marked\.png: it is a colour image"):
        read_mammogram(path)


def test_min_is_white_of_a_tiff_is_turned_at_both_depths(tmp_path, grey):
    for stored, largest in ((grey, 255), (grey.astype(np.uint16) * 257, 65535)):
        path = tmp_path / "a.tif"
        Image.fromarray(largest - stored).save(path, tiffinfo={262: 0})
        np.testing.assert_allclose(read_mammogram(path).pixels, stored / largest, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "F", "I", "CMYK"])
def test_other_kinds_of_pixels_are_refused(tmp_path, grey, mode):
    path = tmp_path / "a.tif"
    Image.fromarray(grey).convert("RGB" if mode == "CMYK" else "L").convert(mode).save(path)
    with pytest.raises(MammogramError, match="8 or 16 bits"):
        read_header(path)
    with pytest.raises(MammogramError, match="8 or 16 bits"):
        read_mammogram(path)


def test_colour_of_16_bits_is_refused_rather_than_cut_to_8(tmp_path, grey):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.repeat(grey[..., None], 3, axis=2).astype(np.uint16) * 256)
    with pytest.raises(MammogramError, match="16 bits"):
        read_mammogram(path)


def test_an_inverted_film_is_turned(tmp_path, grey):
    large = cv2.resize(grey, (900, 700), interpolation=cv2.INTER_NEAREST)
    Image.fromarray(255 - large).save(tmp_path / "inverted.png")
    mammogram = read_mammogram(tmp_path / "inverted.png")
    assert mammogram.inverted
    np.testing.assert_allclose(mammogram.pixels, large / 255, atol=1e-6)


def test_a_tiff_of_several_pages_needs_one_named(tmp_path, grey):
    path = tmp_path / "pages.tif"
    second = np.ascontiguousarray(grey[:50, ::-1])
    Image.fromarray(grey).save(path, save_all=True, append_images=[Image.fromarray(second)])
    assert read_header(path).frames == 2
    with pytest.raises(MammogramError, match="2 frames"):
        read_mammogram(path)
    mammogram = read_mammogram(path, frame=2)
    np.testing.assert_allclose(mammogram.pixels, second / 255, atol=1e-6)
    assert (mammogram.rows, mammogram.columns) == (50, 90)
    with pytest.raises(MammogramError, match="no frame 3"):
        read_mammogram(path, frame=3)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.pgm", "a.tif", "progressive.jpg"])
def test_a_file_cut_anywhere_is_refused(tmp_path, grey, name):
    path = tmp_path / name
    options = {"quality": 95, "progressive": name.startswith("prog")} if name.endswith("jpg") else {}
    Image.fromarray(np.tile(grey, (3, 3))).save(path, **options)
    whole = path.read_bytes()
    read_mammogram(path)
    # The last 24 bytes of a PNG are checksums and its end mark, behind the pixels.
    end = len(whole) - (24 if name == "a.png" else 2)
    for length in [*range(1, 60, 7), *range(60, end, max(1, end // 60)), end]:
        path.write_bytes(whole[:length])
        with pytest.raises(MammogramError) as caught:
            read_mammogram(path)
        assert caught.value.remedy


def test_a_jpeg_cut_short_behind_which_an_end_mark_was_put_is_refused(tmp_path, grey):
    path = tmp_path / "half.jpg"
    Image.fromarray(np.tile(grey, (3, 3))).save(path, quality=95)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    with pytest.raises(MammogramError, match="lower part is missing"):
        read_mammogram(path)


@pytest.mark.parametrize("side", [20_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, side):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))

    path = tmp_path / "bomb.png"
    header = struct.pack(">LLBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )
    for read in (read_header, read_mammogram):
        with pytest.raises(MammogramError, match="150 million"):
            read(path)


@pytest.mark.parametrize("shape", [(1, 1), (15, 400), (400, 15)])
def test_too_small_is_no_mammogram(tmp_path, shape):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    with pytest.raises(MammogramError, match="no mammogram"):
        read_header(path)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_value_is_refused(tmp_path, value):
    path = tmp_path / "a.png"
    Image.fromarray(np.full((40, 40), value, np.uint8)).save(path)
    with pytest.raises(MammogramError, match="one value"):
        read_mammogram(path)


def test_a_header_is_read_without_decoding(tmp_path, grey, monkeypatch):
    path = tmp_path / "a.jpg"
    Image.fromarray(grey).save(path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    assert read_header(path).columns == 90


def test_the_orientation_of_a_camera_is_not_applied(tmp_path, grey):
    exif = Image.Exif()
    exif[274] = 6
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", exif=exif)
    (tmp_path / "a.jpg").write_bytes(file.getvalue())
    assert read_mammogram(tmp_path / "a.jpg").pixels.shape == (70, 90)
