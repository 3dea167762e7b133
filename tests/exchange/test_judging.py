import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.findings import Finding, findings_frame
from exchange import ExchangeError
from exchange.detections import Detection, detections_frame
from exchange.judging import MISSED, judge, read_truth
from exchange.matching import MatchingRule

CENTRE = MatchingRule()
LESION = (10, 10, 30, 30)
HIT, BESIDE = (12, 12, 28, 28), (60, 60, 80, 80)


def breast(woman, image, **more):
    return Finding(
        row_id=f"b-{image}", path=f"/{image}.png", granularity="breast", dataset="d", patient_id=woman, **more
    )


def lesion(name, woman, image, box=LESION, **more):
    corners = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
    known = {"lesion_type": "mass", "granularity": "finding", **more}
    return Finding(row_id=name, path=f"/{image}.png", dataset="d", patient_id=woman, **corners, **known)


def detection(name, image, box=HIT, score: float | None = 0.5, **more):
    corners = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True)) if box else {}
    return Detection(
        detection_id=name, path=f"/{image}.png", dataset="?", patient_id="?", score=score, **corners, **more
    )


TRUTH = [lesion("l1", "a", "a1"), breast("a", "a2"), lesion("l2", "b", "b1"), breast("c", "c1", pathology="normal")]


def judged(*detections, truth=TRUTH, rule=CENTRE, **columns):
    return judge(read_truth(findings_frame(truth).assign(**columns)), detections_frame(detections), rule)


def test_every_image_of_the_truth_was_looked_at_and_every_detection_has_an_outcome():
    found = judged(
        detection("d1", "a1", score=0.9),
        detection("d2", "a1", score=0.8),
        detection("d3", "a1", BESIDE, 0.7),
        detection("d4", "c1", score=0.6),
    )
    truth = found.truth
    assert truth.images["path"].tolist() == ["/a1.png", "/a2.png", "/b1.png", "/c1.png"]
    assert truth.women == 3
    assert found.lesion_scores.tolist() == [0.9, MISSED]
    assert found.false_scores.tolist() == [0.7, 0.6]
    assert found.false_images.tolist() == [0, 3]
    assert found.duplicates == 1
    assert found.outcomes["outcome"].tolist() == ["true positive", "duplicate", "false positive", "false positive"]
    assert found.outcomes["lesion"].tolist() == ["l1", None, None, None]
    assert found.notes == ()


def test_duplicates_are_false_where_the_rule_says_so():
    rows = detection("d1", "a1", score=0.9), detection("d2", "a1", score=0.8)
    assert judged(*rows).false_scores.tolist() == []
    assert judged(*rows, rule=MatchingRule(duplicates="false")).false_scores.tolist() == [0.8]


@settings(deadline=None, max_examples=8)
@given(st.randoms())
def test_the_order_of_rows_changes_nothing_even_where_scores_are_equal(random):
    rng = np.random.default_rng(random.randrange(2**32))
    rows = [
        detection(f"d{n}", rng.choice(["a1", "b1", "c1"]), [HIT, BESIDE, LESION][n % 3], float(rng.integers(3) / 2))
        for n in range(9)
    ]
    first, second = judged(*rows), judged(*random.sample(rows, len(rows)))
    pd.testing.assert_frame_equal(first.outcomes, second.outcomes)
    assert first.lesion_scores.tolist() == second.lesion_scores.tolist()


def test_detections_without_a_score_are_refused_with_their_number():
    rows = detection("d1", "a1"), detection("d2", "a1", score=None), detection("d3", "a1", score=float("nan"))
    with pytest.raises(ExchangeError, match="2 of 3 have no score, such as d2"):
        judged(*rows)
    with pytest.raises(ExchangeError, match="1 of 1 have no score"):
        judged(detection("d1", "a1", score=float("inf")))


def test_two_detections_of_one_id_an_empty_box_and_a_missing_column_are_refused():
    with pytest.raises(ExchangeError, match="two have the id d1"):
        judged(detection("d1", "a1"), detection("d1", "b1"))
    with pytest.raises(ExchangeError, match="box of d1"):
        judged(detection("d1", "a1", (10, 10, 10, 20)))
    with pytest.raises(ExchangeError, match="box of d1"):
        judged(detection("d1", "a1", (30, 10, 10, 20)))
    frame = detections_frame([detection("d1", "a1")])
    with pytest.raises(ExchangeError, match="no column score"):
        judge(read_truth(findings_frame(TRUTH)), frame.drop(columns="score"), CENTRE)


