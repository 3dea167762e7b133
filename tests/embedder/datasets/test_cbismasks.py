"""The box of a mask; how masks are told from crops in real folders is tested with the data set."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.datasets.cbismasks import mask_box


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_mask_box_is_the_obvious_one(data: st.DataObject) -> None:
    rows, columns = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    low, high = sorted(data.draw(st.lists(st.integers(0, 65535), min_size=2, max_size=2, unique=True)))
    marked = data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    pixels = np.where(np.reshape(marked, (rows, columns)), high, low).astype(np.uint16)
    places = [(x, y) for y in range(rows) for x in range(columns) if pixels[y, x] == high]
    box = mask_box(pixels)
    if not any(marked) or all(marked):
        assert box is None
        return
    assert box is not None
    assert (box.x0, box.x1 - 1) == (min(x for x, _ in places), max(x for x, _ in places))
    assert (box.y0, box.y1 - 1) == (min(y for _, y in places), max(y for _, y in places))
    third = pixels.astype(np.int64)
    third[data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))] = 70_000
    if len(np.unique(third)) == 3:
        assert mask_box(third) is None


def test_mask_box_refuses_other_shapes() -> None:
    assert mask_box(np.zeros((0, 5), np.uint8)) is None
    assert mask_box(np.eye(3, dtype=np.uint8)[None]) is None
