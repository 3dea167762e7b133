"""Our own JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from exchange import ExchangeError
from exchange.formats import read_detections
from exchange.images import ImageCatalogue

GOOD: dict[str, Any] = {"path": "w1-cc.png", "x0": 1, "y0": 2, "x1": 30, "y1": 40, "score": 0.5}


def write(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(document))
    return path


def test_each_bad_entry_is_told_and_stops_no_other(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    entries: list[Any] = [
        GOOD,
        7,
        GOOD | {"x0": None},
        GOOD | {"score": float("nan")},
        GOOD | {"outline": "square"},
        GOOD | {"outline": [[1, 2, 3]]},
        GOOD | {"frame_number": 2},
        GOOD | {"detection_id": ["a"]},
        GOOD | {"score": 0.25, "lesion_type": "mass", "native_label": None},
    ]
    document = {"format": "mammoseek detections", "version": 1, "detections": entries}
    reading = read_detections(write(tmp_path, document), catalogue)
    assert [(one.score, one.lesion_type, one.native_label) for one in reading.detections] == [
        (0.5, None, None),
        (0.25, "mass", None),
    ]
    assert [place for place, _ in reading.problems] == [f"detection {place}" for place in range(2, 9)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"version": 2}, "is of version 2"), ({"detections": {}}, "has no list"), ({"format": "other"}, "neither COCO's")],
)
def test_another_document_is_refused(
    tmp_path: Path, catalogue: ImageCatalogue, change: dict[str, Any], reason: str
) -> None:
    document = {"format": "mammoseek detections", "version": 1, "detections": []} | change
    with pytest.raises(ExchangeError, match=reason):
        read_detections(write(tmp_path, document), catalogue)
