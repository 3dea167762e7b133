import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.findings import Finding, findings_frame
from exchange import ExchangeError
from exchange.detections import Detection, detections_frame
from exchange.froc import RATES, FrocConfig, score_detections
from exchange.judging import read_truth
from exchange.matching import MatchingRule
from index.metrics import resample_women

LESIONS = ((10, 10, 30, 30), (50, 50, 70, 70))
FEW = FrocConfig(rates=(0.25, 0.5, 1.0), resamples=30)


def image(woman, name, lesions=(), density=None):
    """Rows of one image: the breast, and its lesions at fixed places, given by their types."""
    shared = {"path": f"/{name}.png", "dataset": "d", "patient_id": woman, "density": density}
    rows = [Finding(row_id=name, granularity="breast", **shared)]
    for number, term in enumerate(lesions):
        corners = dict(zip(("x0", "y0", "x1", "y1"), LESIONS[number], strict=True))
        rows.append(Finding(row_id=f"{name}-{number}", granularity="finding", lesion_type=term, **corners, **shared))
    return rows


def mark(name, score, place=None):
    """A detection on an image that hits the lesion of that number, or none."""
    x, y = (200, 200) if place is None else LESIONS[place][:2]
    corners = {"x0": x, "y0": y, "x1": x + 20, "y1": y + 20}
    return {"path": f"/{name}.png", "score": score, **corners}


def frame(marks):
    return detections_frame(
        Detection(detection_id=f"d{n}", dataset="d", patient_id="?", **given_mark) for n, given_mark in enumerate(marks)
    )


def scores(images, marks, config=FEW):
    truth = read_truth(findings_frame([row for rows in images for row in rows]))
    return score_detections(truth, frame(marks), config)


# Four images of three women; lesions on two.
IMAGES = [
    image("a", "a1", ["mass", "calcification"], density="B"),
    image("a", "a2", [], density="B"),
    image("b", "b1", ["mass"], density="C"),
    image("c", "c1", [], density="C"),
]
MARKS = [mark("a1", 0.9, 0), mark("c1", 0.8), mark("b1", 0.7, 0), mark("b1", 0.6), mark("a1", 0.5, 1)]


def values(found):
    return {rate: estimate.value for rate, estimate in found.sensitivity.items()}


def test_sensitivities_of_a_small_case_are_those_counted_by_hand():
    found = scores(IMAGES, MARKS)
    # Four images: 1/4 an image is one false positive, 1/2 is two.
    assert values(found.units["lesion"]) == pytest.approx({0.25: 2 / 3, 0.5: 1.0, 1.0: 1.0})
    assert found.units["lesion"].mean.value == pytest.approx((2 / 3 + 2) / 3)
    assert values(found.units["image"]) == {0.25: 1.0, 0.5: 1.0, 1.0: 1.0}
    assert values(found.units["woman"]) == {0.25: 1.0, 0.5: 1.0, 1.0: 1.0}
    assert found.thresholds == {0.25: 0.7, 0.5: 0.5, 1.0: 0.5}
    # Precision at the three lesions: 1, 2/3, 3/5.
    area = (1 + 2 / 3 + 3 / 5) / 3
    assert {rule: each.value for rule, each in found.average_precision.items()} == pytest.approx(
        {"IoU 0.2": area, "IoU 0.5": area, "centre": area}
    )


def test_breakdowns_of_a_small_case_are_those_counted_by_hand():
    found = scores(IMAGES, MARKS)
    assert values(found.lesion_types["mass"]) == {0.25: 1.0, 0.5: 1.0, 1.0: 1.0}
    assert values(found.lesion_types["calcification"]) == {0.25: 0.0, 0.5: 1.0, 1.0: 1.0}
    # Density B has two images, no false positive, two lesions; C has two images and two false positives.
    assert values(found.densities["B"]) == {0.25: 1.0, 0.5: 1.0, 1.0: 1.0}
    assert values(found.densities["C"]) == {0.25: 0.0, 0.5: 1.0, 1.0: 1.0}
    assert [found.densities[term].mean.items for term in "BC"] == [2, 1]


