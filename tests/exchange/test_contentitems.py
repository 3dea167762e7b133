"""Content trees: references by place, codes of both schemes, and trees that want to do harm."""

import math

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes

from exchange import ExchangeError, contentitems
from exchange.contentitems import Concept, read_content_tree


def item(value_type: str | None = "CONTAINER", *children: Dataset, **attributes: object) -> Dataset:
    made = Dataset()
    if value_type is not None:
        made.ValueType = value_type
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    if children:
        made.ContentSequence = list(children)
    return made


def code(value: str, scheme: str, meaning: str = "") -> list[Dataset]:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return [made]


def test_places_are_counted_from_one_and_references_lead_to_them() -> None:
    image = Dataset()
    image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber = "1.2.3", [2, 5]
    shown = item("IMAGE", ReferencedSOPSequence=[image])
    reference = item(None, RelationshipType="SELECTED FROM", ReferencedContentItemIdentifier=[1, 1, 2])
    tree = read_content_tree(item("CONTAINER", item("CONTAINER", item("TEXT"), shown), reference), "a.dcm")
    found = tree.items[1, 2]
    assert found.relationship == "SELECTED FROM"
    target = tree.resolve(found)
    assert target is tree.items[1, 1, 2]
    assert target is not None
    assert target.path == "1.1.2"
    assert target.image is not None
    assert (target.image.sop_uid, target.image.frames) == ("1.2.3", (2, 5))
    assert [one.path for one in tree.root.walk()] == ["1", "1.1", "1.1.1", "1.1.2", "1.2"]


@pytest.mark.parametrize("where", [[1, 9], [1, 1], [7], [1, 0], []])
def test_a_reference_to_nothing_or_to_a_reference_leads_nowhere(where: list[int]) -> None:
    tree = read_content_tree(item("CONTAINER", item(None, ReferencedContentItemIdentifier=where)), "a.dcm")
    found = tree.items[1, 1]
    assert found.reference is None or tree.resolve(found) is None


@pytest.mark.parametrize("group", ["cid6014", "cid6016", "cid6022", "cid4014", "cid6010", "cid6012", "cid6004"])
def test_both_schemes_give_one_concept_for_every_code_of_mammography(group: str) -> None:
    from pydicom.sr._snomed_dict import mapping

    for one in getattr(codes, group).concepts.values():
        given = Concept.of(one.value, one.scheme_designator, one.meaning)
        assert (given.value, given.scheme) == (one.value, one.scheme_designator)
        if one.scheme_designator == "SCT" and one.value in mapping["SCT"]:
            assert [Concept.of(mapping["SCT"][one.value], name) for name in ("SRT", "SNM3", "99SDM")] == [given] * 3


def test_values_of_every_kind_are_read() -> None:
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "87.5", code("%", "UCUM", "Percent")
    tree = read_content_tree(
        item(
            "CONTAINER",
            item("NUM", ConceptNameCodeSequence=code("111047", "DCM"), MeasuredValueSequence=[measured]),
            item("CODE", ConceptCodeSequence=code("F-01775", "SRT", "Calcification Cluster")),
            item("TEXT", TextValue="mass finder "),
            item("SCOORD", GraphicType="POLYLINE", GraphicData=[1.5, 2, 3, 4]),
            item("UIDREF", UID="1.2.3"),
        ),
        "a.dcm",
    )
    number, value, text, drawn, uid = tree.root.children
    assert (number.number, number.unit, number.name) == (87.5, Concept("%", "UCUM"), Concept("111047", "DCM"))
    assert value.code == Concept("129769006", "SCT")
    assert (text.text, uid.text) == ("mass finder", "1.2.3")
    assert (drawn.graphic, drawn.points) == ("POLYLINE", ((1.5, 2), (3, 4)))


def test_what_is_malformed_is_unknown() -> None:
    measured = Dataset()
    measured.add_new("NumericValue", "LO", "high")  # a text where a number is meant
    tree = read_content_tree(
        item(
            "CONTAINER",
            item("NUM", MeasuredValueSequence=[measured]),
            item("NUM"),
            item("CODE"),
            item("IMAGE", ReferencedSOPSequence=[]),
            item("SCOORD", GraphicType="POINT", GraphicData=[1.0, 2.0, 3.0]),
            item("SCOORD", GraphicType="POINT", GraphicData=[math.nan, 2.0]),
            item("WAVEFORM"),
        ),
        "a.dcm",
    )
    number, empty, value, image, odd, broken, other = tree.root.children
    assert number.number is None
    assert (empty.number, value.code, image.image, other.name) == (None, None, None, None)
    assert math.isnan(odd.points[1][1])
    assert math.isnan(broken.points[0][0])


def test_a_tree_that_is_too_deep_is_refused() -> None:
    made = item("CONTAINER")
    for _ in range(contentitems.MAXIMUM_DEPTH):
        made = item("CONTAINER", made)
    with pytest.raises(ExchangeError, match="48 levels"):
        read_content_tree(made, "deep.dcm")


def test_a_tree_that_holds_itself_is_refused() -> None:
    made = item("CONTAINER")
    made.ContentSequence = Sequence([])
    made.ContentSequence.append(made)
    with pytest.raises(ExchangeError, match="48 levels"):
        read_content_tree(made, "circle.dcm")


def test_a_tree_with_too_many_items_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contentitems, "MAXIMUM_ITEMS", 20)
    read_content_tree(item("CONTAINER", *[item("TEXT") for _ in range(19)]), "a.dcm")
    with pytest.raises(ExchangeError, match="more than 20 items"):
        read_content_tree(item("CONTAINER", *[item("TEXT") for _ in range(20)]), "a.dcm")


def test_content_that_is_no_sequence_is_an_error_and_not_an_empty_report() -> None:
    made = item("CONTAINER")
    made.add_new("ContentSequence", "UT", "no sequence")
    with pytest.raises(ExchangeError, match="ContentSequence is damaged"):
        read_content_tree(made, "a.dcm")
