import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from index import QueryError
from index.facets import Facet, Preference
from index.gallery import Gallery
from index.retrieval import Question, ask, query_image, query_row

_OPEN: list[Gallery] = []
MARGINS = ["spiculated", "circumscribed", None, "spiculated + indistinct"]


@pytest.fixture
def gallery(make_gallery: Callable[..., Path], make_findings: Callable[..., Any]) -> Gallery:
    """60 findings of 20 women. An open gallery never changes: one serves all tests."""
    if not _OPEN:
        batch = make_findings(60)
        batch.records["margin"] = [MARGINS[i % 4] for i in range(60)]
        batch.records["subtlety"] = pd.array([1 + i % 3 if i % 7 else None for i in range(60)], "Int64")
        batch.records["implant"] = [bool(i % 2) if i % 5 else None for i in range(60)]
        batch.records["spacing_mm"] = [0.1 if i % 6 else None for i in range(60)]
        batch.records["x1"] = [10 + i + 50 + 30 * (i % 8) for i in range(60)]
        batch.records["nothing"] = None
        _OPEN.append(Gallery.open(make_gallery(batch)))
    return _OPEN[0]


def slow_agreement(record: dict[str, Any], facet: Facet, wanted: Any) -> float:
    """Return what one facet adds, by its definition."""
    if facet.column == "size":
        corners = [record[name] for name in ("x0", "y0", "x1", "y1", "spacing_mm")]
        if None in corners or wanted is None:
            return 0.0
        x0, y0, x1, y1, spacing = corners
        ratio = max(x1 - x0, y1 - y0) * spacing / wanted
        return facet.weight * (0.5 - min(abs(math.log2(ratio)), 1))
    cell = record[facet.column]
    if cell is None or wanted is None:
        return 0.0
    if not isinstance(cell, str):
        return facet.weight * (0.5 if cell == wanted else -0.5)
    mine, its = set(wanted.split(" + ")), set(cell.split(" + "))
    return facet.weight * (len(mine & its) / len(mine | its) - 0.5)


FACETS = (
    Facet("margin", 0.3),
    Facet("density", 0.05),
    Facet("subtlety", 0.1),
    Facet("implant", 0.02),
    Facet("size", 0.4),
    Facet("nothing", 0.2),
)


@pytest.mark.parametrize("row", [0, 13, 7, 31])
@pytest.mark.parametrize("facets", [FACETS[:1], FACETS[1:3], FACETS, tuple(Facet(f.column, 3.0) for f in FACETS)])
def test_rows_that_agree_come_first(gallery: Gallery, row: int, facets: tuple[Facet, ...]) -> None:
    answer = query_row(gallery, f"row-{row:04d}", Question(k=7, facets=facets))
    own = gallery.record(row)
    wanted = [
        (max(own["x1"] - own["x0"], own["y1"] - own["y0"]) * own["spacing_mm"] if own["spacing_mm"] else None)
        if facet.column == "size"
        else own[facet.column]
        for facet in facets
    ]
    scored = []
    for other in range(60):
        if gallery.women[other] != gallery.women[row]:
            similarity = float(gallery.matrix[other].astype(float) @ gallery.matrix[row].astype(float))
            added = sum(slow_agreement(gallery.record(other), f, w) for f, w in zip(facets, wanted, strict=True))
            scored.append((similarity + added, other, similarity, added))
    best: dict[int, tuple[float, int, float, float]] = {}
    for each in sorted(scored, reverse=True):
        best.setdefault(int(gallery.women[each[1]]), each)
    expected = sorted(best.values(), reverse=True)[:7]
    assert answer.positions.tolist() == [other for _, other, _, _ in expected]
    assert answer.similarities == pytest.approx([similarity for _, _, similarity, _ in expected], abs=1e-6)
    assert answer.agreements == pytest.approx([added for _, _, _, added in expected], abs=1e-9)
    assert answer.closeness is not None
    assert answer.closeness.best == answer.similarities.max()
    found = answer.to_dict()["facets"]
    assert found["agreements"] == answer.agreements.tolist() if answer.agreements is not None else None
    for facet, value, said in zip(facets, wanted, found["preferred"], strict=True):
        assert (said["column"], said["weight"]) == (facet.column, facet.weight)
        assert said["value"] == (pytest.approx(value) if isinstance(value, float) else value)
    unknown = [facet.column for facet, value in zip(facets, wanted, strict=True) if value is None]
    assert [note.partition(" of the query is not known")[0] for note in answer.notes if "preferred" in note] == unknown