def test_images_without_detection_or_lesion_count_among_the_images():
    more = [*IMAGES, image("d", "d1"), image("d", "d2"), image("e", "e1"), image("f", "f1")]
    found = scores(more, MARKS)
    # Twice as many images: the same false positives are half as many an image.
    assert values(found.units["lesion"]) == pytest.approx({0.25: 1.0, 0.5: 1.0, 1.0: 1.0})
    assert found.counts["images"] == 8
    assert found.counts["images_without_lesion"] == 6
    assert found.counts["images_without_detection"] == 5
    assert found.counts["false_positives_per_image"] == 0.25


def test_all_scores_equal_are_one_threshold():
    found = scores(IMAGES, [{**each, "score": 0.5} for each in MARKS])
    assert values(found.units["lesion"]) == {0.25: 0.0, 0.5: 1.0, 1.0: 1.0}
    assert found.thresholds == {0.25: None, 0.5: 0.5, 1.0: 0.5}
    assert found.average_precision["centre"].value == pytest.approx(3 / 5)


def test_no_detections_find_nothing_and_raise_nothing():
    found = scores(IMAGES, [])
    assert set(values(found.units["lesion"]).values()) == {0.0}
    assert found.average_precision["IoU 0.2"].value == 0.0
    assert found.thresholds == {0.25: None, 0.5: None, 1.0: None}
    assert found.counts["lesions_found"] == 0
    json.dumps(found.to_dict(), allow_nan=False)


def test_one_woman_gives_figures_without_intervals_and_says_so():
    found = scores(IMAGES[:2], MARKS[:1])
    estimate = found.units["lesion"].sensitivity[1.0]
    assert estimate.value == 0.5
    assert math.isnan(estimate.low)
    assert estimate.women == 1
    assert "all images are of one woman: there are no intervals" in found.notes
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_density_without_a_lesion_has_no_scores_but_a_note():
    found = scores([*IMAGES, image("d", "d1", [], density="D")], MARKS)
    assert list(found.densities) == ["B", "C"]
    assert "density D: its 1 images have no lesion, and no scores of their own" in found.notes


def test_loose_boxes_fail_the_strict_rule_alone():
    x0, y0, _, _ = LESIONS[0]
    loose = {"path": "/b1.png", "score": 0.9, "x0": x0 - 5, "y0": y0 - 5, "x1": x0 + 25, "y1": y0 + 25}
    found = scores([IMAGES[2], IMAGES[3]], [loose])  # IoU 400 / 900
    assert {rule: each.value for rule, each in found.average_precision.items()} == {
        "IoU 0.2": 1.0,
        "IoU 0.5": 0.0,
        "centre": 1.0,
    }
    strict = scores([IMAGES[2], IMAGES[3]], [loose], FrocConfig(MatchingRule("iou", iou=0.5), resamples=1))
    assert set(values(strict.units["lesion"]).values()) == {0.0}
    assert list(strict.units["lesion"].sensitivity) == list(RATES)


def some_case(seed):
    rng = np.random.default_rng(seed)
    images, marks = [], []
    for number in range(8):
        types = list(rng.choice(["mass", "calcification"], rng.integers(0, 3)))
        name = f"i{number}"
        images.append(image(f"w{rng.integers(4)}", name, types))
        for place in [None, *range(len(types))] * 2:
            if rng.random() < 0.6:
                marks.append(mark(name, float(np.round(rng.random(), 1)), place))
    images.append(image("w9", "last", ["mass"]))
    return images, marks


def copies(images, marks, drawn, women):
    """Return a case in which each woman stands as often as she was drawn, under names of her own."""
    new_images, new_marks = [], []
    for rows in images:
        name = rows[0].row_id
        for copy in range(int(drawn[women.index(rows[0].patient_id)])):
            types = [row.lesion_type for row in rows[1:]]
            new_images.append(image(f"{rows[0].patient_id}x{copy}", f"{name}x{copy}", types))
            new_marks += [{**each, "path": f"/{name}x{copy}.png"} for each in marks if each["path"] == f"/{name}.png"]
    return new_images, new_marks


