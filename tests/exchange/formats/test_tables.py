"""Tables of detections."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import ExchangeError
from exchange.formats import Reading, read_detections
from exchange.images import ImageCatalogue


def read(tmp_path: Path, text: str | bytes, catalogue: ImageCatalogue, name: str = "detections.csv") -> Reading:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_detections(path, catalogue)


def boxes(reading: Reading) -> list[tuple[int | None, ...]]:
    return [(one.x0, one.y0, one.x1, one.y1) for one in reading.detections]


@pytest.mark.parametrize(
    "text",
    [
        "path,x0,y0,x1,y1,score,label\nw1-cc.png,10,20,30,60,0.5,mass\n",
        "Image;X;Y;W;H;Confidence;Class\nw1-cc;10,0;20;20;40;0,5;mass\n",
        "file_name\tcx\tcy\tw\th\tprobability\tcategory\nw1-cc.png\t20\t40\t20\t40\t5e-1\tmass\n",
        "image|xmin|ymin|xmax|ymax|conf|class_name\nw1-cc.dcm|10|20|30|60|.5|mass\n",
        "\ufeffx1,y1,x2,y2,SCORE,filename,Label\r\n10,20,30,60,0.50,w1-cc.png, mass \r\n",
        'image,bbox_x,bbox_y,bbox_w,bbox_h,score,label\n"w1-cc.png",10,20,20,40,0.5,"mass"\n',
        'image,outline,score,label\nw1-cc.png,"[[10,20],[30,20],[30,60],[10,60]]",0.5,mass\n',
    ],
)
def test_common_columns_and_separators_give_the_same_detection(
    tmp_path: Path, catalogue: ImageCatalogue, text: str
) -> None:
    reading = read(tmp_path, text, catalogue)
    assert reading.kind == "csv"
    assert reading.problems == ()
    assert boxes(reading) == [(10, 20, 30, 60)]
    one = reading.detections[0]
    assert (one.score, one.native_label, one.lesion_type, one.patient_id, one.dataset) == (
        0.5,
        "mass",
        "mass",
        "w1",
        "films",
    )
    assert (one.image_rows, one.image_columns) == (300, 200)
    assert one.detection_id == "w1-cc-c610ddc928f6"  # never changes: others keep it


def test_each_bad_row_is_told_by_place_and_reason_and_stops_no_other(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    rows = {
        "w1-cc,10,20,30,60,1.5,mass": "the score 1.5 is not in 0 to 1",
        "w1-cc,10,20,30,60,-0.1,mass": "the score -0.1 is not in 0 to 1",
        "w1-cc,10,20,30,60,nan,mass": "score 'nan' is not a finite number",
        "w1-cc,10,20,30,60,90%,mass": "percentage",
        "w1-cc,10,20,30,60,high,mass": "score 'high' is not a finite number",
        "w1-cc,nan,20,30,60,0.5,mass": "x0 'nan' is not a finite number",
        "w1-cc,inf,20,30,60,0.5,mass": "x0 'inf' is not a finite number",
        "w1-cc,1e999,20,30,60,0.5,mass": "x0 '1e999' is not a finite number",
        "w1-cc,,20,30,60,0.5,mass": "the box lacks x0",
        "w1-cc,,,,,0.5,mass": "has no box",
        "w1-cc,30,20,10,60,0.5,mass": "empty or inverted",
        "w1-cc,10,20,10,60,0.5,mass": "empty or inverted",
        "w1-cc,500,20,600,60,0.5,mass": "outside the image",
        "w1-cc,0.1,0.2,0.3,0.4,0.5,mass": "shares of the image",
        "w9-cc,10,20,30,60,0.5,mass": "no image has this name",
        "../../etc/passwd,10,20,30,60,0.5,mass": "climbs out of its folder",
        "/etc/passwd,10,20,30,60,0.5,mass": "no image has this name",
        "w1-cc\0.png,10,20,30,60,0.5,mass": "control character",
        ",10,20,30,60,0.5,mass": "names no image",
        "nobody,10,20,30,60,0.5,mass": "which woman",
        "w1-cc,10,20,30,60": "has 5 cells, and the header 7 columns",
        "w1-cc,10,20,30,60,0.5,mass,more": "has 8 cells",
        'w1-cc,10,20,30,60,0.5,"never closed': "can't be read as CSV",
        "w1-cc,10,20,30,60,0.5," + "x" * 300: "label has 300 characters",
        "w1-cc,10,20,30,60,0.5," + "x" * 200_000: "can't be read as CSV",
    }
    good = [f"w2-cc,{place},20,{place + 30},60,0.5,mass" for place in range(len(rows) + 1)]
    mixed = [line for pair in zip(good, rows, strict=False) for line in pair] + good[-1:]
    reading = read(tmp_path, "image,x0,y0,x1,y1,score,label\n" + "\n".join(mixed), catalogue)
    assert [box[0] for box in boxes(reading)] == list(range(len(good)))
    reasons = dict(reading.problems)
    for position, (line, reason) in enumerate(rows.items(), 1):
        assert reason in reasons[f"row {2 * position}"], line[:80]
    assert len(reading.problems) == len(rows)
    assert all(len(reason) < 700 for reason in reasons.values())


def test_a_box_over_the_edge_is_clipped_with_a_note(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    reading = read(tmp_path, "image,x0,y0,x1,y1\nw1-cc,-5,250.5,20,310\n", catalogue)
    assert boxes(reading) == [(0, 250, 20, 300)]
    assert reading.detections[0].note == "box clipped to the image (was -5,250,20,310)"
    assert reading.detections[0].score is None
    assert "1 of 1 detections have no score" in reading.notes


def test_a_second_row_of_one_id_is_refused(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    text = "id,image,x0,y0,x1,y1\n007,w1-cc,1,2,30,40\n7,w1-cc,1,2,30,40\n007,w2-cc,1,2,30,40\n"
    reading = read(tmp_path, text, catalogue)
    assert [one.detection_id for one in reading.detections] == ["007", "7"]
    assert reading.problems == (("row 3", "the id '007' stands in row 1 already"),)


def test_without_ids_the_same_mark_twice_is_refused_and_two_labels_of_one_place_are_two(
    tmp_path: Path, catalogue: ImageCatalogue
) -> None:
    rows = ["w1-cc,1,2,30,40,mass", "w1-cc,1,2,30,40,calc", "w1-cc,1,2,30,40,mass"]
    header = "image,x0,y0,x1,y1,label\n"
    first = read(tmp_path, header + "\n".join(rows), catalogue)
    turned = read(tmp_path, header + "\n".join(rows[::-1]), catalogue)
    assert first.problems == (("row 3", "the same place, score and label stand in row 1 already"),)
    assert {one.native_label: one.detection_id for one in first.detections} == {
        one.native_label: one.detection_id for one in turned.detections
    }
    assert len({one.detection_id for one in first.detections}) == 2


def test_a_woman_who_contradicts_the_image_is_refused(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    text = "image,patient_id,x0,y0,x1,y1\nw1-cc,w2,1,2,30,40\nnobody,w5,1,2,30,40\nnobody,w6,5,5,30,40\n"
    reading = read(tmp_path, text, catalogue)
    assert [one.patient_id for one in reading.detections] == ["w5"]
    assert [reason.split(",")[0] for _, reason in reading.problems] == [
        "it says the woman is w2",
        "it says the woman is w6",
    ]


def test_a_side_that_contradicts_the_image_is_refused(tmp_path: Path, films: Path) -> None:
    from exchange.images import ImageFacts

    catalogue = ImageCatalogue([ImageFacts(str(films / "w1-cc.png"), "d", "w1", laterality="L", view="CC")])
    text = "image,side,view,x0,y0,x1,y1\nw1-cc,right,CC,1,2,30,40\nw1-cc,left,mlo,1,2,30,40\nw1-cc,up,CC,1,2,30,40\n"
    reading = read(tmp_path, text, catalogue)
    assert [(one.laterality, one.view, one.note) for one in reading.detections] == [
        ("L", "CC", "the file says view MLO")
    ]
    assert [place for place, _ in reading.problems] == ["row 1", "row 3"]


def test_a_file_made_for_another_size_is_refused(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    text = "image,image_width,image_height,x0,y0,x1,y1\nw1-cc,100,150,1,2,30,40\nw1-cc,200,300,1,2,30,40\n"
    reading = read(tmp_path, text, catalogue)
    assert len(reading.detections) == 1
    assert "made for an image of 100 × 150 pixels" in reading.problems[0][1]


def test_a_quoted_line_break_is_part_of_its_cell_as_in_cbis_ddsm(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    reading = read(tmp_path, 'image,x0,y0,x1,y1\n"w1-cc.png\n",1,2,30,40\nw2-cc,1,2,30,40\n', catalogue)
    assert reading.problems == ()
    assert len(reading.detections) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"image,score\nw1,0.5\n", "no columns for the box"),
        (b"x0,y0,x1,y1\n1,2,3,4\n", "no column for the image"),
        (b"image,image,x0,y0,x1,y1\na,b,1,2,3,4\n", "two columns 'image'"),
        (b"image,x0,y0,x1,y1\n\xff\xfe,1,2,3,4\n", "is not UTF-8"),
        ("image,x0,y0,x1,y1\n".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused_whole(
    tmp_path: Path, catalogue: ImageCatalogue, content: bytes, reason: str
) -> None:
    with pytest.raises(ExchangeError, match=reason):
        read(tmp_path, content, catalogue)


def test_more_rows_than_are_read_are_refused(
    tmp_path: Path, catalogue: ImageCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.formats.marks.MAXIMUM_ROWS", 3)
    with pytest.raises(ExchangeError, match="more than 3 rows"):
        read(tmp_path, "image,x0,y0,x1,y1\n" + "w1-cc,1,2,30,40\n" * 4, catalogue)


@given(st.text(alphabet=st.sampled_from('w1-c,0."\n\0;e-[]{}n'), max_size=80))
def test_hostile_rows_never_crash(
    catalogue: ImageCatalogue, tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.csv"
    path.write_text("image,x0,y0,x1,y1,score\n" + text, newline="")
    reading = read_detections(path, catalogue)
    assert all(place.startswith("row ") and reason for place, reason in reading.problems)


def test_our_own_columns_need_no_catalogue(tmp_path: Path, films: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(f"row_id,path,dataset,patient_id,x0,y0,x1,y1\na,{films / 'w1-cc.png'},d,w1,1,2,30,40\n")
    reading = read_detections(path)
    assert [(one.detection_id, one.patient_id, one.image_rows) for one in reading.detections] == [("a", "w1", 300)]
    path.write_text("image,x0,y0,x1,y1\nw1-cc,1,2,30,40\n")
    with pytest.raises(ExchangeError, match="does not say which images and women"):
        read_detections(path)
