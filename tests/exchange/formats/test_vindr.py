"""VinDr-Mammo's findings."""

from pathlib import Path

import pytest

from exchange import ExchangeError
from exchange.formats import read_detections
from exchange.formats.marks import RowError
from exchange.formats.vindr import categories
from exchange.images import ImageCatalogue

HEADER = (
    "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,"
    "finding_categories,finding_birads,xmin,ymin,xmax,ymax,split\n"
)


def test_findings_are_read_with_their_study_for_a_woman(tmp_path: Path, films: Path) -> None:
    folder = tmp_path / "images" / "s1"
    folder.mkdir(parents=True)
    (folder / "i1.png").write_bytes((films / "w1-cc.png").read_bytes())
    path = tmp_path / "finding_annotations.csv"
    rows = [
        ("s1", "300,200", "\"['Mass', 'Suspicious Calcification']\",BI-RADS 4,10.4,20,29.5,60"),
        ("s1", "300,200", "['Skin Thickening'],,10,20,30,60"),
        ("s1", "300,200", "['No Finding'],,,,,"),
        ("s1", "300,200", "['Mass'],,,,,"),
        ("s1", "300,200", "Mass,,10,20,30,60"),
        ("s1", "3518,2800", "['Mass'],,10,20,30,60"),
        ("s2", "300,200", "['Mass'],,10,20,30,60"),
    ]
    lines = [f"{study},r1,i1,L,CC,{size},BI-RADS 4,DENSITY C,{finding},training\n" for study, size, finding in rows]
    path.write_text(HEADER + "".join(lines))
    reading = read_detections(path, ImageCatalogue(folders=[tmp_path / "images"]))
    assert reading.kind == "vindr"
    one, two = reading.detections
    assert (one.dataset, one.patient_id, one.study_id, one.laterality, one.view) == (
        "vindr-mammo",
        "s1",
        "s1",
        "L",
        "CC",
    )
    assert (one.x0, one.y0, one.x1, one.y1, one.score) == (10, 20, 30, 60, None)
    assert (one.lesion_type, one.native_label) == ("mass + calcification", "Mass + Suspicious Calcification")
    assert one.note == "assessment BI-RADS 4"
    assert (two.lesion_type, two.native_label) == (None, "Skin Thickening")
    assert "1 rows are of images without findings" in reading.notes
    assert [place for place, _ in reading.problems] == ["row 4", "row 5", "row 6", "row 7"]
    reasons = [reason for _, reason in reading.problems]
    assert "has no box" in reasons[0]
    assert "is no list" in reasons[1]
    assert "made for an image of 2800 × 3518" in reasons[2]
    assert "no image has this name" in reasons[3]


@pytest.mark.parametrize("text", ["__import__('os')", "[1]", "[]", "{'Mass'}", "[" * 3000, "['a'", "", "['a'] * 10**9"])
def test_a_list_of_words_is_read_and_nothing_is_run(text: str) -> None:
    with pytest.raises(RowError):
        categories(text)


def test_another_table_is_refused(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    path = tmp_path / "a.csv"
    path.write_text("image,x0\na,1\n")
    with pytest.raises(ExchangeError, match="has no column study_id"):
        read_detections(path, catalogue, "vindr")