def test_intervals_are_those_of_scoring_each_resample_of_women_anew():
    images, marks = some_case(5)
    config = FrocConfig(rates=(0.25, 1.0), resamples=8)
    found = scores(images, marks, config)
    women = list(dict.fromkeys(rows[0].patient_id for rows in images))
    resampled = []
    for drawn in np.concatenate(list(resample_women(len(women), 8, 0, 1))):
        try:
            resampled.append(scores(*copies(images, marks, drawn, women), FrocConfig(rates=(0.25, 1.0), resamples=1)))
        except ExchangeError:  # no woman with a lesion was drawn
            continue
    assert len(resampled) == found.units["lesion"].mean.resamples

    def ends(figure):
        numbers = [figure(one) for one in resampled]
        return pytest.approx(tuple(np.quantile(numbers, [0.025, 0.975])))

    for unit, own in found.units.items():
        for rate, estimate in own.sensitivity.items():
            assert (estimate.low, estimate.high) == ends(
                lambda one, unit=unit, rate=rate: one.units[unit].sensitivity[rate].value
            )
        assert (own.mean.low, own.mean.high) == ends(lambda one, unit=unit: one.units[unit].mean.value)
    for rule, estimate in found.average_precision.items():
        assert (estimate.low, estimate.high) == ends(lambda one, rule=rule: one.average_precision[rule].value)


QUICK = FrocConfig(rates=(0.25, 1.0), resamples=1)


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 2**31))
def test_only_the_order_of_scores_matters(seed):
    images, marks = some_case(seed)
    moved = [{**each, "score": each["score"] ** 3 / 7 + 0.1} for each in marks]
    first, second = scores(images, marks, QUICK), scores(images, moved, QUICK)
    assert {unit: values(found) for unit, found in first.units.items()} == {
        unit: values(found) for unit, found in second.units.items()
    }
    assert first.units["lesion"].froc.values == second.units["lesion"].froc.values
    assert [each.value for each in first.average_precision.values()] == [
        each.value for each in second.average_precision.values()
    ]


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 2**31))
def test_more_false_positives_never_raise_a_figure_and_another_hit_never_lowers_one(seed):
    images, marks = some_case(seed)
    base = scores(images, marks, QUICK)
    worse = scores(images, [*marks, mark("i0", 0.95), mark("last", 0.35)], QUICK)
    better = scores(images, [*marks, mark("last", 0.55, 0)], QUICK)
    for lower, higher in ((worse, base), (base, better)):
        for unit in base.units:
            for rate, value in values(lower.units[unit]).items():
                assert value <= values(higher.units[unit])[rate] + 1e-12
        for rule, estimate in lower.average_precision.items():
            assert estimate.value <= higher.average_precision[rule].value + 1e-12
    woman, picture, single = (values(base.units[unit]) for unit in ("woman", "image", "lesion"))
    assert all(0 <= each <= 1 for group in (woman, picture, single) for each in group.values())


def test_the_same_question_has_the_same_answer():
    first, second = scores(IMAGES, MARKS).to_dict(), scores(IMAGES, MARKS).to_dict()
    assert first == second
    assert first["context"]["interval"]["resamples"] == 30


def test_progress_reaches_its_end():
    told = []
    truth = read_truth(findings_frame([row for rows in IMAGES for row in rows]))
    score_detections(truth, frame(MARKS), FEW, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))


@pytest.mark.parametrize("rates", [(), (0.0, 1.0), (1.0, 0.5), (1.0, 1.0), (float("nan"),), (float("inf"),)])
def test_rates_that_are_none_are_refused(rates):
    with pytest.raises(ExchangeError):
        FrocConfig(rates=rates)
