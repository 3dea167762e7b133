"""The table of detections: what is known of a place, and what is not."""

import numpy as np
import pandas as pd
import pytest

from exchange.detections import Detection, detections_frame, known_cell


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_a_cell_that_is_unknown_is_none_in_whatever_way_it_is_missing(missing):
    assert known_cell(pd.Series({"view": missing}), "view") is None
    assert known_cell(pd.Series({"view": "CC"}), "score") is None


def test_a_cell_that_is_known_is_itself():
    outline = ((1.0, 2.0), (3.0, 4.0), (1.0, 4.0))
    frame = detections_frame([Detection("d", "a.png", "set", "w", outline=outline, score=0.0, view="CC")])
    row = frame.iloc[0]
    assert known_cell(row, "outline") == outline
    assert known_cell(row, "score") == 0.0
    assert known_cell(row, "view") == "CC"
    assert known_cell(row, "lesion_id") is None
