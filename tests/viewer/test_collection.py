"""Drift, duplicates and doubtful rows, against what can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from index.gallery import Gallery
from index.typicality import witnesses_of
from viewer import collection
from viewer.collection import AskedQuery, asked_of, counts, curate, drift, find_scorecard, nearest_others


@pytest.fixture(scope="module")
def gallery(room_gallery: Path) -> Gallery:
    return Gallery.open(room_gallery)


def test_each_question_counts_once_a_month(gallery: Gallery) -> None:
    asked = [
        AskedQuery("2024-01-03T10:00:00Z", 0.9, False, "a"),
        AskedQuery("2024-01-03T10:01:00Z", 0.5, True, "a"),  # steered
        AskedQuery("2024-01-09T10:00:00Z", 0.7, False, "b"),
        AskedQuery("2024-02-01T10:00:00Z", 0.8, None, "a"),
        AskedQuery("2024-02-01T10:00:00Z", None, True, "c"),
    ]
    found = drift(gallery, asked, "2024-02")
    assert found["months"] == [
        {"month": "2024-01", "queries": 2, "median": 0.6, "share_without_precedent": 0.5},
        {"month": "2024-02", "queries": 2, "median": 0.8, "share_without_precedent": 1.0},
    ]
    assert found["this_month"] == {"n": 2, "median": 0.8}
    assert found["gallery"]["quartiles"][0] <= found["gallery"]["median"] <= found["gallery"]["quartiles"][1]
    assert drift(gallery, [], "2024-02")["this_month"] == {"n": 0, "median": None}
    assert asked_of("t", {"similarities": [], "question_id": "x"}).best is None


def test_nearest_others_are_what_a_loop_finds(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    found = nearest_others(gallery)
    assert found is not None
    matrix = gallery.matrix.astype(np.float64)
    for row in (0, 7, 33):
        likeness = matrix @ matrix[row]
        likeness[gallery.women == gallery.women[row]] = -2
        assert found.similarities[row] == pytest.approx(likeness.max(), abs=1e-6)
    monkeypatch.setattr(collection, "ALIKE", float(np.quantile(found.similarities, 0.9)))
    pairs = collection.near_duplicates(gallery, found)
    assert pairs
    assert all(one["row"].split("-")[0] != one["other"].split("-")[0] for one in pairs)
    assert [one["similarity"] for one in pairs] == sorted((one["similarity"] for one in pairs), reverse=True)
    monkeypatch.setattr(collection, "_MOST_COMPARED", 3)
    assert curate(gallery)["atypical"] is None


def test_doubtful_rows_come_most_doubtful_first(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = witnesses_of(gallery, "pathology").scores
    monkeypatch.setattr(collection, "_DOUBTFUL", 2.0)
    found = collection.doubtful_rows(gallery, most=100)
    assert found is not None
    assert len(found) == int(np.isfinite(scores).sum())
    assert [one["typicality"] for one in found] == sorted(one["typicality"] for one in found)


def test_counts_and_scorecards(gallery: Gallery, tmp_path: Path) -> None:
    assert counts(gallery)["lesion_type"]["mass"] == {"rows": 30, "women": 15}
    assert find_scorecard([tmp_path]) is None
    (tmp_path / "scorecard.json").write_text("[1, 2")
    assert find_scorecard([tmp_path]) is None
    (tmp_path / "benchmark.json").write_text('{"a": 1}')
    assert find_scorecard([tmp_path / "nothing", tmp_path]) == {"file": "benchmark.json", "content": {"a": 1}}
