"""Opening and adding are measured on the gallery that is named, which has the rows it had afterwards."""

from pathlib import Path

import pytest

from benchmarks.gallery_upkeep import ADDED, add_rows, measure, new_rows, open_rows
from benchmarks.peer_engines import Source
from benchmarks.peer_mammoseek import make_gallery
from errors import MammoseekError
from index.gallery import Gallery


@pytest.fixture
def folder(vector_folder: Path, tmp_path: Path) -> Path:
    """A gallery of 300 rows."""
    place = tmp_path / "gallery"
    make_gallery(place, Source.of_folder(vector_folder, 300))
    return place


@pytest.mark.parametrize("way", ["add", "append"])
def test_what_is_added_is_durable(folder: Path, way: str) -> None:
    assert measure(way, str(folder), seed=1)["seconds"] > 0
    gallery = Gallery.open(folder)
    assert len(gallery) == 300 + ADDED
    assert gallery.row_ids[300:].tolist() == new_rows(1)["row_id"].tolist()


def test_the_gallery_is_left_as_it_was(folder: Path) -> None:
    before = Gallery.open(folder)
    rows = add_rows(folder, 1)
    after = Gallery.open(folder)
    assert [row["what"] for row in rows] == ["1000 rows, add", "1000 rows, append"]
    assert rows[0]["ratio"] == pytest.approx(rows[0]["seconds"] / rows[0]["seconds_empty"], rel=0.05)
    assert after.row_ids.tolist() == before.row_ids.tolist()
    assert (after.matrix == before.matrix).all()


def test_opening_is_measured_with_and_without_digests(folder: Path) -> None:
    checked, unchecked = open_rows(folder, 1)
    for row in (checked, unchecked):
        assert row["seconds"] > 0
        assert row["peak_megabytes"] >= row["megabytes_before"] > 0
        assert row["first_answer_seconds"] >= row["seconds"]


def test_a_measurement_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(MammoseekError, match="open: the process failed"):
        open_rows_of_nothing(tmp_path)


def open_rows_of_nothing(folder: Path) -> None:
    """Open what is no gallery, in a process of its own."""
    from benchmarks.gallery_upkeep import apart

    apart("open", folder, checked=True)
