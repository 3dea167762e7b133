"""The breast's own coordinates: what is placed at a place is found at it, on films of either side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedder.findings import Box
from embedder.tissuemap import Lesion, TissueImage


def image(mirrored: bool, *, rows: int = 500, columns: int = 400, spacing: float | None = 0.2) -> TissueImage:
    mask = np.zeros((250, 200), np.bool_)
    mask[25:225, :120] = True
    if mirrored:
        mask = mask[:, ::-1]
    return TissueImage("k", "d", "d/w", {}, rows, columns, spacing, mask, mirrored, ())


@given(st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.tuples(st.integers(1, 40), st.integers(1, 40)), st.booleans())
def test_a_box_is_found_where_it_was_put(across: float, down: float, size: tuple[int, int], mirrored: bool) -> None:
    film = image(mirrored)
    box = film.box_at(across, down, size)
    if box is None:
        return
    assert (box.width, box.height) == size
    assert film.place_of(box) == pytest.approx((across, down), abs=1 / 240)


def test_the_chest_wall_is_zero_on_either_side() -> None:
    # The breast is 240 pixels wide: a quarter of it is 60 from the chest wall.
    assert image(False).box_at(0.25, 0.5, (20, 10)) == Box(50, 245, 70, 255)
    assert image(True).box_at(0.25, 0.5, (20, 10)) == Box(330, 245, 350, 255)


@pytest.mark.parametrize("place", [(0.0, 0.5), (2.0, 0.5), (0.5, -0.2), (0.5, 1.2)])
def test_a_box_beyond_the_image_is_none(place: tuple[float, float]) -> None:
    assert image(False).box_at(*place, (20, 10)) is None


@given(st.integers(0, 399), st.integers(0, 499), st.integers(1, 60), st.integers(1, 60))
def test_the_share_of_tissue_is_that_of_the_pixels(x0: int, y0: int, width: int, height: int) -> None:
    film = image(False)
    box = Box(x0, y0, min(x0 + width, 400), min(y0 + height, 500))
    full = np.repeat(np.repeat(film.mask, 2, axis=0), 2, axis=1)
    exact = full[box.y0 : box.y1, box.x0 : box.x1].mean()
    # Pixels of the copy count whole where the box touches them.
    assert film.share(box) == pytest.approx(exact, abs=2 / min(box.width, box.height))


def test_a_lesion_is_as_large_on_the_patient_where_both_spacings_are_known() -> None:
    lesion = Lesion("d", "d/v", 30, 20, 0.1, 0.5, 0.5)
    assert image(False).size_of(lesion) == (15, 10)
    assert image(False, spacing=None).size_of(lesion) == (30, 20)
