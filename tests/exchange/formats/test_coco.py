"""COCO's results and data sets."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import ExchangeError
from exchange.formats import Reading, ReadOptions, read_detections
from exchange.images import ImageCatalogue

DATASET: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "w1-cc.png", "height": 300, "width": 200},
        {"id": "b", "file_name": "their/folder/w2-cc.jpg"},
        {"id": 9, "file_name": "w3-cc.png", "height": 600, "width": 400},
    ],
    "categories": [{"id": 1, "name": "Suspicious Calcification"}, {"id": 2, "name": "mass"}],
}
RESULT: dict[str, Any] = {"image_id": 7, "category_id": 2, "bbox": [10.0, 20.0, 20.0, 40.0], "score": 0.5}


def read(tmp_path: Path, document: object, catalogue: ImageCatalogue, dataset: object = None) -> Reading:
    path = tmp_path / "results.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    if dataset is not None:
        (tmp_path / "results.dataset.json").write_text(json.dumps(dataset))
    return read_detections(path, catalogue)


def test_results_are_read_with_the_data_set_beside_them(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    second = {"image_id": "b", "category_id": 1, "bbox": [0.4, 1.5, 3, 4], "score": 1}
    reading = read(tmp_path, [RESULT, second], catalogue, DATASET)
    assert (reading.kind, reading.problems) == ("coco-results", ())
    one, two = reading.detections
    assert (one.patient_id, one.x0, one.y0, one.x1, one.y1, one.native_label) == ("w1", 10, 20, 30, 60, "mass")
    assert (two.patient_id, two.x0, two.y0, two.x1, two.y1) == ("w2", 0, 1, 4, 6)
    assert (two.native_label, two.lesion_type, two.score) == ("Suspicious Calcification", "calcification", 1.0)


def test_without_a_data_set_image_ids_are_names(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    reading = read(tmp_path, [RESULT | {"image_id": "w1-cc"}, RESULT], catalogue)
    assert [one.native_label for one in reading.detections] == ["2"]
    assert [place for place, _ in reading.problems] == ["result 2"]


def test_annotations_of_a_whole_data_set_are_read_with_their_ids(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    annotation = {"id": 31, "image_id": 7, "category_id": 2, "bbox": [10, 20, 20, 40], "iscrowd": 0, "area": 800}
    reading = read(tmp_path, DATASET | {"annotations": [annotation]}, catalogue)
    assert reading.kind == "coco"
    assert [(one.detection_id, one.score) for one in reading.detections] == [("31", None)]


def test_outlines_are_polygons_or_masks_and_stand_in_for_a_box(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    polygon = [[0, 0, 1, 0, 1, 1], [10, 20, 30, 20, 30, 60.0, 10, 60]]
    runs = {"size": [300, 200], "counts": [10 * 300 + 20, 40, 260, 40, 200 * 300 - 3360]}
    made = [
        RESULT | {"segmentation": polygon},
        {key: value for key, value in RESULT.items() if key != "bbox"} | {"segmentation": polygon, "score": 0.6},
        RESULT | {"segmentation": runs, "score": 0.7},
        RESULT | {"segmentation": [[1, 2]], "score": 0.8},
        RESULT | {"segmentation": {"size": [3, 3], "counts": [9]}, "score": 0.9},
    ]
    reading = read(tmp_path, made, catalogue, DATASET)
    assert reading.problems == ()
    assert [(one.x0, one.y0, one.x1, one.y1) for one in reading.detections] == [(10, 20, 30, 60)] * 5
    outlines = [one.outline for one in reading.detections]
    assert outlines[0] == outlines[1] == ((10, 20), (30, 20), (30, 60), (10, 60))
    assert outlines[2] == ((10, 20), (12, 20), (12, 60), (10, 60))
    assert outlines[3:] == [None, None]
    assert "encloses nothing" in str(reading.detections[3].note)
    assert "the mask has 3 × 3 pixels" in str(reading.detections[4].note)


def test_each_bad_result_is_told_by_place_and_reason(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    entries: list[Any] = [
        RESULT | {"score": float("nan")},
        RESULT | {"score": 17},
        RESULT | {"score": True},
        RESULT | {"score": 10**400},
        RESULT | {"bbox": [1, 2, -3, 4]},
        RESULT | {"bbox": [1, 2, 3]},
        RESULT | {"bbox": [1, 2, 3, None]},
        RESULT | {"bbox": {"x": 1}},
        RESULT | {"bbox": [float("inf"), 2, 3, 4]},
        RESULT | {"image_id": 8},
        RESULT | {"image_id": None},
        RESULT | {"image_id": [7]},
        RESULT | {"image_id": 9},
        None,
        [1, 2],
        RESULT,
    ]
    reading = read(tmp_path, [RESULT | {"score": 0.1}, *entries], catalogue, DATASET)
    assert [one.score for one in reading.detections] == [0.1, 0.5]
    reasons = [
        *("not a finite", "not in 0 to 1", "is no number", "not a finite", "empty or inverted", "is not [x, y"),
        *("lacks a number", "is not [x, y", "not a finite", "has no image '8'", "has no image_id", "is no text"),
        *("made for an image of 400 × 600", "is no object", "is no object"),
    ]
    assert [place for place, _ in reading.problems] == [f"result {place}" for place in range(2, 17)]
    for (place, told), reason in zip(reading.problems, reasons, strict=True):
        assert reason in told, place


def test_an_id_of_two_images_is_nobodys(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    twice = {"images": [{"id": 7, "file_name": "w1-cc.png"}, {"id": 7, "file_name": "w2-cc.png"}], "categories": []}
    reading = read(tmp_path, [RESULT], catalogue, twice)
    assert reading.detections == ()
    assert len(reading.problems) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested deeper|no JSON"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested deeper"),
        ('[{"image_id": 1, "bbox": [1,2', "is no JSON"),
        ("[1, 2, 3]", "neither COCO's nor mammoseek's"),
        ("{}", "neither COCO's nor mammoseek's"),
        ('{"images": [], "categories": []}', "without annotations"),
        ("[" + "9" * 5000 + "]", "is no JSON"),
    ],
)
def test_documents_that_are_no_detections_are_refused_whole(
    tmp_path: Path, catalogue: ImageCatalogue, text: str, reason: str
) -> None:
    with pytest.raises(ExchangeError, match=reason):
        read(tmp_path, text, catalogue)


def test_a_companion_that_is_none_is_refused(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    (tmp_path / "results.json").write_text(json.dumps([RESULT]))
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ExchangeError, match="is no COCO data set"):
        read_detections(tmp_path / "results.json", catalogue, options=ReadOptions(companion=tmp_path / "other.json"))


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["size", "counts", "note"]), inner)
    ),
    max_leaves=6,
)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["image_id", "category_id", "bbox", "score", "segmentation", "id", "mammoseek"]),
            json_values,
        ),
        max_size=3,
    )
)
def test_hostile_results_never_crash(
    catalogue: ImageCatalogue, tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.json"
    path.write_text(json.dumps(entries))
    reading = read_detections(path, catalogue, "coco-results") if entries == [] or "image_id" in entries[0] else None
    assert reading is None or len(reading.problems) + len(reading.detections) <= len(entries)
