from pathlib import Path

import cv2
import numpy as np
import pytest

from embedder.mammogram import read_mammogram
from exchange.burntin import burnt_in_text

ROWS, COLUMNS = 1800, 1400


def draw_breast(level: float = 0.45) -> np.ndarray:
    """Return a half disc of tissue at the left, float32 in [0, 1], on a black background with detector noise."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:ROWS, :COLUMNS]
    tissue = (y - ROWS / 2) ** 2 + x**2 < (0.36 * ROWS) ** 2
    image = np.where(tissue, level, 0.01) + generator.normal(0, 0.01, (ROWS, COLUMNS))
    return np.clip(image, 0, 1).astype(np.float32)


def write(image: np.ndarray, text: str, place: tuple[int, int], scale: float) -> np.ndarray:
    drawn = np.zeros(image.shape, np.uint8)
    cv2.putText(drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, round(2 * scale)), cv2.LINE_AA)
    return np.maximum(image, drawn.astype(np.float32) / 255)


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.2, 2.0])
def test_a_line_of_text_beside_the_breast_is_found_where_it_stands(scale: float) -> None:
    boxes = burnt_in_text(write(draw_breast(), "SURNAME 19610302", (760, 200), scale))
    assert len(boxes) == 1
    assert boxes[0].x0 >= 755
    assert boxes[0].y1 <= 215
    assert boxes[0].width > 150 * scale


def test_text_turned_by_a_right_angle_is_found() -> None:
    turned = np.ascontiguousarray(np.rot90(write(draw_breast(), "SURNAME 19610302", (760, 200), 1.0)))
    assert burnt_in_text(turned)


def test_text_on_a_large_image_is_found() -> None:
    large = cv2.resize(draw_breast(), (2 * COLUMNS, 2 * ROWS))
    boxes = burnt_in_text(write(large, "SURNAME 19610302", (1600, 400), 1.5))
    assert boxes
    assert abs(boxes[0].x0 - 1600) < 20


def test_an_empty_background_and_a_marker_of_side_and_view_are_none() -> None:
    assert burnt_in_text(draw_breast()) == ()
    assert burnt_in_text(write(draw_breast(), "R MLO", (900, 200), 1.5)) == ()


def test_texture_and_calcifications_within_the_breast_are_no_text() -> None:
    image = draw_breast()
    for column in range(50, 500, 20):
        cv2.circle(image, (column, ROWS // 2), 5, 1.0, -1)
    assert burnt_in_text(image) == ()


def test_an_image_without_a_breast_is_looked_at_whole() -> None:
    assert burnt_in_text(write(np.zeros((600, 600), np.float32), "SURNAME 19610302", (100, 300), 0.8))
    assert burnt_in_text(np.zeros((16, 16), np.float32)) == ()


def test_the_real_films_have_markers_and_no_text(cbis_dicom: list[Path]) -> None:
    # Decoding takes a second each: one film of each woman and side.
    for path in (cbis_dicom[1], cbis_dicom[4]):
        pixels = read_mammogram(path).pixels
        assert burnt_in_text(pixels) == ()
        assert burnt_in_text(write(pixels, "SURNAME 19610302", (1400, 4300), 2.0))
