"""Outlines of regions."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exchange.formats.tracing import region_outline


def filled(outline: tuple[tuple[float, float], ...], shape: tuple[int, ...]) -> np.ndarray:
    """The slow way back: a pixel is inside where a ray from its middle crosses the outline oddly often."""
    inside = np.zeros(shape, bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            x, y = column + 0.5, row + 0.5
            for (ax, ay), (bx, by) in zip(outline, (*outline[1:], outline[0]), strict=True):
                if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
                    inside[row, column] ^= True
    return inside


@given(arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 1)))
def test_the_exact_outline_encloses_its_part_with_holes_filled_and_nothing_else(mask: np.ndarray) -> None:
    if not mask.any():
        return
    _, labels = cv2.connectedComponents(mask, connectivity=8)
    part = (labels == labels.flat[np.argmax(mask)]).astype(np.uint8)
    # Holes by 4-connectivity: background that does not reach the border.
    _, outside = cv2.connectedComponents(np.pad(1 - part, 1, constant_values=1).astype(np.uint8), connectivity=4)
    expected = (outside != outside[0, 0])[1:-1, 1:-1]
    assert np.array_equal(filled(region_outline(part, tolerance=0), part.shape), expected)


def test_a_simplified_outline_has_few_corners_and_stays_within_a_pixel() -> None:
    rows, columns = np.mgrid[:120, :120]
    disc = (rows - 60) ** 2 + (columns - 60) ** 2 < 50**2
    exact, simple = region_outline(disc, tolerance=0), region_outline(disc)
    assert len(simple) < len(exact) / 3
    assert abs(filled(simple, disc.shape).astype(int) - disc).sum() < 0.02 * disc.sum()


def test_one_pixel_is_a_square() -> None:
    assert region_outline(np.ones((1, 1))) == ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