@pytest.mark.parametrize("row", [0, 5, 7, 13])
def test_no_row_adds_more_than_the_bonus(gallery: Gallery, row: int) -> None:
    preference = Preference(gallery, FACETS, gallery.record(row))
    assert preference.bonus == pytest.approx(sum(facet.weight for facet in FACETS) / 2)
    added = preference.agreement(np.arange(60))
    assert np.abs(added).max() <= preference.bonus
    wanted = list(zip(FACETS, preference.wanted, strict=True))
    expected = [sum(slow_agreement(gallery.record(other), f, w) for f, w in wanted) for other in range(60)]
    assert added == pytest.approx(expected, abs=1e-9)
    assert preference.agreement(np.empty(0, np.int64)).shape == (0,)


def test_without_facets_nothing_is_said_of_them(gallery: Gallery) -> None:
    assert query_row(gallery, "row-0003").to_dict()["facets"] is None


def test_the_asker_may_say_what_is_preferred(gallery: Gallery) -> None:
    facets = (Facet.parse("margin=circumscribed:9"), Facet.parse("subtlety=2:1"), Facet.parse("implant=false:0.5"))
    answer = ask(gallery, gallery.matrix[3], Question(k=60, per_group=0, facets=facets))
    assert answer.preferred == ("circumscribed", 2, False)
    margins = [neighbour.record["margin"] for neighbour in answer.neighbours]
    assert margins[:15] == ["circumscribed"] * 15
    assert set(margins[15:30]) == {None}
    answer = query_row(gallery, "row-0003", Question(facets=(Facet("size", 1.0, "12.5"),)))
    assert answer.preferred == (12.5,)


def test_a_box_says_its_size(gallery: Gallery, make_model: Any) -> None:
    facets = (Facet("size", 0.1), Facet("margin", 0.1))
    question = Question(facets=facets, spacing_mm=0.2)
    answer = query_image(gallery, make_model(gallery.matrix[3]), Path("new.png"), (10, 20, 60, 40), question)
    assert answer.preferred == (10.0, None)
    assert answer.notes[1] == "margin of the query is not known, so nothing was preferred by it"
    answer = query_image(gallery, make_model(gallery.matrix[3]), Path("new.png"), None, question)
    assert answer.preferred == (None, None)


@pytest.mark.parametrize(
    ("facet", "words"),
    [
        (Facet("nonsense", 0.1), "no column 'nonsense'"),
        (Facet("age", 0.1), "holds numbers"),
        (Facet("margin", 0.0), "is no weight"),
        (Facet("margin", -1.0), "is no weight"),
        (Facet("margin", float("nan")), "is no weight"),
        (Facet("margin", float("inf")), "is no weight"),
        (Facet("margin", True), "is no weight"),
        (Facet("margin", 0.1, 7), "not of the column's kind"),
        (Facet("subtlety", 0.1, "two"), "not of the column's kind"),
        (Facet("size", 0.1, "big"), "is no size"),
        (Facet("size", 0.1, -1.0), "is no size"),
        (Facet("size", 0.1, True), "is no size"),
        (Facet("size", 0.1, float("inf")), "is no size"),
    ],
)
def test_facets_that_are_none(gallery: Gallery, facet: Facet, words: str, make_model: Any) -> None:
    model = make_model(gallery.matrix[3])
    with pytest.raises(QueryError, match=words):
        query_image(gallery, model, Path("new.png"), None, Question(facets=(facet,)))
    assert model.asked == []


def test_a_gallery_without_sizes(make_gallery: Callable[..., Path], make_findings: Callable[..., Any]) -> None:
    gallery = Gallery.open(make_gallery(make_findings(9)))
    with pytest.raises(QueryError, match="no column spacing_mm"):
        query_row(gallery, "row-0000", Question(facets=(Facet("size", 0.1),)))


@pytest.mark.parametrize("text", ["", "margin", ":0.1", "margin:", "margin:x", "margin=:0.1", "=a:0.1", "margin:nan"])
def test_texts_that_are_no_facets(text: str) -> None:
    with pytest.raises(QueryError, match="can't be read"):
        Facet.parse(text)