def test_detections_elsewhere_or_without_a_place_are_left_out_and_said():
    found = judged(detection("d1", "a1"), detection("d2", "other"), detection("d3", "b1", None))
    assert found.outcomes["row_id"].tolist() == ["d1"]
    assert found.notes == (
        "1 detections left out: on images that the truth does not know, such as /other.png",
        "1 detections left out: they have no place",
    )


def test_detections_that_are_all_elsewhere_are_refused():
    with pytest.raises(ExchangeError, match=r"knows /a1\.png but not /other\.png"):
        judged(detection("d1", "other"), detection("d2", "another"))


def test_no_detections_find_nothing():
    found = judged()
    assert found.lesion_scores.tolist() == [MISSED, MISSED]
    assert found.false_scores.tolist() == []
    assert found.outcomes.empty


def test_normal_tissue_is_no_lesion_and_a_mark_of_which_nothing_is_known_is_one():
    truth = [
        lesion("l1", "a", "a1"),
        lesion("n1", "a", "a2", lesion_type=None, pathology="normal"),
        lesion("n2", "b", "b1", lesion_type=None),
        lesion("m1", "c", "c1", lesion_type=None),
    ]
    frame = findings_frame(truth).assign(tissue=[None, None, "normal", None])
    known = read_truth(frame)
    assert known.lesions["row_id"].tolist() == ["l1", "m1"]
    assert len(known.images) == 4


def test_an_image_with_a_lesion_of_unknown_place_is_set_aside():
    truth = [
        lesion("l1", "a", "a1"),
        breast("b", "b1", lesion_type="mass"),
        breast("c", "c1", pathology="malignant"),
        lesion("l2", "d", "d1", pathology="benign"),
        breast("d", "d1", pathology="malignant"),
        lesion("l3", "e", "e1", pathology="malignant"),
        breast("e", "e1", pathology="malignant", lesion_type="mass"),
        lesion("l4", "f", "f1"),
        breast("f", "f1", pathology="malignant"),
        breast("g", "g1", pathology="no cancer"),
    ]
    found = judged(detection("d1", "a1"), detection("d2", "b1"), detection("d3", "d1"), truth=truth)
    assert found.truth.images["path"].tolist() == ["/a1.png", "/e1.png", "/f1.png", "/g1.png"]
    assert found.truth.notes == ("3 images set aside: a lesion is known there, but not its place",)
    assert found.notes == ("2 detections left out: on images that were set aside",)
    assert found.outcomes["row_id"].tolist() == ["d1"]


def test_a_truth_without_a_lesion_that_has_a_place_is_refused():
    with pytest.raises(ExchangeError, match="no lesion with a place"):
        read_truth(findings_frame([breast("a", "a1"), breast("b", "b1", lesion_type="mass")]))


def test_an_image_of_two_women_is_refused():
    with pytest.raises(ExchangeError, match="belongs to d/a and to d/b"):
        read_truth(findings_frame([lesion("l1", "a", "a1"), breast("b", "a1")]))


def test_the_density_of_an_image_is_the_first_that_a_row_knows():
    truth = [lesion("l1", "a", "a1"), breast("a", "a1", density="C"), breast("b", "b1"), breast("a", "a2", density="B")]
    assert read_truth(findings_frame(truth)).images["density"].tolist() == ["C", None, "B"]


def test_images_of_one_file_are_told_apart_by_their_frame():
    frame = findings_frame([lesion("l1", "a", "a1"), lesion("l2", "a", "a1")]).assign(frame=[1, 2])
    rows = detection("d1", "a1", frame_number=2), detection("d2", "a1", score=0.3)
    found = judge(read_truth(frame), detections_frame(rows), CENTRE)
    assert found.lesion_scores.tolist() == [0.3, 0.5]
    alone = judged(detection("d1", "a1"), detection("d2", "a1", frame_number=2))
    assert "1 detections left out" in alone.notes[0]


def test_the_outline_of_a_lesion_may_be_pairs_or_json():
    corner = (11, 11, 13, 13)  # in the triangle, which leaves most of the box out
    triangle = [[10, 10], [16, 10], [10, 16]]
    for cell in (triangle, json.dumps(triangle)):
        outline = pd.Series([cell, None, None, None], dtype="object")
        found = judged(detection("d1", "a1", corner), detection("d2", "a1", HIT, 0.9), outline=outline)
        assert found.lesion_scores.tolist() == [0.5, MISSED]


@pytest.mark.parametrize("cell", ["[[1, 2], [3, 4]]", "no", "[" * 100_000, "[[1, 2, 3]]", 7, '[[1, "x"]]', "\0", "{}"])
def test_an_outline_that_is_none_is_refused_with_its_row(cell):
    with pytest.raises(ExchangeError, match="outline of l1"):
        judged(detection("d1", "a1"), outline=pd.Series([cell, None, None, None], dtype="object"))
