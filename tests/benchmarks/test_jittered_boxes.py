"""Boxes are moved as the control says: lesions only, whole, within their image."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.jittered_boxes import moved_lesions


@pytest.fixture
def frame(synthetic_manifest) -> pd.DataFrame:
    return synthetic_manifest(40).assign(tissue=["lesion", "normal"] * 20)


def test_nothing_moves_by_nothing(frame: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(moved_lesions(frame, 0.0, 0), frame)


def test_lesions_move_whole_and_within_their_image(frame: pd.DataFrame) -> None:
    frame = frame.assign(x0=frame["x0"] - 13, x1=frame["x1"] - 13)  # at the image's edge
    moved = moved_lesions(frame, 0.5, 0)
    lesion = (frame["tissue"] == "lesion").to_numpy()
    corners = ["x0", "y0", "x1", "y1"]
    pd.testing.assert_frame_equal(moved[~lesion], frame[~lesion])
    pd.testing.assert_frame_equal(moved.drop(columns=corners), frame.drop(columns=corners))
    for low, high, side in (("x0", "x1", "image_columns"), ("y0", "y1", "image_rows")):
        sizes = frame[high] - frame[low]
        assert (moved[high] - moved[low]).equals(sizes)
        assert (moved[low] >= 0).all()
        assert (moved[high] <= frame[side]).all()
        by = (moved[low] - frame[low])[lesion].to_numpy(dtype=np.float64)
        assert np.abs(by).max() <= 0.5 * sizes.max()
        assert len(np.unique(by)) > 3
    pd.testing.assert_frame_equal(moved, moved_lesions(frame, 0.5, 0))
