import os
from pathlib import Path
from unicodedata import normalize

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedder.findings import TERMS, VIEWS, Finding, findings_frame
from embedder.manifest import ManifestError, manifest_digest, read_manifest, write_manifest
from embedder.manifestrules import MISSING_WORDS

HEADER = "row_id,path,granularity,dataset,patient_id,x0,y0,x1,y1"
ROW = "f1,images/1.png,finding,d,w1,1,2,3,4"


def table(folder: Path, *lines: str, name: str = "cases.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def message_of(path: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_smallest_table(tmp_path: Path) -> None:
    frame = read_manifest(table(tmp_path, HEADER, ROW))
    assert frame["path"].tolist() == [str(tmp_path / "images" / "1.png")]
    assert frame.loc[0, ["x0", "y0", "x1", "y1"]].tolist() == [1, 2, 3, 4]
    assert frame["pathology"].isna().all()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_and_line_ends(tmp_path: Path, mark: bytes, end: str) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(mark + end.join([HEADER, ROW, ""]).encode())
    frame = read_manifest(path)
    assert frame["row_id"].tolist() == ["f1"]
    assert frame["y1"].tolist() == [4]


def test_ids_keep_their_zeros_and_own_columns_become_numbers(tmp_path: Path) -> None:
    frame = read_manifest(
        table(
            tmp_path,
            "row_id,path,granularity,dataset,patient_id,code,score,word,none",
            "001,a.png,breast,d,0007,007,0.5,1,",
            "002,b.png,breast,d,0008,008,NaN,x,",
        )
    )
    assert frame["row_id"].tolist() == ["001", "002"]
    assert frame["patient_id"].tolist() == ["0007", "0008"]
    assert frame["code"].tolist() == ["007", "008"]
    assert frame["score"].iloc[0] == 0.5
    assert np.isnan(frame["score"].iloc[1])
    assert frame["word"].tolist() == ["1", "x"]


@pytest.mark.parametrize("word", ["", "NaN", "nan", "NA", "None", "null"])
def test_words_for_unknown(tmp_path: Path, word: str) -> None:
    frame = read_manifest(table(tmp_path, HEADER + ",pathology,age", f"{ROW},{word},{word}"))
    assert frame.loc[0, ["pathology", "age"]].isna().all()
    path = table(tmp_path, HEADER, ROW.replace("w1", word))
    assert "row 1, column patient_id: is empty" in message_of(path)
    path = table(tmp_path, HEADER, ROW.replace("1,2,3,4", f"1,2,{word},4"))
    assert "row 1, column x1: a finding needs a box" in message_of(path)


def test_wrong_cells_are_named(tmp_path: Path) -> None:
    assert "row 2, column x0: 'one'" in message_of(table(tmp_path, HEADER, ROW, "f2,2.png,finding,d,w2,one,2,3,4"))
    assert "row 1, column x0, x1: the box is empty" in message_of(
        table(tmp_path, HEADER, ROW.replace("1,2,3,4", "3,2,3,4"))
    )
    assert "column patient_id: is missing" in message_of(table(tmp_path, "row_id,path,granularity,dataset", "a,b,c,d"))


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("cases.txt", HEADER.encode(), "neither .csv nor .parquet"),
        ("cases", HEADER.encode(), "neither .csv nor .parquet"),
        ("cases.csv", b"", "can't be read as csv"),
        ("cases.csv", b"\n\n", "can't be read as csv"),
        ("cases.csv", HEADER.encode(), "has no rows"),
        ("cases.csv", bytes(range(256)) * 40, "can't be read as csv"),
        ("cases.csv", f"{HEADER}\n{ROW}".encode("utf-16"), "can't be read as csv"),
        ("cases.csv", f"{HEADER}\n{ROW},5,6\n".encode(), "can't be read as csv"),
        ("cases.csv", f'{HEADER}\n"{ROW}\n'.encode(), "can't be read as csv"),
        ("cases.csv", f"{HEADER},path\n{ROW},x\n".encode(), "column 'path': stands there twice"),
        ("cases.csv", f"{HEADER}, path\n{ROW},x\n".encode(), "column 'path': stands there twice"),
        ("cases.csv", HEADER.replace(",", ";").encode() + b"\na;b", "its columns are divided by semicolons"),
        ("cases.parquet", b"", "can't be read as parquet"),
        ("cases.parquet", b"PAR1" + bytes(100) + b"PAR1", "can't be read as parquet"),
        ("cases.parquet", f"{HEADER}\n{ROW}".encode(), "can't be read as parquet"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, name: str, content: bytes, cause: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = message_of(path)
    assert cause in message
    assert len(message) < 1000


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such file" in message_of(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder" in message_of(tmp_path / "folder.csv")


def test_one_huge_cell(tmp_path: Path) -> None:
    huge = "x" * 3_000_000
    assert len(message_of(table(tmp_path, HEADER + ",pathology", f"{ROW},{huge}"))) < 1000
    assert "row 1, column path" in message_of(table(tmp_path, HEADER, ROW.replace("images/1.png", huge)))
    assert "row 1, column x0" in message_of(table(tmp_path, HEADER, ROW.replace(",1,2,", f",{'9' * 100_000},2,")))
    assert "row 1, column mine" in message_of(table(tmp_path, HEADER + ",mine", f"{ROW},{huge}"))
    assert "name of a column" in message_of(table(tmp_path, HEADER + f",{huge}", f"{ROW},1"))


@pytest.mark.parametrize("name", ["x" * 400 + ".csv", "a\0b.csv", "x" * 100_000 + ".parquet"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match="can't be opened"):
        read_manifest(tmp_path / name)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{kind}")
    assert "is no regular file but a pipe or a device" in message_of(tmp_path / f"pipe.{kind}")


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_other_separators_are_told(tmp_path: Path, mark: str, word: str) -> None:
    lines = [line.replace(",", mark) for line in (HEADER, ROW)]
    # A decimal comma makes rows longer than a header that is one name to commas.
    for rows in (lines, [lines[0] + mark + "age", lines[1] + mark + "50,5"]):
        message = message_of(table(tmp_path, *rows))
        assert message.endswith(f"its columns are divided by {word}; save it again with commas")
    read_manifest(table(tmp_path, HEADER + ',"what; is | said"', ROW + ",a;b;c"))


def test_a_woman_is_one_whatever_number_her_id_was_kept_as(tmp_path: Path) -> None:
    row = {"row_id": [1.0, 2.0], "path": ["a.png", "b.png"], "granularity": "breast", "dataset": "d"}
    path = tmp_path / "cases.parquet"
    pd.DataFrame({**row, "patient_id": [4711.0, 4712.0]}).to_parquet(path)
    frame = read_manifest(path)
    assert frame["patient_id"].tolist() == ["4711", "4712"]
    assert frame["row_id"].tolist() == ["1", "2"]
    pd.DataFrame({**row, "patient_id": [4711.0, 4712.5]}).to_parquet(path)
    assert "row 2, column patient_id: '4712.5' is no whole number" in message_of(path)


@pytest.mark.parametrize("second", ["a.png", "./a.png", "below/../a.png", "link.png"])
def test_an_image_of_two_women_by_any_of_its_paths(tmp_path: Path, second: str) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to("a.png")
    rows = ["1,a.png,breast,d,w1,,,,", f"2,{second},breast,d,w2,,,,"]
    for check in (True, False):
        with pytest.raises(ManifestError, match=r"row 2, column patient_id: the image a\.png is of d/w1 in row 1"):
            read_manifest(table(tmp_path, HEADER, *rows), check_images=check)


def test_long_whole_numbers_of_own_columns_keep_their_digits(tmp_path: Path) -> None:
    rows = ["1,a.png,breast,d,1,,,,,12345678901234567", "2,b.png,breast,d,2,,,,,"]
    frame = read_manifest(table(tmp_path, HEADER + ",accession", *rows))
    assert frame["accession"].iloc[0] == "12345678901234567"


def test_a_column_without_a_name_is_told_by_its_place(tmp_path: Path) -> None:
    # So pandas writes a table with its index.
    assert "column 1 has no name" in message_of(table(tmp_path, "," + HEADER, "0," + ROW))


def test_boxes_are_checked_against_the_image(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "1.png"), np.zeros((40, 50), np.uint8))
    path = table(tmp_path, HEADER, ROW.replace("1,2,3,4", "1,2,51,4"))
    assert "row 1, column x1: 51 lies outside the image, which has 50 columns" in message_of(path)
    assert read_manifest(path, check_images=False)["image_columns"].isna().all()
    right = read_manifest(table(tmp_path, HEADER, ROW.replace("1,2,3,4", "1,2,50,40")))
    assert (right["image_rows"].tolist(), right["image_columns"].tolist()) == ([40], [50])


def test_unreadable_images_are_no_fault_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(b"junk")
    assert read_manifest(table(tmp_path, HEADER, ROW))["image_rows"].isna().all()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_paths_are_relative_where_images_lie_below(tmp_path: Path, kind: str) -> None:
    below, beside = tmp_path / "set" / "images" / "a.png", tmp_path / "other" / "b.png"
    frame = findings_frame(
        [Finding("a", str(below), "breast", "d", "1"), Finding("b", str(beside), "breast", "d", "2")]
    )
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / f"cases.{kind}"
    write_manifest(frame, path)
    raw = pd.read_csv(path) if kind == "csv" else pd.read_parquet(path)
    assert raw["path"].tolist() == ["images/a.png", beside.as_posix()]
    # The folder moves with its images.
    (tmp_path / "set").rename(tmp_path / "moved")
    moved = read_manifest(tmp_path / "moved" / f"cases.{kind}")
    assert moved["path"].tolist() == [str(tmp_path / "moved" / "images" / "a.png"), str(beside)]


def test_paths_up_and_over(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    path = table(tmp_path / "tables", HEADER, ROW.replace("images/1.png", "../images/1.png"))
    assert read_manifest(path)["path"].tolist() == [str(tmp_path / "images" / "1.png")]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    frame = findings_frame([Finding("a", "/x/a.png", "breast", "d", "1")])
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none" / "cases.csv", tmp_path / "file" / "cases.csv"):
        with pytest.raises(ManifestError, match="can't be written"):
            write_manifest(frame, path)
    with pytest.raises(ManifestError, match=r"neither \.csv"):
        write_manifest(frame, tmp_path / "cases.xlsx")
    with pytest.raises(ManifestError, match="row 1, column path: is empty"):
        write_manifest(frame.assign(path=None), tmp_path / "cases.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ManifestError, match="can't be written"):
        write_manifest(findings_frame([Finding("a", "/x/a.png", "breast", "d", "1")]), tmp_path / "cases.csv")


def test_writing_replaces_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = findings_frame([Finding("a", "/x/a.png", "breast", "d", "1")])
    path = tmp_path / "cases.csv"
    write_manifest(frame, path)
    before = path.read_bytes()

    def half(self: pd.DataFrame, target: Path, **_: object) -> None:
        Path(target).write_text("row_id,pa")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", half)
    with pytest.raises(ManifestError, match="No space left"):
        write_manifest(frame, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["cases.csv"]


def test_the_digest_is_of_the_content_not_the_place() -> None:
    here, there = (findings_frame([Finding("a", f"/{at}/a.png", "breast", "d", "1")]) for at in ("x", "y/z"))
    assert manifest_digest(here) == manifest_digest(there)
    other = findings_frame([Finding("a", "/x/a.png", "breast", "d", "1", pathology="benign")])
    assert manifest_digest(here) != manifest_digest(other)


names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8).filter(
    lambda text: text.strip() == text and text not in MISSING_WORDS
)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    rows = []
    # Women whose names differ by more than case, each with images of her own.
    women = draw(st.lists(names, min_size=1, max_size=3, unique_by=lambda name: normalize("NFC", name).casefold()))
    dataset = draw(names)
    for number in range(draw(st.integers(1, 4))):
        woman = draw(st.sampled_from(women))
        box: dict[str, int] = {}
        if draw(st.booleans()):
            x0, y0 = draw(st.integers(0, 5000)), draw(st.integers(0, 5000))
            box = {"x0": x0, "y0": y0, "x1": x0 + draw(st.integers(1, 99)), "y1": y0 + draw(st.integers(1, 99))}
        labels = {name: draw(st.none() | st.sampled_from(terms)) for name, terms in TERMS.items()}
        rows.append(
            Finding(
                row_id=f"{number}{draw(names)}",
                path=f"/images/{women.index(woman)}{draw(st.integers(0, 9))}.png",
                granularity="finding" if box else "breast",
                dataset=dataset,
                patient_id=woman,
                spacing_mm=draw(st.none() | st.floats(0.001, 5)),
                view=draw(st.none() | st.sampled_from(VIEWS)),
                subtlety=draw(st.none() | st.integers(1, 5)),
                native_pathology=draw(st.none() | names),
                age=draw(st.none() | st.floats(0, 130)),
                **box,
                **labels,  # type: ignore[arg-type]
            )
        )
    return findings_frame(rows)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
def test_round_trip(tmp_path: Path, frame: pd.DataFrame) -> None:
    for kind in ("csv", "parquet"):
        path = tmp_path / f"cases.{kind}"
        write_manifest(frame, path)
        back = read_manifest(path)
        pd.testing.assert_frame_equal(back, frame)
        assert manifest_digest(back) == manifest_digest(frame)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(max_size=80).map(lambda text: f"{HEADER}\n{text}".encode("utf-8", "replace")))
def test_any_bytes_are_a_table_or_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    try:
        frame = read_manifest(path)
    except ManifestError:
        return
    assert len(frame)
