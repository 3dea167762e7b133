"""Values of 16 bits for the page: even, unclipped, dense tissue bright, and windows on the same scale."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom.uid as uid
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.grayscale import Rendering, Table, Window
from embedder.mammogram import MammogramError, read_header
from tests.conftest import draw_breast
from viewer.display import BRIGHTEST, DisplayWindow, _Scale, appearance, read_display, read_display_rows, reads_rows


@settings(max_examples=25)
@given(
    bits=st.integers(8, 16),
    signed=st.booleans(),
    inverted=st.booleans(),
    slope=st.floats(0.1, 4),
    intercept=st.floats(-1000, 1000),
)
def test_values_are_spread_evenly(bits: int, signed: bool, inverted: bool, slope: float, intercept: float) -> None:
    kind = np.dtype(np.int16 if signed else np.uint16)
    scale = _Scale(Rendering(slope=slope, intercept=intercept, inverted=inverted), kind, bits)
    low = -(1 << bits - 1) if signed else 0
    stored = np.unique(np.linspace(low, low + (1 << bits) - 1, 300).astype(kind))[None]
    shown = scale.apply(stored)[0]
    share = (stored[0].astype(np.float64) - low) / ((1 << bits) - 1)
    expected = np.rint(BRIGHTEST * (1 - share if inverted else share))
    assert np.abs(shown.astype(np.float64) - expected).max() <= 1
    assert len(np.unique(shown)) == len(stored[0])  # what differs stays different


def test_padding_is_black_and_a_table_keeps_its_shape() -> None:
    padded = _Scale(Rendering(inverted=True, padding=(0, 5)), np.dtype(np.uint16), 12)
    assert padded.apply(np.array([[0, 5, 6]], np.uint16)).tolist()[0][:2] == [0, 0]
    rising = Table(0, np.linspace(0, 255, 4096) ** 2, 16)
    shown = _Scale(Rendering(modality=rising), np.dtype(np.uint16), 12).apply(np.arange(4096, dtype=np.uint16)[None])
    assert (np.diff(shown[0].astype(int)) >= 0).all()
    assert shown[0][0] == 0
    assert shown[0][-1] == BRIGHTEST


def test_the_files_windows_are_on_the_same_scale(write_dicom: Callable[..., Path], ramp: np.ndarray) -> None:
    path = write_dicom(ramp, bits=12, WindowCenter=["2048", "1000"], WindowWidth=["4096", "501"])
    image = read_display(path)
    assert [window.name for window in image.windows] == ["from the file", "from the file, 2"]
    whole, narrow = image.windows
    assert whole.centre == pytest.approx(BRIGHTEST / 2, abs=20)
    assert whole.width == pytest.approx(BRIGHTEST, abs=20)
    low, high = narrow.centre - narrow.width / 2, narrow.centre + narrow.width / 2
    assert low == pytest.approx((1000 - 0.5 - 250) * BRIGHTEST / 4095, abs=2)
    assert high == pytest.approx((1000 - 0.5 + 250) * BRIGHTEST / 4095, abs=2)
    dark = read_display(
        write_dicom(ramp, bits=12, WindowCenter="1000", WindowWidth="500", PhotometricInterpretation="MONOCHROME1")
    )
    assert (dark.pixels == BRIGHTEST - image.pixels).all()
    assert dark.windows[0].centre == pytest.approx(BRIGHTEST - narrow.centre, abs=20)


def test_windows_that_are_none_are_left_out() -> None:
    voi = (Window(100, 0.5), Window(100, 50, "CUBIC"), Table(0, np.zeros(16), 12), Window(1e9, 50))
    assert _Scale(Rendering(voi=voi), np.dtype(np.uint16), 12).windows() == ()
    [curve] = _Scale(Rendering(voi=(Table(0, np.linspace(0, 255, 256), 8),)), np.dtype(np.uint16), 12).windows()
    assert curve.width == pytest.approx(245 * BRIGHTEST / 4095, rel=0.02)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16])
def test_single_rows_are_those_of_the_whole(
    write_dicom: Callable[..., Path], ramp: np.ndarray, syntax: str, kind: type
) -> None:
    stored = (ramp % 200 if kind is np.uint8 else ramp).astype(kind)
    path = write_dicom(stored, syntax=syntax)
    assert reads_rows(read_header(path))
    whole = read_display(path)
    assert (read_display_rows(path, 7, 21).pixels == whole.pixels[7:21]).all()
    with pytest.raises(MammogramError, match="no rows 30 to 50"):
        read_display_rows(path, 30, 50)


def test_rows_of_a_frame(write_dicom: Callable[..., Path], ramp: np.ndarray) -> None:
    path = write_dicom(np.stack([ramp, ramp[::-1]]), bits=12)
    assert (read_display_rows(path, 3, 9, frame=2).pixels == read_display(path, frame=2).pixels[3:9]).all()


def test_a_file_that_is_cut_short(write_dicom: Callable[..., Path], ramp: np.ndarray) -> None:
    path = write_dicom(ramp)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(MammogramError, match="cut short"):
        read_display(path)
    with pytest.raises(MammogramError, match="cut short"):
        read_display_rows(path, 30, 40)


def test_a_plain_picture(tmp_path: Path) -> None:
    grey = draw_breast(1, mass=True)
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    assert (read_display(tmp_path / "a.png").pixels == grey.astype(np.uint16) * 257).all()
    cv2.imwrite(str(tmp_path / "b.png"), 255 - grey)
    turned = read_display(tmp_path / "b.png")
    assert (turned.pixels == grey.astype(np.uint16) * 257).all()
    assert any("inverted" in note for note in turned.notes)


def test_for_processing_is_shown_and_says_so(write_dicom: Callable[..., Path], ramp: np.ndarray) -> None:
    image = read_display(write_dicom(ramp, bits=12, PresentationIntentType="FOR PROCESSING"))
    assert any("For Processing" in note for note in image.notes)
    assert image.pixels[0, 0] > image.pixels[-1, -1]  # few X-rays came through where it is dense


def test_presets_and_chest_wall() -> None:
    small = draw_breast(3, mass=True).astype(np.uint16) * 16
    look = appearance(small, (DisplayWindow("from the file", 1000, 500),))
    assert look.chest_wall == "left"
    assert appearance(small[:, ::-1], ()).chest_wall == "right"
    by_name = {window.name: window for window in look.windows}
    assert list(by_name) == ["from the file", "breast", "whole range", "dense tissue", "skin line"]
    assert all(window.width > 0 for window in look.windows)
    assert by_name["dense tissue"].centre > by_name["skin line"].centre
    assert by_name["whole range"].width == small.max() - small.min()
    flat = appearance(np.full((64, 64), 77, np.uint16), ())
    assert all(window.width >= 16 for window in flat.windows)
