import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.gallery import Gallery
from index.precedents import (
    FEWEST_WOMEN,
    Precedents,
    closeness,
    parse_precedents,
    precedents_of,
    sample_precedents,
)
from index.refinement import Refinement
from index.retrieval import Question, ask, query_row
from index.writer import GalleryWriter


def tissue(count: int, seed: int, first: int, make_findings: Callable[..., Any], middle: int = 0) -> Any:
    """Return findings whose vectors lie around one direction, as those of one organ do."""
    batch = make_findings(count, first=first, seed=seed)
    batch.vectors[:, middle] += 1.5
    batch.vectors /= np.linalg.norm(batch.vectors, axis=1, keepdims=True)
    return batch


@pytest.fixture
def folder(make_gallery: Callable[..., Path], make_findings: Callable[..., Any]) -> Path:
    """A gallery of 90 findings of 30 women."""
    return make_gallery(tissue(90, 1, 0, make_findings))


def leave_one_woman_out(gallery: Gallery, row: int) -> float:
    others = [other for other in range(len(gallery)) if gallery.women[other] != gallery.women[row]]
    return max(float(gallery.matrix[row].astype(float) @ gallery.matrix[other].astype(float)) for other in others)


class TestTheSample:
    def test_each_woman_is_asked_against_all_others(self, folder: Path) -> None:
        gallery = Gallery.open(folder)
        sample = sample_precedents(gallery)
        assert sample is not None
        assert (len(sample.similarities), sample.rows, sample.model_digest) == (30, 90, "a" * 64)
        possible = [[leave_one_woman_out(gallery, row) for row in range(w * 3, w * 3 + 3)] for w in range(30)]
        # One row of each woman: what is left of the similarities when each woman has taken one of hers is nothing.
        left = list(sample.similarities)
        for own in possible:
            near = [value for value in left if any(abs(value - each) < 1e-6 for each in own)]
            assert near
            left.remove(near[0])
        assert left == []
        assert list(sample.similarities) == sorted(sample.similarities)
        assert sample_precedents(Gallery.open(folder)) == sample

    def test_up_to_a_number_of_women(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("index.precedents.MOST_WOMEN", 21)
        monkeypatch.setattr("index.precedents._BATCH", 4)
        sample = sample_precedents(Gallery.open(folder))
        assert sample is not None
        assert len(sample.similarities) == 21

    def test_few_women_make_no_sample(self, gallery_folder: Path) -> None:
        gallery = Gallery.open(gallery_folder)
        assert sample_precedents(gallery) is None
        found = query_row(gallery, "row-0007").to_dict()
        assert found["no_close_precedent"] is None
        assert found["closeness"]["percentile"] is None
        assert found["closeness"]["best_similarity"] == found["neighbours"][0]["similarity"]
        assert any("is not known" in note for note in found["notes"])


class TestAnAnswer:
    def test_a_query_from_far_away_is_told(self, folder: Path) -> None:
        gallery = Gallery.open(folder)
        far = np.eye(16, dtype=np.float32)[0] * -1  # the other way round than all tissue of the gallery
        answer = ask(gallery, far)
        assert answer.no_close_precedent is True
        assert answer.to_dict()["no_close_precedent"] is True
        assert any(note.startswith("no close precedent: the nearest") for note in answer.notes)
        assert len(answer.neighbours) == 10

    def test_nearly_all_others_are_not(self, folder: Path, make_findings: Callable[..., Any]) -> None:
        gallery = Gallery.open(folder)
        same, other = (tissue(60, 2, 300, make_findings, middle=middle).vectors for middle in (0, 1))
        told = [ask(gallery, vector).no_close_precedent for vector in same]
        assert sum(map(bool, told)) <= 9
        assert sum(bool(ask(gallery, vector).no_close_precedent) for vector in other) >= 54
        assert sum(bool(query_row(gallery, row).no_close_precedent) for row in gallery.row_ids) <= 9

    def test_the_percentile_is_the_share_of_women_who_find_no_closer_one(self, folder: Path) -> None:
        gallery = Gallery.open(folder)
        sample = sample_precedents(gallery)
        assert sample is not None
        answer = query_row(gallery, "row-0011", Question(k=1))
        found = answer.to_dict()["closeness"]
        best = found["best_similarity"]
        assert found["percentile"] == 100 * sum(value <= best for value in sample.similarities) / 30
        assert found["sample_women"] == 30
        for least in (0.0, found["percentile"], min(found["percentile"] + 0.1, 100)):
            again = query_row(gallery, "row-0011", Question(k=1, least_percentile=least))
            assert again.no_close_precedent is (found["percentile"] < least)

    def test_only_other_women_are_precedents(self, folder: Path) -> None:
        gallery = Gallery.open(folder)
        similarities = gallery.matrix @ gallery.matrix.T
        hers = gallery.women[:, None] == gallery.women[None, :]
        np.fill_diagonal(hers, False)
        closer = np.where(hers, similarities, -1).max(1) > np.where(hers, -1, similarities - 2 * np.eye(90)).max(1)
        row = gallery.row_id(int(np.flatnonzero(closer)[0]))  # her own other finding is the nearest
        alone = query_row(gallery, row, Question(k=1))
        every = query_row(gallery, row, Question(k=90, per_group=0, include_same_patient=True))
        assert len(every.neighbours) == 89
        assert every.closeness is not None
        assert alone.closeness is not None
        assert every.similarities[0] > alone.similarities[0]
        assert every.closeness.best == alone.closeness.best == float(alone.similarities[0])

    def test_nobody_answers(self, folder: Path) -> None:
        answer = query_row(Gallery.open(folder), "row-0011", Question(minimum=1.0))
        assert len(answer.neighbours) == 0
        assert answer.no_close_precedent is True
        assert "no close precedent: no other woman's finding answers" in answer.notes

    def test_examples_make_nothing_closer(self, folder: Path) -> None:
        gallery = Gallery.open(folder)
        refinement = Refinement(positive=("row-0040",), beta=100.0, exclude_examples=False)
        answer = query_row(gallery, "row-0011", Question(k=1, refinement=refinement))
        assert answer.neighbours[0].row_id == "row-0040"
        assert answer.similarities[0] > 0.999
        assert answer.closeness is not None
        assert answer.closeness.best == pytest.approx(float(gallery.matrix[40] @ gallery.matrix[11]), abs=1e-6)


class TestStored:
    def test_what_is_stored_is_used(self, folder: Path) -> None:
        fresh = sample_precedents(Gallery.open(folder))
        with GalleryWriter(folder) as writer:
            writer.store_precedents(Precedents((-1.0,) * 20, 90, "a" * 64).to_bytes())
        gallery = Gallery.open(folder)
        assert precedents_of(gallery) == Precedents((-1.0,) * 20, 90, "a" * 64) != fresh
        assert gallery.manifest.precedents is not None
        data = (folder / gallery.manifest.precedents.file).read_bytes()
        assert set(json.loads(data)) == {"format", "rows", "model_digest", "similarities"}
        answer = query_row(gallery, "row-0011").to_dict()
        assert answer["replay"]["precedents_sha256"] == gallery.manifest.precedents.sha256

    @pytest.mark.parametrize(
        "data",
        [
            Precedents((0.5,) * 20, 90, "other model").to_bytes(),
            Precedents((0.5,) * 20, 900, "a" * 64).to_bytes(),
            Precedents((0.5,) * 20, 9, "a" * 64).to_bytes(),
            b"not JSON",
        ],
    )
    def test_what_does_not_fit_is_not(self, folder: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        fresh = sample_precedents(Gallery.open(folder))
        with GalleryWriter(folder) as writer:
            writer.store_precedents(data)
        assert precedents_of(Gallery.open(folder)) == fresh
        monkeypatch.setattr("index.precedents.MOST_ROWS_AT_ONCE", 80)  # too many rows to do it for one answer
        gallery = Gallery.open(folder)
        assert precedents_of(gallery) is None
        assert query_row(gallery, "row-0011").no_close_precedent is None

    def test_a_damaged_file_is_not(self, folder: Path) -> None:
        with GalleryWriter(folder) as writer:
            writer.store_precedents(Precedents((0.5,) * 20, 90, "a" * 64).to_bytes())
        entry = Gallery.open(folder).manifest.precedents
        assert entry is not None
        path = folder / entry.file
        path.write_bytes(path.read_bytes()[::-1])
        assert precedents_of(Gallery.open(folder)) == sample_precedents(Gallery.open(folder))
        path.unlink()
        assert precedents_of(Gallery.open(folder)) == sample_precedents(Gallery.open(folder))


GOOD = {"format": 1, "rows": 90, "model_digest": "m", "similarities": [0.25, *([0.5] * (FEWEST_WOMEN - 1))]}


class TestHostileFiles:
    def test_a_good_one(self) -> None:
        found = parse_precedents(json.dumps(GOOD).encode())
        assert parse_precedents(found.to_bytes()) == found

    @pytest.mark.parametrize(
        "change",
        [
            {"format": 2},
            {"format": None},
            {"rows": 0},
            {"rows": -1},
            {"rows": True},
            {"rows": 1.5},
            {"rows": 10**30},
            {"model_digest": 7},
            {"similarities": None},
            {"similarities": {}},
            {"similarities": []},
            {"similarities": [0.5] * (FEWEST_WOMEN - 1)},
            {"similarities": [0.5] * 1001},
            {"similarities": [0.5] * 20 + [0.4]},
            {"similarities": [0.5] * 20 + [float("nan")]},
            {"similarities": [0.5] * 20 + [float("inf")]},
            {"similarities": [0.5] * 20 + [1.5]},
            {"similarities": [0.5] * 20 + ["0.6"]},
            {"similarities": [0.5] * 20 + [True]},
            {"similarities": [0.5] * 20 + [[0.6]]},
        ],
    )
    def test_values_that_are_none(self, change: dict[str, Any]) -> None:
        with pytest.raises(ValueError):
            parse_precedents(json.dumps({**GOOD, **change}).encode())

    @pytest.mark.parametrize(
        "data", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 60_000, b"{" * 100, json.dumps(GOOD).encode() + b" " * 70_000]
    )
    def test_files_that_are_none(self, data: bytes) -> None:
        with pytest.raises(ValueError):
            parse_precedents(data)

    @settings(deadline=None, max_examples=50)
    @given(st.integers(0, 200), st.integers(0, 255))
    def test_a_flipped_byte_never_breaks_more_than_the_file(self, place: int, value: int) -> None:
        data = bytearray(json.dumps(GOOD).encode())
        data[place % len(data)] = value
        try:
            found = parse_precedents(bytes(data))
        except ValueError:
            return
        assert len(found.similarities) == FEWEST_WOMEN
        assert all(-1.01 <= similarity <= 1.01 for similarity in found.similarities)


def test_a_judgement_without_a_sample() -> None:
    assert closeness(None, None, 5.0).no_close_precedent is True
    assert closeness(None, 0.9, 5.0).no_close_precedent is None
    assert closeness(Precedents((0.5, 0.7), 9, "m"), 0.6, 5.0).percentile == 50.0
