"""Detections written, and read again."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedder.datasets import read_dataset
from embedder.manifest import read_manifest
from exchange import ExchangeError
from exchange.detections import Detection, detections_frame
from exchange.formats import FOLDERS, WRITERS, ReadOptions, detections_of, read_detections, write_detections
from exchange.images import ImageCatalogue, manifest_images
from exchange.lesionwords import lesion_type

WORDS = ("mass", "Suspicious Calcification", 'rätselhaft, "quoted"', "3", "names: [a]")


@st.composite
def detections(draw: st.DrawFn) -> list[Detection]:
    """Draw detections on the films, with boxes, scores and labels; everything else half of the time."""
    made = []
    for number in range(draw(st.integers(0, 6))):
        x0, y0 = draw(st.integers(0, 199)), draw(st.integers(0, 299))
        woman, view = draw(st.sampled_from(["w1-cc", "w1-mlo", "w2-cc", "w3-cc"])).split("-")
        word = draw(st.sampled_from(WORDS))
        one = Detection(
            detection_id=f"id {number}",
            path=f"{woman}-{view}.png",
            dataset="films",
            patient_id=woman,
            x0=x0,
            y0=y0,
            x1=draw(st.integers(x0 + 1, 200)),
            y1=draw(st.integers(y0 + 1, 300)),
            score=draw(st.one_of(st.none(), st.floats(0, 1))),
            native_label=word,
            lesion_type=lesion_type(word),
            image_rows=300,
            image_columns=200,
        )
        if draw(st.booleans()):
            one = replace(
                one,
                outline=((0.25, 1.0), (199.5, 3.0), (7.0, 1 / 3)),
                detector="CAD, inc.",
                detector_version="1.0",
                lesion_id="7",
                sop_uid="1.2.3",
                study_id="007",
                laterality="L",
                view="MLO",
                spacing_mm=draw(st.floats(0.01, 0.5)),
                frame_number=1,
                note='a "note", with commas',
            )
        made.append(one)
    return made


def placed(made: list[Detection], films: Path) -> list[Detection]:
    return [replace(one, path=str(films / one.path)) for one in made]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(made=detections(), kind=st.sampled_from(["csv", "json", "coco"]))
def test_a_round_trip_gives_the_same_detections(
    made: list[Detection], kind: str, films: Path, catalogue: ImageCatalogue, tmp_path: Path
) -> None:
    given_ = placed(made, films)
    path = tmp_path / f"a.{kind if kind != 'coco' else 'json'}"
    write_detections(path, detections_frame(given_), kind)
    if not given_ and kind == "csv":
        assert read_detections(path, catalogue).detections == ()
        return
    reading = read_detections(path, catalogue)
    assert reading.problems == ()
    assert list(reading.detections) == given_
    if kind != "coco":
        assert list(read_detections(path).detections) == given_  # our own files need no catalogue


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(made=detections())
def test_yolo_keeps_boxes_scores_and_labels(
    made: list[Detection], films: Path, catalogue: ImageCatalogue, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seen: set[Any] = set()
    unlike = []
    for one in placed(made, films):  # without ids the same mark twice is one
        mark = (one.path, one.x0, one.y0, one.x1, one.y1, None if one.score is None else f"{one.score:.6g}")
        if mark not in seen:
            unlike.append(one)
        seen.add(mark)
    folder = tmp_path_factory.mktemp("yolo") / "labels"
    write_detections(folder, detections_frame(unlike), "yolo")
    if not unlike:
        return
    reading = read_detections(folder, catalogue)
    assert reading.problems == ()
    kept = ("path", "patient_id", "x0", "y0", "x1", "y1", "score", "native_label", "lesion_type")
    assert sorted(str([getattr(one, name) for name in kept]) for one in reading.detections) == sorted(
        str([getattr(one, name) for name in kept]) for one in unlike
    )


MARKS = [
    ("w1-cc.png", (10.0, 20.0, 30.5, 60.25), 0.123456, "mass"),
    ("w1-cc.png", (0.0, 0.0, 199.0, 299.0), 0.5, "Suspicious Calcification"),
    ("w2-cc.png", (150.0, 250.0, 215.0, 290.0), 1.0, "mass"),  # over the edge
    ("w3-cc.png", (7.0, 7.0, 8.0, 8.0), 0.0, "other thing"),
    ("w9-cc.png", (7.0, 7.0, 9.0, 9.0), 0.5, "mass"),  # not there
]


def test_the_same_detections_as_csv_coco_and_yolo_are_the_same_table(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    classes = sorted({word for _, _, _, word in MARKS})
    lines = ["file,cx,cy,width,height,confidence,class"]
    results, labels = [], tmp_path / "labels"
    labels.mkdir()
    names = [name for name, *_ in MARKS]
    for name, (x0, y0, x1, y1), score, word in MARKS:
        lines.append(f"{name},{(x0 + x1) / 2},{(y0 + y1) / 2},{x1 - x0},{y1 - y0},{score},{word}")
        box = [x0, y0, x1 - x0, y1 - y0]
        results.append({"image_id": names.index(name), "category_id": classes.index(word), "bbox": box, "score": score})
        with (labels / name.replace(".png", ".txt")).open("a") as file:
            shares = (x0 + x1) / 400, (y0 + y1) / 600, (x1 - x0) / 200, (y1 - y0) / 300
            # As the usual tools write it: six digits.
            file.write(
                " ".join([str(classes.index(word)), *(f"{share:.6f}" for share in shares), f"{score:.6g}"]) + "\n"
            )
    (labels / "classes.txt").write_text("\n".join(classes))
    (tmp_path / "a.csv").write_text("\n".join(lines))
    (tmp_path / "a.json").write_text(json.dumps(results))
    dataset = {
        "images": [{"id": names.index(name), "file_name": name, "height": 300, "width": 200} for name in set(names)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes)],
    }
    (tmp_path / "b.json").write_text(json.dumps(dataset))
    options = ReadOptions(companion=tmp_path / "b.json", detector="CAD")
    readings = [read_detections(tmp_path / name, catalogue, options=options) for name in ("a.csv", "a.json", "labels")]
    assert [reading.kind for reading in readings] == ["csv", "coco-results", "yolo"]
    assert [len(reading.problems) for reading in readings] == [1, 1, 1]
    first, *others = [reading.frame() for reading in readings]
    assert len(first) == 4
    assert first["row_id"].is_unique
    for other in others:
        pd.testing.assert_frame_equal(first, other)


def test_a_copy_of_the_films_elsewhere_gives_the_same_ids(
    tmp_path: Path, films: Path, catalogue: ImageCatalogue
) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "w1-cc.png").write_bytes((films / "w1-cc.png").read_bytes())
    (tmp_path / "a.csv").write_text("image,x0,y0,x1,y1,score\nw1-cc,1,2,30,40,0.1234561\nw1-cc,1,2,31,40,0.5\n")
    elsewhere = ImageCatalogue(folders=[tmp_path / "copy"], dataset="films", patient_from_name=r"^(w\d+)-")
    readings = [read_detections(tmp_path / "a.csv", one).detections for one in (catalogue, elsewhere)]
    assert [one.detection_id for one in readings[0]] == [one.detection_id for one in readings[1]]
    assert readings[0][0].detection_id != readings[0][1].detection_id


def test_mini_mias_goes_through_every_format_unchanged(mini_mias: Path, tmp_path: Path) -> None:
    frame = read_dataset("mini-mias", mini_mias).frame
    films = ImageCatalogue(manifest_images(frame))
    findings = frame[frame["granularity"] == "finding"].to_dict("records")
    columns = ("path", "dataset", "patient_id", "x0", "y0", "x1", "y1", "lesion_type", "laterality", "view")
    made = [
        Detection(
            detection_id=row["row_id"],
            score=round((number % 97) / 97, 4),
            native_label=row["native_lesion_type"],
            spacing_mm=row["spacing_mm"],
            image_rows=row["image_rows"],
            image_columns=row["image_columns"],
            **{name: None if pd.isna(row[name]) else row[name] for name in columns},
        )
        for number, row in enumerate(findings)
    ]
    table = detections_frame(made)
    assert len(table) > 100
    for kind in ("csv", "json", "coco"):
        path = tmp_path / f"a.{'csv' if kind == 'csv' else 'json'}"
        write_detections(path, table, kind)
        again = read_detections(path, films)
        assert again.problems == ()
        pd.testing.assert_frame_equal(again.frame(), table)
    write_detections(tmp_path / "labels", table, "yolo")
    kept = ["path", "patient_id", "x0", "y0", "x1", "y1", "score", "native_label", "spacing_mm"]
    yolo = read_detections(tmp_path / "labels", films).frame()
    pd.testing.assert_frame_equal(
        yolo[kept].sort_values(kept, ignore_index=True), table[kept].sort_values(kept, ignore_index=True)
    )


@pytest.fixture
def table(films: Path) -> pd.DataFrame:
    one = Detection(
        "a", str(films / "w1-cc.png"), "films", "w1", 1, 2, 30, 40, score=0.5, image_rows=300, image_columns=200
    )
    return detections_frame([one, replace(one, detection_id="b", x1=31)])


def test_a_csv_file_is_a_manifest_of_findings_too(table: pd.DataFrame, tmp_path: Path) -> None:
    write_detections(tmp_path / "a.csv", table, "csv")
    manifest = read_manifest(tmp_path / "a.csv")
    assert manifest["row_id"].tolist() == ["a", "b"]
    assert detections_of(manifest) == detections_of(table)


def test_paths_are_relative_where_the_images_lie_below_the_file(tmp_path: Path, films: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    film = folder / "w1-cc.png"
    film.write_bytes((films / "w1-cc.png").read_bytes())
    frame = detections_frame([Detection("a", str(film), "d", "w1", 1, 2, 30, 40)])
    for kind in ("csv", "json"):
        write_detections(tmp_path / f"a.{kind}", frame, kind)
        assert str(tmp_path) not in (tmp_path / f"a.{kind}").read_text()
    moved = tmp_path.rename(tmp_path.with_name(tmp_path.name + "-moved"))
    assert read_detections(moved / "a.csv").detections[0].path == str(moved / "study" / "w1-cc.png")


def test_coco_results_are_what_its_tools_expect(table: pd.DataFrame, tmp_path: Path) -> None:
    assert write_detections(tmp_path / "a.json", table, "coco") == [tmp_path / "a.json", tmp_path / "a.dataset.json"]
    results, dataset = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "a.dataset.json"))
    assert results[0]["bbox"] == [1, 2, 29, 38]
    assert {results[0]["image_id"]} == {image["id"] for image in dataset["images"]}
    assert dataset["categories"] == [{"id": 1, "name": "finding"}]
    assert dataset["images"][0]["width"] == 200


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_file_is_written_whole_or_not_at_all(
    table: pd.DataFrame, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, write_dicom: Callable[..., Path]
) -> None:
    path = tmp_path / "out" / "a"
    path.parent.mkdir()
    if kind == "cad-sr":
        image = write_dicom(np.zeros((300, 200), np.uint16), PatientID="w1")
        table = table.assign(path=str(image))
    if kind not in FOLDERS:
        path.write_text("old")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Exception, match="the disk is full"):
        write_detections(path, table, kind)
    monkeypatch.undo()
    assert [file.name for file in path.parent.iterdir()] == ([] if kind in FOLDERS else ["a"])
    assert kind in FOLDERS or path.read_text() == "old"


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"row_id": "a"}, "csv", "stands there twice"),
        ({"patient_id": None}, "csv", "has no id, path, data set or woman"),
        ({"native_label": "a\nb"}, "csv", "control character"),
        ({"native_label": "NA"}, "json", "would not be read as the same"),
        ({"x0": None}, "coco", "has no box"),
        ({"x0": None}, "yolo", "has no box"),
        ({"image_rows": None}, "yolo", "has no known size"),
        ({"path": "/other/w1-cc.png"}, "yolo", "has the same name as"),
        ({}, "cad-sr", "it is no DICOM file"),
        ({"path": "/other/classes.png"}, "yolo", "a name that YOLO's tools keep"),
        ({}, "dicom", "can't be written"),
    ],
)
def test_what_a_format_can_not_keep_is_refused_by_name(
    table: pd.DataFrame, tmp_path: Path, change: dict[str, Any], kind: str, reason: str
) -> None:
    for name, value in change.items():
        table[name] = [table[name].iloc[0], value]
    with pytest.raises(ExchangeError, match=reason):
        write_detections(tmp_path / "a", table, kind)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_not_written_over(table: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "old.txt").write_text("old")
    with pytest.raises(ExchangeError, match="is there already"):
        write_detections(tmp_path / "labels", table, "yolo")
    assert [file.name for file in tmp_path.iterdir()] == ["labels"]
