"""Opinions: large galleries are fitted on some women, whole ones, and every number has its support."""

from pathlib import Path

import numpy as np
import pytest

from index.gallery import Gallery
from viewer import ViewerError
from viewer.opinions import OpinionJob, OpinionWork, fitted_rows, opinion_sentence


def test_some_women_stand_for_a_large_gallery(room_gallery: Path) -> None:
    gallery = Gallery.open(room_gallery)
    assert fitted_rows(gallery).tolist() == list(range(len(gallery)))
    some = fitted_rows(gallery, 41)
    assert 30 < len(some) <= 41
    assert np.array_equal(some, fitted_rows(gallery, 41))
    chosen = set(gallery.women[some].tolist())
    assert len(some) == sum(len(gallery.rows_of([woman])) for woman in chosen)


def test_what_is_fitted_on_some_says_so(room_gallery: Path) -> None:
    gallery = Gallery.open(room_gallery)
    work = OpinionWork(room_gallery, gallery.generation, None, "cpu", most=50)
    vector = gallery.vectors.take(np.array([3]))[0]
    [said] = list(work.run([OpinionJob(vector.tobytes(), frozenset({gallery.patient_key(3)}))]))
    assert "fitted on 50 of the gallery's 60 rows" in said[0]["basis"]
    with pytest.raises(ViewerError, match="generation"):
        OpinionWork(room_gallery, gallery.generation + 1, None, "cpu")


def test_sentences_never_say_a_bare_number() -> None:
    vote = {"counts": {"benign": 3, "malignant": 7}, "neighbours": 10, "women": 9}
    calibrated = {"probability": 0.62, "low": 0.5, "high": 0.74, "of": "malignant", "findings": 60, "women": 50}
    sentence = opinion_sentence({"target": "pathology", "vote": vote, "calibrated": calibrated})
    assert sentence.startswith(
        "pathology: 7 of 10 malignant, from 9 women; calibrated 0.62, 95 % interval 0.50 to 0.74"
    )
    assert opinion_sentence({"target": "density", "problem": "no labels"}) == "density: no labels"
