import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torchvision.ops import nms

from exchange import ExchangeError
from exchange.detections import Detection, detections_frame
from exchange.matching import iou
from exchange.suppression import SuppressionConfig, keepers, suppress

BOX = ["x0", "y0", "x1", "y1"]


def detection(name, box, score, path="/a.png", **more):
    corners = dict(zip(BOX, box, strict=True)) if box else {}
    return Detection(detection_id=name, path=path, dataset="d", patient_id="w", score=score, **{**corners, **more})


def some_detections(seed, count):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 15, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(2, 15, (count, 2))], axis=1)
    scores = rng.permutation(count) / max(count, 1)
    paths = rng.choice(["/a.png", "/b.png"], count)
    return detections_frame(
        detection(f"d{i}", boxes[i].tolist(), float(scores[i]), str(paths[i])) for i in range(count)
    )


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(0, 15), st.sampled_from([0.0, 0.2, 0.5]))
def test_what_is_kept_of_each_image_is_what_torchvision_keeps(seed, count, most):
    frame = some_detections(seed, count)
    kept = suppress(frame, SuppressionConfig(iou=most))
    wanted = set()
    for _, rows in frame.groupby("path"):
        boxes, scores = tensor(rows[BOX].to_numpy(float)), tensor(rows["score"].to_numpy())
        wanted |= set(rows["row_id"].iloc[nms(boxes, scores, most).numpy()])
    assert set(kept["row_id"]) == wanted
    assert kept["row_id"].tolist() == [name for name in frame["row_id"] if name in wanted]


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(1, 15), st.sampled_from([0.0, 0.3]))
def test_nothing_that_is_kept_overlaps_and_suppressing_again_changes_nothing(seed, count, most):
    kept = suppress(some_detections(seed, count), SuppressionConfig(iou=most))
    for _, rows in kept.groupby("path"):
        overlap = iou(rows[BOX], rows[BOX])
        assert (overlap[~np.eye(len(rows), dtype=bool)] <= most).all()
    pd.testing.assert_frame_equal(suppress(kept, SuppressionConfig(iou=most)), kept)


def test_equal_scores_are_taken_in_the_order_of_their_ids_whatever_the_order_of_rows():
    given_rows = [detection("b", (0, 0, 10, 10), 0.5), detection("a", (1, 0, 11, 10), 0.5)]
    for rows in (given_rows, given_rows[::-1]):
        assert suppress(detections_frame(rows))["row_id"].tolist() == ["a"]


def test_a_detection_that_a_suppressed_one_overlapped_stays():
    chain = [
        detection("a", (0, 0, 10, 10), 0.9),
        detection("b", (3, 0, 13, 10), 0.8),
        detection("c", (6, 0, 16, 10), 0.7),
    ]
    assert suppress(detections_frame(chain))["row_id"].tolist() == ["a", "c"]


def test_merging_keeps_the_best_score_the_whole_place_and_names_the_others():
    rows = [
        detection("low", (2, 0, 12, 10), 0.2, outline=((2.0, 0.0), (12.0, 0.0), (7.0, 9.0))),
        detection("best", (0, 1, 10, 11), 0.9, note="seen twice", outline=((0.0, 1.0), (9.0, 1.0), (5.0, 9.0))),
        detection("mid", (1, 0, 11, 10), 0.5),
        detection("alone", (50, 50, 60, 60), 0.1),
    ]
    kept = suppress(detections_frame(rows), SuppressionConfig(iou=0.4, merge=True)).set_index("row_id")
    assert kept.index.tolist() == ["best", "alone"]
    assert kept.loc["best", BOX].tolist() == [0, 0, 12, 11]
    assert kept.loc["best", "score"] == 0.9
    assert kept.loc["best", "note"] == "seen twice; merged with low, mid"
    assert kept.loc["best", "outline"] is None
    assert kept.loc["alone", "note"] is None
    assert kept["x0"].dtype == "Int64"


def test_images_frames_and_where_asked_types_are_kept_apart():
    box = (0, 0, 10, 10)
    rows = [
        detection("a", box, 0.9, lesion_type="mass"),
        detection("b", box, 0.8, lesion_type="calcification"),
        detection("c", box, 0.7, frame_number=2),
        detection("d", box, 0.6, path="/b.png"),
    ]
    frame = detections_frame(rows)
    assert suppress(frame)["row_id"].tolist() == ["a", "c", "d"]
    assert suppress(frame, SuppressionConfig(same_type=True))["row_id"].tolist() == ["a", "b", "c", "d"]


def test_detections_without_a_box_stay_and_those_without_a_score_come_last():
    rows = [detection("a", None, 0.1), detection("b", (0, 0, 9, 9), None), detection("c", (0, 0, 9, 9), 0.01)]
    assert suppress(detections_frame(rows))["row_id"].tolist() == ["a", "c"]


def test_no_detections_are_no_trouble():
    assert suppress(detections_frame([]), SuppressionConfig(merge=True)).empty
    assert keepers(np.empty((0, 4)), 0.5).tolist() == []


@pytest.mark.parametrize("most", [-0.1, 1.0, float("nan")])
def test_an_overlap_out_of_range_is_refused(most):
    with pytest.raises(ExchangeError):
        SuppressionConfig(iou=most)
