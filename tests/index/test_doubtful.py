"""The list of doubtful rows: all that can be judged, most doubtful first, with what their neighbours say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index import GalleryError, QueryError
from index.doubtful import judge_rows
from index.gallery import Gallery
from index.typicality import witnesses_of


@pytest.fixture
def folder(make_gallery: Callable[..., Path], make_findings: Callable[..., Any]) -> Path:
    """A gallery of 30 findings of 10 women: two kinds far apart, of which row-0004 bears the wrong label."""
    batch = make_findings(30)
    kinds = np.array([i // 3 % 2 for i in range(30)])
    batch.vectors[:] = np.eye(16, dtype=np.float32)[kinds] + batch.vectors * np.float32(0.05)
    batch.vectors /= np.linalg.norm(batch.vectors, axis=1, keepdims=True)
    batch.records["lesion_type"] = np.where(kinds == 0, "mass", "calcification")
    batch.records.loc[4, "lesion_type"] = "mass"
    batch.records.loc[7, "lesion_type"] = None
    return make_gallery(batch)


def test_the_wrong_label_comes_first_with_what_contradicts_it(folder: Path) -> None:
    found = judge_rows(folder, "lesion_type", neighbours=4)
    first = found.rows[0]
    assert (first.row_id, first.patient_id, first.dataset, first.label) == ("row-0004", "W001", "films", "mass")
    assert first.typicality < 0.2
    assert first.neighbours == {"calcification": 4}
    order = [(row.typicality, row.row_id) for row in found.rows]
    assert order == sorted(order)
    assert (found.judged, found.unknown, len(found.rows)) == (29, 1, 29)
    assert "row-0007" not in {row.row_id for row in found.rows}
    gallery = Gallery.open(folder)
    scores = dict(zip(gallery.row_ids, witnesses_of(gallery, "lesion_type", 4).scores, strict=True))
    assert all(row.typicality == scores[row.row_id] for row in found.rows)
    assert found.context["labelled_rows"] == 29
    assert found.context["labelled_women"] == 10
    assert found.context["model_digest"] == "a" * 64


def test_the_most_frequent_voice_comes_first(folder: Path) -> None:
    for row in judge_rows(folder, "lesion_type", neighbours=9).rows:
        counts = list(row.neighbours.values())
        assert sum(counts) == 9
        assert counts == sorted(counts, reverse=True)


def test_below_a_score(folder: Path) -> None:
    whole = judge_rows(folder, "lesion_type", neighbours=4)
    part = judge_rows(folder, "lesion_type", below=0.3, neighbours=4)
    assert 0 < len(part.rows) < len(whole.rows)
    assert part.rows == tuple(row for row in whole.rows if row.typicality < 0.3)
    assert part.judged == whole.judged
    assert json.loads(json.dumps(part.to_dict(), allow_nan=False))["rows"][0]["row_id"] == "row-0004"


@pytest.mark.parametrize("below", [0.0, -1.0, 1.5, float("nan"), float("inf")])
def test_what_is_no_score_is_refused(folder: Path, below: float) -> None:
    with pytest.raises(QueryError, match="is no score"):
        judge_rows(folder, "lesion_type", below=below)


def test_on_milvus_it_needs_a_folder() -> None:
    with pytest.raises(GalleryError, match="copy it to a folder"):
        judge_rows("milvus://localhost:19530/findings", "pathology")
