"""Typicality against a slow, obvious version of itself, and what it must say of cases that anyone can judge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import QueryError
from index.gallery import Gallery
from index.typicality import MISSING, typicality, witnesses_of


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Return an inner product as it is defined for all engines: the later half folded on the earlier one."""
    terms = [a * b for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    while len(terms) > 1:
        half = len(terms) // 2
        folded = [terms[i] + terms[half + i] for i in range(half)]
        folded[0] += terms[-1] if len(terms) % 2 else 0.0
        terms = folded
    return float(np.float32(terms[0]))


def slow_typicality(
    vectors: np.ndarray, labels: list[Any], women: list[str], k: int, names: list[str]
) -> list[float | None]:
    """Return each row's score by going through all rows of all other women; None where there is none."""
    rows = range(len(labels))
    scores: list[float | None] = []
    for row in rows:
        others = [i for i in rows if labels[i] is not None and women[i] != women[row]]
        if labels[row] is None or not others:
            scores.append(None)
            continue
        base = 0.0
        for woman in {women[i] for i in others}:
            hers = [labels[i] for i in others if women[i] == woman]
            base += hers.count(labels[row]) / len(hers)
        base /= len({women[i] for i in others})
        if base < 1e-9 or base > 1 - 1e-9:
            scores.append(None)
            continue
        asked: dict[str, Any] = {}
        for other in sorted(others, key=lambda i: (-similarity(vectors[row], vectors[i]), names[i])):
            if len(asked) < k:
                asked.setdefault(women[other], labels[other])
        share = (list(asked.values()).count(labels[row]) + base) / (len(asked) + 1)
        scores.append(share * (1 - base) / (share * (1 - base) + (1 - share) * base))
    return scores


def plain(scores: np.ndarray) -> list[float | None]:
    return [None if np.isnan(score) else score for score in scores.tolist()]


@st.composite
def small_worlds(draw: st.DrawFn) -> tuple[np.ndarray, list[Any], list[str], list[str]]:
    """Few women, few distinct vectors, missing labels, and names in another order than the rows."""
    rows = draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pool = rng.normal(size=(draw(st.integers(1, 8)), 5)).astype(np.float32)
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    labels = [(None, "A", "B", "C")[i] for i in rng.integers(0, draw(st.integers(2, 4)), rows)]
    women = [f"d/{i}" for i in rng.integers(0, draw(st.integers(1, 9)), rows)]
    return pool[rng.integers(0, len(pool), rows)], labels, women, [f"r{i}" for i in rng.permutation(rows)]


@settings(deadline=None, max_examples=80)
@given(small_worlds(), st.integers(1, 12))
def test_as_the_slow_version(world: tuple[np.ndarray, list[Any], list[str], list[str]], k: int) -> None:
    vectors, labels, women, names = world
    found = typicality(vectors, labels, women, k, row_ids=names)
    assert plain(found) == pytest.approx(slow_typicality(vectors, labels, women, k, names), abs=2e-9)
    order = np.random.default_rng(k).permutation(len(labels))
    again = typicality(
        vectors[order],
        [labels[i] for i in order],
        [women[i] for i in order],
        k,
        row_ids=[names[i] for i in order],
    )
    assert plain(again) == plain(found[order])


@settings(deadline=None, max_examples=60)
@given(small_worlds(), st.integers(1, 12), st.data())
def test_without_a_woman_is_as_if_she_had_never_been_there(
    world: tuple[np.ndarray, list[Any], list[str], list[str]], k: int, data: st.DataObject
) -> None:
    from index.engines import exact_engine
    from index.typicality import _witnesses
    from index.vectors import StoredVectors

    vectors, labels, women, names = world
    stored, ids = StoredVectors([vectors], 5), np.array(names, object)
    engine = exact_engine(stored, lambda positions: ids[positions])
    codes = np.array([MISSING if label is None else "ABC".index(label) for label in labels], np.int64)
    numbers = pd.factorize(np.array(women, object))[0].astype(np.int64)
    whole = _witnesses(engine, stored, ("A", "B", "C"), codes, numbers, k)
    gone = np.isin(np.array(women), data.draw(st.lists(st.sampled_from(sorted(set(women))), max_size=3)))
    left = [row for row in range(len(labels)) if not gone[row]]
    found = whole.without(np.flatnonzero(gone)).scores
    assert np.isnan(found[gone]).all()
    expected = slow_typicality(
        vectors[left], [labels[i] for i in left], [women[i] for i in left], k, [names[i] for i in left]
    )
    assert plain(found[left]) == pytest.approx(expected, abs=2e-9)
    assert plain(whole.scores) == pytest.approx(slow_typicality(vectors, labels, women, k, names), abs=2e-9)


def around(places: list[int], seed: int = 0) -> np.ndarray:
    """Return unit vectors close to some axes of eight."""
    vectors = np.eye(8)[places] + np.random.default_rng(seed).normal(size=(len(places), 8)) * 0.05
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class TestWhatItSays:
    def test_the_one_mislabelled_row_is_the_most_doubtful(self) -> None:
        labels = ["mass"] * 12 + ["calcification"] * 12
        labels[3] = "calcification"
        scores = typicality(around([0] * 12 + [1] * 12), labels, range(24))
        assert scores.argmin() == 3
        assert scores[3] < 0.1
        assert (np.delete(scores, 3) > 0.85).all()

    def test_neighbours_at_random_are_chance_for_a_rare_label_too(self) -> None:
        rng = np.random.default_rng(1)
        vectors = rng.normal(size=(900, 64)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        labels = np.where(rng.random(900) < 0.1, "rare", "frequent").astype(object)
        scores = typicality(vectors, labels, range(900), k=300)
        for name in ("rare", "frequent"):
            assert scores[labels == name].mean() == pytest.approx(0.5, abs=0.02)

    def test_exactly_chance_is_half(self) -> None:
        # Everyone is asked: five of the eleven others share the label.
        vectors = around([0] * 12)
        labels = ["a"] * 6 + ["b"] * 6
        scores = typicality(vectors, labels, range(12), k=11)
        assert scores.tolist() == [0.5] * 12

    def test_a_womans_own_rows_do_not_vouch_for_her(self) -> None:
        labels = ["mass"] * 12 + ["calcification"] * 16
        places = [0] * 12 + [1] * 12 + [0] * 4
        alone = [*range(24), 24, 24, 24, 24]
        apart = list(range(28))
        vectors = around(places)
        assert typicality(vectors, labels, alone)[24:].max() < 0.1
        assert typicality(vectors, labels, apart)[24:].min() > 0.19

    def test_four_views_of_a_woman_are_one_witness(self) -> None:
        vectors = around([0] * 16 + [1] * 8)
        labels = ["mass"] * 8 + ["calcification"] * 8 + ["mass"] * 8
        scores = typicality(vectors, labels, [*range(8), *([100] * 8), *range(200, 208)])
        one = [*range(9), *range(16, 24)]  # the same with one of her views
        assert scores[:8].tolist() == typicality(vectors[one], [labels[row] for row in one], range(17))[:8].tolist()
        assert (typicality(vectors, labels, range(24))[:8] != scores[:8]).all()

    def test_unknown_is_unknown(self) -> None:
        vectors = around([0] * 6 + [1] * 6)
        labels: list[Any] = ["a"] * 6 + ["b"] * 6
        for missing in (None, float("nan"), pd.NA):
            labels[2] = missing
            assert np.isnan(typicality(vectors, labels, range(12))).tolist() == [i == 2 for i in range(12)]
        # Nobody else could share it, or contradict it; or there is nobody else.
        assert np.isnan(typicality(vectors, ["a"] * 11 + ["b"], range(12))).tolist() == [False] * 11 + [True]
        assert np.isnan(typicality(vectors, ["a"] * 12, range(12))).all()
        assert np.isnan(typicality(vectors, ["a", "b"] * 6, ["same"] * 12)).all()
        assert typicality(np.empty((0, 4), np.float32), [], []).shape == (0,)

    @pytest.mark.parametrize(
        ("vectors", "labels", "women", "k", "says"),
        [
            (around([0, 1]), ["a"], [1, 2], 10, "one label and one woman per row"),
            (around([0, 1]), ["a", "b"], [1], 10, "one label and one woman per row"),
            (around([0, 1])[0], ["a", "b"], [1, 2], 10, "one label and one woman per row"),
            (around([0, 1]) * np.float32(2), ["a", "b"], [1, 2], 10, "not of length 1"),
            (around([0, 1]) * np.float32(np.nan), ["a", "b"], [1, 2], 10, "not of length 1"),
            (around([0, 1]), ["a", "b"], [1, None], 10, "row 1 has no woman"),
            (around([0, 1]), ["a", "b"], [1, 2], 0, "number of neighbours"),
            (around([0, 1]), ["a", "b"], [1, 2], True, "number of neighbours"),
            (around([0, 1]), ["a", "b"], [1, 2], 2.0, "number of neighbours"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, vectors: Any, labels: Any, women: Any, k: Any, says: str) -> None:
        with pytest.raises(QueryError, match=says):
            typicality(vectors, labels, women, k)


class TestOfAGallery:
    def test_it_is_that_of_its_rows(self, gallery_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gallery = Gallery.open(gallery_folder)
        for label, k in (("density", 10), ("density", 2), ("view", 3)):
            labels = [gallery.table.cell(label, row) for row in range(33)]
            ids = gallery.row_ids.tolist()
            expected = typicality(gallery.matrix, labels, gallery.patient_keys, k, row_ids=ids)
            assert 0 < np.nanmin(expected) < np.nanmax(expected) < 1
            assert plain(witnesses_of(gallery, label, k).scores) == plain(expected)
        monkeypatch.setattr("index.typicality.MOST_ROWS_AT_ONCE", 5)  # by the gallery's own index, in batches
        monkeypatch.setattr("index.typicality._BATCH", 4)
        told: list[tuple[int, int]] = []
        again = witnesses_of(Gallery.open(gallery_folder), "view", 3, progress=lambda *done: told.append(done))
        assert plain(again.scores) == plain(expected)
        assert told[0] == (4, 33)
        assert told[-1] == (33, 33)

    def test_it_is_looked_up_once(self, gallery_folder: Path) -> None:
        gallery = Gallery.open(gallery_folder)
        assert witnesses_of(gallery, "density") is witnesses_of(gallery, "density")
        assert witnesses_of(gallery, "density") is not witnesses_of(gallery, "density", 3)
        assert witnesses_of(Gallery.open(gallery_folder), "density") is not witnesses_of(gallery, "density")

    def test_a_label_of_whole_numbers_or_truth_values(
        self, make_gallery: Callable[..., Path], make_findings: Callable[..., Any]
    ) -> None:
        batch = make_findings(30)
        batch.records["subtlety"] = pd.array([None if i % 7 == 0 else i % 3 for i in range(30)], dtype="Int64")
        batch.records["implant"] = [i % 2 == 0 for i in range(30)]
        gallery = Gallery.open(make_gallery(batch))
        for label in ("subtlety", "implant"):
            labels = [gallery.table.cell(label, row) for row in range(30)]
            expected = typicality(gallery.matrix, labels, gallery.patient_keys, row_ids=gallery.row_ids.tolist())
            assert plain(witnesses_of(gallery, label).scores) == plain(expected)

    @pytest.mark.parametrize(
        ("label", "says"),
        [
            ("colour", "no column 'colour'"),
            ("age", "holds numbers"),
            ("row_id", "120 values"),
            ("granularity", "two values"),
            ("margin", "two values"),
            ("hers", "two women"),
        ],
    )
    def test_a_column_that_can_not_be_judged_is_refused(
        self, make_gallery: Callable[..., Path], make_findings: Callable[..., Any], label: str, says: str
    ) -> None:
        batch = make_findings(120)
        batch.records["margin"] = None
        batch.records["hers"] = ["a", "b", None] + [None] * 117
        with pytest.raises(QueryError, match=says):
            witnesses_of(Gallery.open(make_gallery(batch)), label)
