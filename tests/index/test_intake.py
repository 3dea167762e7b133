from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from index import GalleryError
from index.gallery import Gallery
from index.manifest import GalleryIdentity
from index.upkeep import build_gallery


def embed(batch: Any, seen: list[str]) -> Callable[[pd.DataFrame], Iterator[Any]]:
    """Return an embedder that takes note of the rows it is given, and finds their vectors in a batch."""

    def one_batch(todo: pd.DataFrame) -> Iterator[Any]:
        seen.extend(todo["row_id"])
        places = [batch.records["row_id"].tolist().index(row_id) for row_id in todo["row_id"]]
        yield SimpleNamespace(records=todo, vectors=batch.vectors[places], thumbnails=None, failures=[])

    return one_batch


def test_a_row_that_changed_is_listed_and_the_rest_is_added(
    gallery_folder: Path, identity: GalleryIdentity, make_findings: Callable[..., Any]
) -> None:
    stored = Gallery.open(gallery_folder).record(3)
    records = pd.concat([make_findings(20).records, make_findings(5, first=40).records], ignore_index=True)
    records.loc[3, "patient_id"] = "W777"
    batch, seen = make_findings(5, first=40), list[str]()
    told: list[tuple[int, int]] = []
    report = build_gallery(gallery_folder, identity, records, embed(batch, seen), progress=lambda *at: told.append(at))
    assert (report.added, report.already_there) == (5, 19)
    [(row_id, message)] = report.failures
    assert row_id == "row-0003"
    assert "another patient_id ('W001', and now 'W777'): remove the row first, then add it again" in message
    assert seen == batch.records["row_id"].tolist()
    assert (told[0], told[-1]) == ((20, 25), (25, 25))
    assert Gallery.open(gallery_folder).record(3) == stored


@pytest.mark.parametrize(
    ("column", "value", "name", "words"),
    [
        ("row_id", "x" * 100_000, "x" * 80 + "…", "100000 bytes"),
        ("row_id", None, "row 2 of the manifest", "there is none"),
        ("row_id", "a\0\x1b", r"a\x00\x1b", "zero byte"),
        ("row_id", "row-0002", "row-0002", "several rows"),
        ("patient_id", "", "row-0001", "patient_id must be a text"),
        ("density", "A\0", "row-0001", "density holds a zero byte"),
        ("density", "A" * 65_537, "row-0001", "65537 bytes"),
        ("density", "\ud800", "row-0001", "no Unicode"),
        ("age", np.inf, "row-0001", "infinite"),
        ("granularity", "breast", "row-0001", "granularity finding only"),
    ],
)
def test_one_bad_cell_costs_its_row_only(
    tmp_path: Path,
    identity: GalleryIdentity,
    make_findings: Callable[..., Any],
    column: str,
    value: Any,
    name: str,
    words: str,
) -> None:
    batch = make_findings(6)
    records = batch.records.astype({column: object})
    records.loc[1, column] = value
    report = build_gallery(tmp_path / "g", identity, records, embed(batch, []))
    bad = [1, 2] if words == "several rows" else [1]
    assert len(report.failures) == len(bad)
    assert report.failures[0][0] == name
    assert words in report.failures[0][1]
    assert len(report.failures[0][1]) < 300
    rest = [f"row-{row:04d}" for row in range(6) if row not in bad]
    assert Gallery.open(tmp_path / "g").row_ids.tolist() == rest


@pytest.mark.parametrize("change", [{"rank": 1}, {"a/b": 1}, {"x_1": [[1]] * 5}, {"age": "old"}])
def test_a_bad_column_is_refused_before_any_work(
    gallery_folder: Path, identity: GalleryIdentity, make_findings: Callable[..., Any], change: dict[str, Any]
) -> None:
    batch, seen = make_findings(5, first=40), list[str]()
    with pytest.raises(GalleryError, match=next(iter(change))):
        build_gallery(gallery_folder, identity, batch.records.assign(**change), embed(batch, seen))
    assert seen == []
