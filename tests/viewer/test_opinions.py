"""Opinions: large galleries are fitted on some women, whole ones, and every number has its support."""

from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from classifiers.fitted import fit_classifiers as fit
from classifiers.parts import parts_of_women
from index.gallery import Gallery
from viewer import ViewerError
from viewer.opinions import FitJob, OpinionJob, Opinions, OpinionWork, fitted_rows, opinion_sentence


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


def test_women_of_one_part_share_fits_that_are_made_ahead(room_gallery: Path, monkeypatch) -> None:
    monkeypatch.setattr("classifiers.parts._FEWEST_WOMEN", 1)
    fitted = []
    monkeypatch.setattr(
        "classifiers.classification.fit_classifiers",
        lambda *given, **named: fitted.append(given) or fit(*given, **named),
    )
    gallery = Gallery.open(room_gallery)
    parts = parts_of_women(gallery.patient_keys)
    part = max(set(parts.values()), key=list(parts.values()).count)
    one, other = [key for key in parts if parts[key] == part][:2]
    work = OpinionWork(room_gallery, gallery.generation, None, "cpu")
    place = 0
    while list(work.run([FitJob(frozenset({one}), place)])) == [True]:
        place += 1
    made = len(fitted)
    assert made == place + 1 >= 2
    for key in (one, other):
        row = gallery.patient_keys.tolist().index(key)
        vector = gallery.vectors.take(np.array([row]))[0]
        [said] = list(work.run([OpinionJob(vector.tobytes(), frozenset({key}))]))
        shared = sum(part == of for of in parts.values()) - 1
        assert f"without {shared} other women of the gallery too" in said[0]["basis"]
    assert len(fitted) == made
    for _, _, women, *_ in fitted:
        assert {key for key in parts if parts[key] == part}.isdisjoint(women.tolist())


def test_fits_go_on_from_target_to_target(room_gallery: Path) -> None:
    gallery = Gallery.open(room_gallery)
    opinions = Opinions(gallery)
    asked: list[FitJob] = []

    class Child:
        def submit(self, job: FitJob, *, priority: int) -> Future:
            asked.append(job)
            done: Future = Future()
            done.set_result(job.place < 3)
            return done

    opinions._child = Child()  # type: ignore[assignment]
    opinions.prepare(frozenset({"archive/w1"}))
    assert [job.place for job in asked] == [0, 1, 2, 3]
    assert {job.women for job in asked} == {frozenset({"archive/w1"})}


def test_sentences_never_say_a_bare_number() -> None:
    vote = {"counts": {"benign": 3, "malignant": 7}, "neighbours": 10, "women": 9}
    calibrated = {"probability": 0.62, "low": 0.5, "high": 0.74, "of": "malignant", "findings": 60, "women": 50}
    said = {"target": "pathology", "vote": vote, "calibrated": calibrated, "some_unlabelled": False}
    sentence = opinion_sentence(said)
    assert sentence.startswith(
        "pathology: 7 of 10 malignant, from 9 women; calibrated 0.62, 95 % interval 0.50 to 0.74"
    )
    sentence = opinion_sentence({**said, "target": "lesion_type", "calibrated": None, "some_unlabelled": True})
    assert sentence == (
        "lesion_type: 7 of 10 malignant, from 9 women, the nearest whose lesion type is known; not calibrated"
    )
    assert opinion_sentence({"target": "density", "problem": "no labels"}) == "density: no labels"
