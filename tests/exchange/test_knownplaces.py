import shutil
from pathlib import Path

import numpy as np
import pytest

from classifiers.cases import Source
from embedder.findings import Box
from embedder.mammogram import read_mammogram
from embedder.preparation import prepare
from exchange.detecting import Detector
from exchange.knownplaces import known_places
from index.gallery import Gallery
from index.upkeep import remove_rows, verify_gallery


@pytest.fixture
def own(detect_gallery, tmp_path):
    folder = tmp_path / "gallery"
    shutil.copytree(detect_gallery, folder)
    for cache in folder.glob("cache/*.dense"):
        cache.unlink()
    return folder


def places_of(detector, gallery=None, **options):
    asked = detector.gallery if gallery is None else gallery
    tissue = asked.records["tissue"].to_numpy(dtype=object)
    return known_places(asked, detector.embedder, detector.dense, tissue, **options)


def cached(folder):
    return sorted(folder.glob("cache/*.dense"))


def test_each_known_place_is_embedded_on_its_own_film(own):
    detector = Detector(own)
    known = places_of(detector)
    tissue = detector.gallery.records["tissue"]
    assert known.positions.tolist() == np.flatnonzero(tissue.isin(["lesion", "normal"])).tolist()
    assert known.unread == 0
    for place in (0, len(known.positions) - 1):
        record = detector.gallery.record(int(known.positions[place]))
        film = read_mammogram(Path(record["path"]))
        prepared = prepare(
            film.pixels, detector.dense.preparation, spacing_mm=record["spacing_mm"], view=record["view"]
        )
        box = [int(record[side]) for side in ("x0", "y0", "x1", "y1")]
        alone = detector.dense.in_place(prepared, [Box(*box)])[0]
        assert np.allclose(known.vectors[place], alone, atol=1e-5)


def test_what_was_embedded_is_kept_and_what_is_damaged_is_made_again(own, monkeypatch):
    detector = Detector(own)
    [path] = cached(own)
    first = places_of(detector)
    looked = []
    original = type(detector.dense).in_place
    monkeypatch.setattr(
        type(detector.dense), "in_place", lambda self, *given: looked.append(1) or original(self, *given)
    )
    again = places_of(detector)
    assert not looked, "it comes from the cache"
    assert np.array_equal(first.vectors, again.vectors)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    mended = places_of(detector)
    assert looked
    assert np.array_equal(first.vectors, mended.vectors)
    assert bytes(content) != path.read_bytes()
    path.write_bytes(b"short")
    assert np.array_equal(first.vectors, places_of(detector).vectors)


def test_the_cache_belongs_to_the_gallery_and_goes_with_its_next_change(own):
    Detector(own)
    [path] = cached(own)
    said = {report.file: report.state for report in verify_gallery(own).files}
    assert said[f"cache/{path.name}"] == "good"
    remove_rows(own, patient="t3")
    assert not cached(own), "a removed woman's vectors go with her rows"
    Detector(own)
    assert cached(own) != [path]


def test_a_removal_in_between_leaves_no_vectors_of_her(own, monkeypatch):
    detector = Detector(own)
    old = detector.gallery
    for path in cached(own):
        path.unlink()
    remove_rows(own, patient="t3")
    found = places_of(detector, old)
    assert len(found.positions) == len(places_of(detector, old).positions)
    assert not cached(own)


def test_of_many_rows_as_many_are_taken_as_asked_and_half_of_them_lesions_at_most(own):
    detector = Detector(own)
    few = places_of(detector, most=8)
    kinds = detector.gallery.records["tissue"].iloc[few.positions].tolist()
    assert len(kinds) == 8
    assert kinds.count("lesion") == 4
    more = set(places_of(detector, most=16).positions.tolist())
    assert set(few.positions.tolist()) <= more


def test_films_that_are_gone_are_counted_and_the_crops_vectors_judge(own, tmp_path):
    gallery = Gallery.open(own)
    gone = [Path(path) for path in gallery.records["path"].unique()]
    moved = {path: path.rename(path.with_suffix(".away")) for path in gone}
    try:
        detector = Detector(own)
        known = places_of(detector)
        assert len(known.positions) == 0
        assert known.unread == len(gallery)
    finally:
        for path, away in moved.items():
            away.rename(path)
    answer = detector.detect(Source(gone[0]))
    assert any("known places are not at hand" in note for note in answer.notes)
    assert answer.detections
