"""YOLO's text files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import ExchangeError
from exchange.formats import ReadOptions, read_detections
from exchange.images import ImageCatalogue


def labels(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name.replace('_', '-')}.txt").write_text(text)
    return folder


def test_a_folder_is_read_with_scores_outlines_and_names(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    labels(tmp_path, w1_cc="1 0.1 0.133333 0.1 0.133333 0.5\n0 0.05 0.1 0.15 0.1 0.15 0.3 0.05 0.3 0.75\n", w2_cc="\n")
    (tmp_path / "classes.txt").write_text("Calcification\nMass\n")
    reading = read_detections(tmp_path, catalogue)
    assert (reading.kind, reading.problems) == ("yolo", ())
    box, outline = reading.detections
    assert (box.x0, box.y0, box.x1, box.y1, box.score, box.lesion_type) == (10, 20, 30, 60, 0.5, "mass")
    assert (outline.x0, outline.y0, outline.x1, outline.y1, outline.score) == (10, 30, 30, 90, 0.75)
    assert outline.outline == ((10.0, 30.0), (30.0, 30.0), (30.0, 90.0), (10.0, 90.0))
    assert outline.native_label == "Calcification"
    assert "1 of 2 images have no detections" in reading.notes


def test_one_file_without_scores_and_names_is_read(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    labels(tmp_path, w1_mlo="3 0.5 0.5 0.5 0.5")
    reading = read_detections(tmp_path / "w1-mlo.txt", catalogue)
    one = reading.detections[0]
    assert (one.x0, one.y0, one.x1, one.y1, one.score, one.native_label) == (50, 75, 150, 225, None, "3")


def test_each_bad_line_is_told_by_file_and_line(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    lines = {
        "0 0.5 0.5 0.5": "has 4 values",
        "mass 0.5 0.5 0.5 0.5": "is no number",
        "0 0.5 nan 0.5 0.5": "not a finite number",
        "0 100 150 20 40": "no shares of the image",
        "0 0.5 0.5 0 0.1": "empty or inverted",
        "0 0.5 0.5 -0.1 0.1": "empty or inverted",
        "0 1.4 0.5 0.1 0.1": "outside the image",
        "0 0.5 0.5 0.1 0.1 2": "score 2 is not in 0 to 1",
        "0 0.5 0.5\0 0.1 0.1": "not a finite number",
        "-1 0.5 0.5 0.1 0.1": "is no number",
    }
    labels(tmp_path, w1_cc="\n".join(lines) + "\n0 0.95 0.5 0.2 0.1 0.5\n", w9_cc="0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "w2-cc.txt").write_bytes(b"\xff\xfe0 0.5")
    reading = read_detections(tmp_path, catalogue)
    assert [(one.x1, one.note) for one in reading.detections] == [
        (200, "box clipped to the image (was 170,135,210,165)")
    ]
    told = dict(reading.problems)
    for number, reason in enumerate(lines.values(), 1):
        assert reason in told[f"w1-cc.txt line {number}"]
    assert "no image has this name" in told["w9-cc.txt line 1"]
    assert "is not UTF-8" in told["w2-cc.txt"]
    assert len(told) == len(lines) + 2


def test_a_class_without_a_name_keeps_its_number(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    labels(tmp_path, w1_cc="5 0.5 0.5 0.1 0.1\n")
    names = tmp_path / "mine.yaml"
    names.write_text("names: [a, b]\n")
    reading = read_detections(tmp_path, catalogue, options=ReadOptions(names=names))
    assert (reading.detections[0].native_label, reading.detections[0].note) == ("5", "the names have no class 5")


def test_a_folder_without_labels_and_a_loop_of_links_are_refused(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "classes.txt").write_text("mass\n")
    with pytest.raises(ExchangeError, match="holds no label files"):
        read_detections(tmp_path, catalogue)


@given(st.text(alphabet=st.sampled_from("01259.- \n\0en"), max_size=80))
def test_hostile_lines_never_crash(
    catalogue: ImageCatalogue, tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "w1-cc.txt"
    path.write_text(text)
    assert read_detections(path, catalogue, "yolo").kind == "yolo"
