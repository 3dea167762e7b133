"""Levels and tiles against a slow, obvious version; the cache, and many who ask for one image."""

import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless

from embedder.header import Header, MammogramError
from embedder.mammogram import read_header
from tests.conftest import draw_breast
from viewer.display import DisplayImage
from viewer.keeping import default_budget
from viewer.problems import NotFoundError
from viewer.pyramid import TILE, Pyramid, Pyramids, build_pyramid, halve, read_here


def slow_halve(pixels: np.ndarray) -> np.ndarray:
    """Return the rounded mean of each 2 × 2, the last row and column repeated."""
    rows, columns = pixels.shape
    half = np.zeros((-(-rows // 2), -(-columns // 2)), np.uint16)
    for row in range(half.shape[0]):
        for column in range(half.shape[1]):
            total = 0
            for down in (0, 1):
                for right in (0, 1):
                    total += int(pixels[min(2 * row + down, rows - 1), min(2 * column + right, columns - 1)])
            half[row, column] = (total + 2) // 4
    return half


def pyramid_of(pixels: np.ndarray) -> Pyramid:
    levels = [pixels]
    while max(levels[-1].shape) > TILE:
        levels.append(halve(levels[-1]))
    header = Header(Path("x"), "PNG", *pixels.shape, 1, 16)
    return Pyramid(header, tuple(levels), (), (), "tag")


@given(rows=st.integers(1, 37), columns=st.integers(1, 37), seed=st.integers(0, 2**16))
def test_halves_are_means_of_four(rows: int, columns: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 65536, (rows, columns)).astype(np.uint16)
    assert (halve(pixels) == slow_halve(pixels)).all()


@settings(max_examples=30)
@given(rows=st.integers(1, 1400), columns=st.integers(1, 1400))
def test_tiles_put_together_are_the_level(rows: int, columns: int) -> None:
    pixels = (np.arange(rows)[:, None] * 7 + np.arange(columns) * 3).astype(np.uint16)
    pyramid = pyramid_of(pixels)
    assert max(pyramid.levels[-1].shape) <= TILE
    for number, level in enumerate(pyramid.levels):
        assert level.shape == (-(-rows // 2**number), -(-columns // 2**number))
        across, down = -(-level.shape[1] // TILE), -(-level.shape[0] // TILE)
        whole = np.block([[pyramid.tile(number, row, column) for column in range(across)] for row in range(down)])
        assert (whole == level).all()
        for row, column in ((down, 0), (0, across), (-1, 0)):
            with pytest.raises(NotFoundError):
                pyramid.tile(number, row, column)
    with pytest.raises(NotFoundError):
        pyramid.tile(len(pyramid.levels), 0, 0)


@pytest.fixture
def films(tmp_path: Path) -> list[str]:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), draw_breast(number, mass=True))
    return [str(tmp_path / f"{number}.png") for number in range(3)]


def test_the_last_used_stay_within_the_budget(films: list[str]) -> None:
    size = build_pyramid(Path(films[0]), None, "").nbytes
    pyramids = Pyramids(2 * size)
    try:
        for film in (films[0], films[1], films[0], films[2]):
            pyramids.ask(pyramids.version(film)).result(10)
        kept = [pyramids.kept(pyramids.version(film)) is not None for film in films]
        assert kept == [True, False, True]
        assert pyramids.nbytes == 2 * size
    finally:
        pyramids.close()
    assert default_budget() >= 256 << 20


def test_one_image_is_larger_than_the_budget(films: list[str]) -> None:
    pyramids = Pyramids(1)
    try:
        first = pyramids.ask(pyramids.version(films[0])).result(10)
        assert pyramids.kept(pyramids.version(films[0])) is first
    finally:
        pyramids.close()


def test_many_ask_and_it_is_decoded_once(films: list[str]) -> None:
    gate, made = threading.Event(), []

    def read(path: Path, frame: int | None) -> DisplayImage:
        gate.wait(10)
        made.append(path)
        return read_here(path, frame)

    pyramids = Pyramids(read=read)
    try:
        version = pyramids.version(films[0])
        futures = [pyramids.ask(version) for _ in range(5)]
        gate.set()
        assert len({id(future.result(10)) for future in futures}) == 1
        assert len(made) == 1
    finally:
        pyramids.close()


def test_a_changed_file_is_decoded_anew_and_a_bad_one_tried_again(films: list[str], tmp_path: Path) -> None:
    pyramids = Pyramids()
    try:
        version = pyramids.version(films[0])
        pyramids.ask(version).result(10)
        whole = Path(films[0]).read_bytes()
        Path(films[0]).write_bytes(whole[: len(whole) // 2])
        broken = pyramids.version(films[0])
        assert broken.tag != version.tag
        for _ in range(2):
            with pytest.raises(MammogramError):
                pyramids.ask(broken).result(10)
        Path(films[0]).unlink()
        with pytest.raises(NotFoundError, match="can't be opened"):
            pyramids.version(films[0])
    finally:
        pyramids.close()


@pytest.fixture
def compressed(write_dicom: Callable[..., Path]) -> Path:
    """Return a mammogram of 2,100 x 1,500 by JPEG 2000."""
    small = cv2.resize(draw_breast(1, mass=True), (1500, 2100), interpolation=cv2.INTER_CUBIC)
    return write_dicom(small.astype(np.uint16) * 16, bits=12, syntax=JPEG2000Lossless)


def test_coarse_levels_are_seen_before_an_image_is_decoded_and_stay_the_same(compressed: Path) -> None:
    gate = threading.Event()

    def read(path: Path, frame: int | None) -> DisplayImage:
        assert gate.wait(30)
        return read_here(path, frame)

    pyramids = Pyramids(read=read)
    try:
        version, header = pyramids.version(str(compressed)), read_header(compressed)
        whole = pyramids.ask(version)
        coarse = pyramids.glimpse(version, header).result(30)
        assert coarse is not None
        assert pyramids.glimpsed(version) is coarse
        assert not whole.done()
        assert coarse.first == 2
        assert coarse.sizes == [(2100, 1500), (1050, 750), (525, 375), (263, 188)]
        assert coarse.tile(2, 0, 0).shape == (512, 375)
        with pytest.raises(NotFoundError):
            coarse.tile(1, 0, 0)
        gate.set()
        decoded = whole.result(30)
        assert [level.shape for level in decoded.levels] == coarse.sizes
        for level in (2, 3):
            assert np.array_equal(decoded.tile(level, 0, 0), coarse.tile(level, 0, 0))
        assert decoded.appearance == coarse.appearance
        near = np.abs(decoded.levels[2].astype(int) - halve(decoded.levels[1]))
        assert near.mean() < 65_535 / 200  # a wavelet's halves are not quite the means
    finally:
        gate.set()
        pyramids.close()


def test_what_holds_no_coarse_levels_is_not_glimpsed(films: list[str], write_dicom: Callable[..., Path]) -> None:
    plain = write_dicom(draw_breast(1, mass=True).astype(np.uint16))
    pyramids = Pyramids()
    try:
        for film in (films[0], str(plain)):
            assert pyramids.glimpse(pyramids.version(film), read_header(film)).result(30) is None
            assert pyramids.glimpsed(pyramids.version(film)) is None
    finally:
        pyramids.close()


def test_a_passing_error_is_forgotten(compressed: Path) -> None:
    pyramids = Pyramids()
    try:
        version, header = pyramids.version(str(compressed)), read_header(compressed)
        away = compressed.rename(compressed.with_suffix(".away"))
        with pytest.raises(MammogramError):
            pyramids.glimpse(version, header).result(30)
        assert pyramids.glimpsed(version) is None
        away.rename(compressed)
        assert pyramids.glimpse(version, header).result(30) is not None
    finally:
        pyramids.close()
