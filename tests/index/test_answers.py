import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.answers import Answer, Neighbour
from index.facets import Facet
from index.gallery import Gallery
from index.grouping import PerClass
from index.questions import Question, View
from index.refinement import Refinement
from index.retrieval import query_row


def test_everything_at_once_is_plain_data_and_the_same_every_time(
    make_gallery: Callable[..., Path], make_findings: Callable[..., Any]
) -> None:
    batch = make_findings(90)
    batch.records["pathology"] = [("benign", "malignant", None)[i % 3] for i in range(90)]
    folder = make_gallery(batch)
    question = Question(
        k=4,
        where="view == 'CC' or age > 45",
        minimum=-0.9,
        per_group=2,
        per_class=PerClass(),
        facets=(Facet("density", 0.2), Facet("view", 0.1, "MLO")),
        refinement=Refinement(("row-0050",), ("row-0060",)),
        fusion="max",
        least_percentile=10,
    )
    found = query_row(Gallery.open(folder), "row-0007", question).to_dict()
    text = json.dumps(found, allow_nan=False)
    assert json.dumps(query_row(Gallery.open(folder), "row-0007", question).to_dict()) == text
    assert json.loads(text) == found
    for place in ("query", "replay"):
        asked = found[place]
        assert asked["facets"] == [facet.to_dict() for facet in question.facets]
        assert asked["refinement"] == Refinement(("row-0050",), ("row-0060",)).to_dict()
        assert asked["per_class"] == {"column": "pathology", "values": ["benign", "malignant"]}
        assert (asked["group_by"], asked["per_group"], asked["minimum"]) == ("woman", 2, -0.9)
        assert (asked["fusion"], asked["least_percentile"]) == ("max", 10.0)
    assert [n["rank"] for n in found["neighbours"]] == [1, 2, 3, 4] * 2
    assert [n["pathology"] for n in found["neighbours"]] == ["benign"] * 4 + ["malignant"] * 4
    scores = np.array([n["similarity"] for n in found["neighbours"]]) + found["facets"]["agreements"]
    assert (np.diff(scores[:4]) <= 1e-6).all()
    assert (np.diff(scores[4:]) <= 1e-6).all()
    assert found["closeness"]["sample_women"] == 30
    assert set(found["replay"]) >= {"engine", "index_sha256", "vector_sha256", "segments_digest", "gallery_generation"}


def test_records_are_looked_up_when_they_are_asked_for() -> None:
    asked: list[int] = []

    def record_of(position: int) -> dict[str, Any]:
        asked.append(position)
        return {"row_id": f"r{position}", "patient_id": "p", "x0": 1, "y0": 2, "x1": 3.0, "y1": 4}

    answer = Answer(
        Question(), np.array([5, 3]), np.array([0.5, 0.25], np.float32), record_of, None, None, 0, 9, (), {}
    )
    assert asked == []
    assert [(n.row_id, n.box, n.path, n.similarity) for n in answer.neighbours] == [
        ("r5", (1, 2, 3, 4), None, 0.5),
        ("r3", (1, 2, 3, 4), None, 0.25),
    ]
    assert asked == [5, 3]
    assert answer.no_close_precedent is None
    found = answer.to_dict()
    assert (found["classes"], found["facets"], found["closeness"], found["no_close_precedent"]) == (None,) * 4


@pytest.mark.parametrize("missing", ["x0", "y0", "x1", "y1"])
def test_a_box_is_whole_or_none(missing: str) -> None:
    record = {"row_id": "r", "x0": 1, "y0": 2, "x1": 3, "y1": 4, missing: None}
    assert Neighbour(1, 0, 1.0, record).box is None
    assert Neighbour(1, 0, 1.0, {"row_id": "r"}).to_dict()["box"] is None


def test_a_view_is_plain_data() -> None:
    assert View("a.png", (1.0, 2, 3, 4), view="CC").to_dict() == {
        "path": "a.png",
        "box": [1, 2, 3, 4],
        "row_id": None,
        "spacing_mm": None,
        "view": "CC",
    }
