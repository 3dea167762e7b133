"""JPEG 2000 at a fraction of its size: the stored values at full size, near the means of its parts below it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.encaps import get_frame

from embedder.codestreams import StreamError
from embedder.dicom import read_halved, read_stored
from embedder.jpeg2000 import decode_halved
from tests.conftest import draw_breast, mammography_dataset


def codestream(stored: np.ndarray, bits: int) -> bytes:
    """Return stored values as a lossless codestream."""
    dataset = mammography_dataset(stored, bits=bits, syntax=uid.ExplicitVRLittleEndian)
    dataset.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
    return bytes(get_frame(dataset.PixelData, 0, number_of_frames=1))


def means(pixels: np.ndarray, halvings: int) -> np.ndarray:
    """Return the means of blocks of 2^halvings by as many, the edge repeated."""
    block = 2**halvings
    padded = np.pad(pixels.astype(float), [(0, -size % block) for size in pixels.shape], mode="edge")
    rows, columns = (size // block for size in padded.shape)
    return padded.reshape(rows, block, columns, block).mean(axis=(1, 3))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(32, 90), columns=st.integers(32, 90), bits=st.sampled_from([8, 9, 10, 12, 14, 16]),
    halvings=st.integers(0, 3), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_values_and_sizes(rows: int, columns: int, bits: int, halvings: int, seed: int) -> None:
    y, x = np.mgrid[0:rows, 0:columns]
    slope = np.random.default_rng(seed).uniform(0.2, 1, 2)
    smooth = 0.1 + 0.8 * (slope[0] * y / rows + slope[1] * x / columns) / slope.sum()
    stored = np.rint(smooth * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    stream = codestream(stored, bits)
    if any(0 < size % 2**halvings < 2**halvings / 2 for size in stored.shape):
        with pytest.raises(StreamError):
            decode_halved(stream, halvings)
        return
    found = decode_halved(stream, halvings)
    assert found.dtype == stored.dtype
    assert found.shape == (-(-rows // 2**halvings), -(-columns // 2**halvings))
    if halvings == 0:
        assert np.array_equal(found, stored)
    inside = (slice(1, -1), slice(1, -1))
    away = np.abs(found.astype(float) - means(stored, halvings))[inside]
    assert away.max() < 0.1 * 2**bits  # half a pixel of a slope lies between where the two sample


def test_a_real_mammogram(dicom_samples: Path) -> None:
    path = dicom_samples / "MG1_J2KI.dcm"
    whole, eighth = read_stored(path, frame=None), read_halved(path, frame=None, halvings=3)
    assert eighth is not None
    assert eighth.header == whole.header
    assert eighth.stored.shape == (583, 383)
    assert np.abs(eighth.stored - means(whole.stored, 3)).mean() < 0.01 * 4095
    none = read_halved(path, frame=None, halvings=0)
    assert none is not None
    assert np.array_equal(none.stored, whole.stored)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"syntax": uid.ExplicitVRLittleEndian}, "uncompressed"),
        ({"syntax": uid.RLELossless}, "run lengths"),
        ({"signed": True}, "signed"),
        ({"halvings": 9}, "more halvings than it holds"),
    ],
)
def test_what_has_to_be_decoded_whole(write_dicom, changes, why) -> None:
    stored = draw_breast(3, mass=True).astype(np.uint16) * 16
    if changes.get("signed"):
        stored = stored.astype(np.int16)
    path = write_dicom(stored, bits=12, syntax=changes.get("syntax", uid.JPEG2000Lossless))
    assert read_halved(path, frame=None, halvings=changes.get("halvings", 1)) is None, why


@pytest.mark.parametrize(
    ("padding", "photometric", "dark"),
    [(0, "MONOCHROME2", True), (4095, "MONOCHROME2", False), (4095, "MONOCHROME1", True), (0, "MONOCHROME1", False)],
)
def test_padding_at_the_bright_end_has_to_be_decoded_whole(write_dicom, padding, photometric, dark) -> None:
    stored = draw_breast(3, mass=True).astype(np.uint16) * 16
    path = write_dicom(
        stored, bits=12, syntax=uid.JPEG2000Lossless, PixelPaddingValue=padding, PhotometricInterpretation=photometric
    )
    assert (read_halved(path, frame=None, halvings=1) is not None) == dark


def test_streams_of_other_bits_than_the_file_has(write_dicom) -> None:
    narrow = draw_breast(3, mass=True)
    path = write_dicom(narrow.astype(np.uint16), bits=12, syntax=uid.JPEG2000Lossless, stream=codestream(narrow, 8))
    assert read_halved(path, frame=None, halvings=1) is None
    deep = bytearray(codestream(narrow.astype(np.uint16), 16))
    deep[deep.index(b"\xff\x51") + 40] = 24  # SIZ: 25 bits
    with pytest.raises(StreamError):
        decode_halved(bytes(deep), 1)


@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), end=st.integers(0, 300))
@settings(max_examples=150, deadline=None)
def test_damage_is_an_error_or_a_picture(place: int, byte: int, end: int) -> None:
    stream = bytearray(STREAM)
    stream[place % len(stream)] = byte
    try:
        found = decode_halved(bytes(stream[: len(stream) - end]), 2)
    except StreamError:
        return
    assert found.ndim == 2
    assert found.dtype in (np.uint8, np.uint16)


STREAM = codestream(np.add.outer(np.arange(64, dtype=np.uint16) * 31, np.arange(48, dtype=np.uint16) * 17), 12)
