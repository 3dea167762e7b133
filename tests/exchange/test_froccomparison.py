import json
import math

import numpy as np
import pytest

from embedder.findings import Finding, findings_frame
from exchange.detections import Detection, detections_frame
from exchange.froc import FrocConfig
from exchange.froccomparison import compare_detections
from exchange.judging import read_truth
from index.metrics import resample_women

CONFIG = FrocConfig(rates=(0.5, 1.0), resamples=40)
BOX = {"x0": 10, "y0": 10, "x1": 30, "y1": 30}


def truth_of(women):
    """Each woman has an image with a lesion and one without."""
    rows = []
    for woman in women:
        shared = {"dataset": "d", "patient_id": woman}
        rows.append(Finding(row_id=f"l{woman}", path=f"/{woman}1.png", granularity="finding", **BOX, **shared))
        rows.append(Finding(row_id=f"n{woman}", path=f"/{woman}2.png", granularity="breast", **shared))
    return read_truth(findings_frame(rows))


def detections(hits, false):
    """Detections from scores by woman: of what hits her lesion, and of false positives on her other image."""
    rows = []
    for woman, score in hits.items():
        rows.append(
            Detection(detection_id=f"h{woman}", path=f"/{woman}1.png", score=score, dataset="", patient_id="", **BOX)
        )
    for woman, marks in false.items():
        for number, score in enumerate(marks):
            name = f"f{woman}{number}"
            rows.append(
                Detection(detection_id=name, path=f"/{woman}2.png", score=score, dataset="", patient_id="", **BOX)
            )
    return detections_frame(rows)


TRUTH = truth_of("ab")
# Four images. The lesion of b comes after four false positives before, after one afterwards.
BEFORE = detections({"a": 0.9, "b": 0.4}, {"a": [0.8, 0.7], "b": [0.6, 0.5]})
AFTER = detections({"a": 0.9, "b": 0.6}, {"a": [0.8, 0.1], "b": [0.2, 0.3]})


def test_gains_and_the_reduction_of_false_positives_are_those_counted_by_hand():
    found = compare_detections(TRUTH, BEFORE, AFTER, CONFIG)
    # Before: 1/2 until the fourth false positive (1 an image). After: all with one (1/4 an image).
    assert {rate: each.value for rate, each in found.sensitivity["lesion"].items()} == {0.5: 0.5, 1.0: 0.0}
    assert found.mean_sensitivity["lesion"].value == 0.25
    # Precision: 1 and 2/6 before, 1 and 2/3 after.
    assert found.average_precision["centre"].value == pytest.approx((2 / 3 - 1 / 3) / 2)
    at_one = found.false_positives[1.0]
    assert (at_one.sensitivity.value, at_one.first.value, at_one.second.value) == (1.0, 1.0, 0.25)
    assert (at_one.saved.value, at_one.reduction.value) == (0.75, 0.75)
    at_half = found.false_positives[0.5]
    assert (at_half.sensitivity.value, at_half.first.value, at_half.second.value) == (0.5, 0.0, 0.0)
    assert math.isnan(at_half.reduction.value)  # nothing to save


def test_a_set_compared_with_itself_gains_nothing():
    found = compare_detections(TRUTH, BEFORE, BEFORE, CONFIG)
    for own in [*found.sensitivity.values()]:
        assert {(each.value, each.low, each.high) for each in own.values()} == {(0.0, 0.0, 0.0)}
    assert {each.value for each in found.average_precision.values()} == {0.0}
    assert found.false_positives[1.0].reduction.value == 0.0
    assert found.notes == ()


def test_turning_the_comparison_round_turns_the_sign():
    one, other = compare_detections(TRUTH, BEFORE, AFTER, CONFIG), compare_detections(TRUTH, AFTER, BEFORE, CONFIG)
    for unit, own in one.sensitivity.items():
        for rate, estimate in own.items():
            turned = other.sensitivity[unit][rate]
            assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
                (-turned.value, -turned.high, -turned.low)
            )


def some_sets(seed, women):
    rng = np.random.default_rng(seed)

    def one(shift, share):
        hits = {woman: float(np.round(rng.random() * 0.7 + shift, 2)) for woman in women if rng.random() < share}
        return hits, {woman: np.round(rng.random(3), 2).tolist() for woman in women}

    return one(0.0, 0.9), one(0.3, 1.0)


def test_intervals_are_those_of_comparing_each_resample_of_women_anew():
    women = "abcdef"
    sets = some_sets(2, women)
    found = compare_detections(
        truth_of(women), detections(*sets[0]), detections(*sets[1]), FrocConfig(rates=(1.0,), resamples=8)
    )
    gains, saved, reductions = [], [], []
    for drawn in np.concatenate(list(resample_women(len(women), 8, 0, 1))):
        times = dict(zip(women, drawn.astype(int), strict=True))
        copies = {f"{woman}{copy}": woman for woman in women for copy in range(times[woman])}
        tables = [
            detections(*({copy: part[woman] for copy, woman in copies.items() if woman in part} for part in parts))
            for parts in sets
        ]
        truth = truth_of(list(copies))
        again = compare_detections(truth, *tables, FrocConfig(rates=(1.0,), resamples=1))
        gains.append(again.mean_sensitivity["lesion"].value)
        change = again.false_positives[1.0]
        saved.append(change.saved.value)
        reductions.append(change.reduction.value)
    change = found.false_positives[1.0]
    for estimate, numbers in (
        (found.mean_sensitivity["lesion"], gains),
        (change.saved, saved),
        (change.reduction, reductions),
    ):
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.nanquantile(numbers, [0.025, 0.975])))
        assert estimate.low < estimate.high


def test_a_second_set_that_never_reaches_the_first_has_no_figure_and_a_note_says_so():
    found = compare_detections(TRUTH, BEFORE, detections({"a": 0.9}, {}), CONFIG)
    change = found.false_positives[1.0]
    assert change.first.value == 1.0
    assert math.isnan(change.second.value)
    assert math.isnan(change.reduction.value)
    assert any(note.startswith("at 1 false positives an image rescored does not reach") for note in found.notes)
    json.dumps(found.to_dict(), allow_nan=False)


def test_one_woman_and_no_detections_raise_nothing():
    truth = truth_of("a")
    found = compare_detections(truth, detections({"a": 0.5}, {}), detections_frame([]), CONFIG)
    assert found.mean_sensitivity["lesion"].value == -1.0
    assert math.isnan(found.mean_sensitivity["lesion"].low)
    json.dumps(found.to_dict(), allow_nan=False)
