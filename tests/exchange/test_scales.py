import numpy as np
import pandas as pd
import pytest

from embedder.preparation import PreparationConfig
from exchange import ExchangeError
from exchange.scales import lesion_scales, window_of

CONFIG = PreparationConfig(context=1.5, floor_mm=20.0, floor_pixels=96)
USUAL = {"ratio": 2**0.5, "most": 8}


def lesions(sides, spacing=0.2):
    sides = np.asarray(sides, float)
    frame = pd.DataFrame({"x0": 10.0, "y0": 10.0, "x1": 10 + sides, "y1": 10 + sides / 2})
    return frame.assign(spacing_mm=spacing)


def test_windows_are_a_geometric_series_from_the_smallest_lesions_window_to_the_largest_ones():
    scales = lesion_scales(lesions(np.geomspace(40, 400, 60)), CONFIG, 0.2, **USUAL)
    windows = np.array([scale.window for scale in scales])
    steps = windows[1:] / windows[:-1]
    assert np.allclose(steps, steps[0])
    assert 1 < steps[0] <= 2**0.5 + 1e-9
    assert windows[0] == pytest.approx(100)
    assert windows[-1] == pytest.approx(np.percentile(1.5 * np.geomspace(40, 400, 60), 95))


def test_a_scales_box_is_the_usual_lesion_that_is_seen_in_its_window():
    sides = np.array([20.0] * 9 + [300.0] * 9)
    scales = lesion_scales(lesions(sides), CONFIG, 0.2, **USUAL)
    assert scales[0].window == pytest.approx(100)  # the floor of 20 mm
    assert scales[0].box == 20
    assert scales[-1].box == 300
    # Between the two nothing is known: the box is what the crop's context leaves.
    assert scales[1].box == pytest.approx(scales[1].window / 1.5)


def test_sizes_are_millimetres_where_both_sides_know_them_and_pixels_where_one_does_not():
    known = lesions([200.0] * 5, spacing=0.1)
    assert lesion_scales(known, CONFIG, 0.05, **USUAL)[0].box == pytest.approx(400)
    assert lesion_scales(known, CONFIG, None, **USUAL)[0].box == 200
    assert lesion_scales(lesions([200.0] * 5, spacing=np.nan), CONFIG, 0.05, **USUAL)[0].box == 200
    assert lesion_scales(known.drop(columns="spacing_mm"), CONFIG, 0.05, **USUAL)[0].box == 200


def test_no_more_scales_than_allowed_and_one_where_all_lesions_are_alike():
    wide = lesion_scales(lesions(np.geomspace(70, 4000, 50)), CONFIG, 0.2, ratio=1.1, most=5)
    assert len(wide) == 5
    assert len(lesion_scales(lesions([30.0, 40.0]), CONFIG, 0.2, **USUAL)) == 1


def test_lesions_without_a_box_are_refused_with_a_reason():
    with pytest.raises(ExchangeError, match="no lesion with a box"):
        lesion_scales(lesions([np.nan, np.nan]), CONFIG, 0.2, **USUAL)


def test_the_window_is_the_crops_own():
    assert window_of(np.array([10.0, 200.0]), CONFIG, 0.1).tolist() == [200, 300]
    assert window_of(np.array([10.0, 200.0]), CONFIG, None).tolist() == [96, 300]
