"""Tables of the user's own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedder.datasets import DatasetError, read_dataset
from embedder.datasets.table import read_table
from embedder.manifest import ManifestError, read_manifest, write_manifest


def folder_of(tmp_path: Path, table: str, images: tuple[str, ...] = ("a.png", "b.png")) -> Path:
    for name in images:
        Image.fromarray(np.arange(60 * 40, dtype=np.uint8).reshape(60, 40)).save(tmp_path / name)
    (tmp_path / "cases.csv").write_text(table)
    return tmp_path / "cases.csv"


def test_two_columns_are_enough(tmp_path: Path) -> None:
    reading = read_dataset("table", folder_of(tmp_path, "path,patient_id\na.png,007\nb.png,8\na.png,007\n"))
    frame = reading.frame
    assert frame["row_id"].tolist() == ["a", "b", "a-1"]
    assert frame["patient_id"].tolist() == ["007", "8", "007"]
    assert frame["granularity"].eq("breast").all()
    assert frame["dataset"].eq("cases").all()
    assert frame["path"].tolist() == [str(tmp_path / name) for name in ("a.png", "b.png", "a.png")]


def test_columns_are_mapped_and_further_ones_kept(tmp_path: Path) -> None:
    table = folder_of(
        tmp_path,
        "image,woman,x0,y0,x1,y1,outcome,reader\n"
        "a.png,1,2,3,30,40,benign,9\na.png,1,5,5,9,9,malignant,8\nb.png,2,,,,,,7\n",
    )
    calls: list[tuple[int, int]] = []
    reading = read_dataset(
        "table",
        table,
        columns={"path": "image", "patient_id": "woman", "pathology": "outcome"},
        dataset="clinic",
        progress=lambda done, total: calls.append((done, total)),
    )
    frame = reading.frame
    assert reading.name == "clinic"
    assert frame["dataset"].eq("clinic").all()
    assert frame["row_id"].tolist() == ["a-1", "a-2", "b"]
    assert frame["granularity"].tolist() == ["finding", "finding", "breast"]
    assert frame["pathology"].fillna("unknown").tolist() == ["benign", "malignant", "unknown"]
    assert frame["reader"].tolist() == [9, 8, 7]
    assert frame["image_rows"].fillna(0).tolist() == [60, 60, 0]
    assert calls[-1] == (3, 3)
    write_manifest(frame, tmp_path / "manifest.csv")
    assert len(read_manifest(tmp_path / "manifest.csv")) == 3


def test_parquet(tmp_path: Path) -> None:
    folder_of(tmp_path, "")
    pd.DataFrame({"path": ["a.png", "b.png"], "patient_id": [1, 2], "age": [50.5, None]}).to_parquet(
        tmp_path / "cases.parquet"
    )
    frame = read_table(tmp_path / "cases.parquet").frame
    assert frame["patient_id"].tolist() == ["1", "2"]
    assert frame["age"].fillna(-1).tolist() == [50.5, -1]


def test_given_ids_and_granularity_stay(tmp_path: Path) -> None:
    table = folder_of(tmp_path, "path,patient_id,row_id,granularity,dataset\na.png,1,,,\nb.png,2,a,breast,other\n")
    frame = read_table(table).frame
    assert frame["row_id"].tolist() == ["a-1", "a"]
    assert frame["dataset"].tolist() == ["cases", "other"]


def test_missing_images_are_left_out(tmp_path: Path) -> None:
    reading = read_table(folder_of(tmp_path, "path,patient_id\nabsent.png,1\nb.png,2\n"))
    assert reading.frame["row_id"].tolist() == ["b"]
    assert reading.left_out == (("absent", "the image file is missing"),)
    with pytest.raises(DatasetError, match=r"none of its images is there \(such as .*absent\.png\)"):
        read_table(folder_of(tmp_path, "path,patient_id\nabsent.png,1\n"))


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("pathology", "cancerous", "row 3, column pathology: 'cancerous' is none of"),
        ("age", "old", "row 3, column age: 'old' is not a number"),
        ("x0,y0,x1,y1", "1,1,400,4", "row 3, column x1: 400 lies outside the image"),
        ("x0,y0,x1,y1", "9,1,4,4", "row 3, column x0, x1"),
        ("x0,y0,x1,y1", "9,,,", "row 3, column y0, x1, y1: a finding needs a box"),
        ("split", "later", "row 3, column split"),
    ],
)
def test_wrong_cells_are_named(tmp_path: Path, header: str, row: str, message: str) -> None:
    blank = "," * header.count(",")
    # The first image is missing: the error still counts rows of the table.
    table = folder_of(tmp_path, f"path,patient_id,{header}\nabsent.png,1,{blank}\na.png,1,{blank}\nb.png,2,{row}\n")
    with pytest.raises(ManifestError, match=message) as caught:
        read_table(table)
    assert str(caught.value).startswith(str(table))


def test_empty_cells_that_must_not_be(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="row 2, column path: is empty"):
        read_table(folder_of(tmp_path, "path,patient_id\na.png,1\n,2\n"))
    with pytest.raises(ManifestError, match="row 2, column patient_id: is empty"):
        read_table(folder_of(tmp_path, "path,patient_id\na.png,1\nb.png,\n"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, r"has no column 'path'; say which of its columns that is: image, patient_id"),
        ({"path": "picture"}, "has no column 'picture'"),
        ({"image": "image"}, "'image': is none of a manifest"),
        ({"path": "image", "pathology": "image"}, "two columns of the manifest"),
        ({"path": "image", "patient_id": "view"}, "has a column 'patient_id' already"),
    ],
)
def test_wrong_mappings(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_table(folder_of(tmp_path, "image,patient_id,view\na.png,1,CC\n"), columns=columns)


def test_damaged_tables(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(DatasetError, match=r"neither \.csv nor \.parquet"):
        read_table(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DatasetError, match="is a folder"):
        read_table(tmp_path / "folder.csv")
    for content in (
        b"",
        b"path,patient_id\n",
        b"\xff\xfe\x00\x01",
        b'path,patient_id\n"a',
        b"a,b\n1,2\n1,2,3",
        b"path,patient_id\na.png,1,2\n",
    ):
        (tmp_path / "cases.csv").write_bytes(content)
        with pytest.raises(DatasetError, match=r"cases\.csv: (can't be read|has no rows)"):
            read_table(tmp_path / "cases.csv")
    (tmp_path / "cases.parquet").write_bytes(b"PAR1 is not all")
    with pytest.raises(DatasetError, match=r"can't be read as parquet"):
        read_table(tmp_path / "cases.parquet")
    (tmp_path / "twice.csv").write_text("path ,path,patient_id\n1,2,3\n")
    with pytest.raises(DatasetError, match="column 'path': stands there twice"):
        read_table(tmp_path / "twice.csv")


def test_rows_longer_than_the_header_and_columns_named_twice(tmp_path: Path) -> None:
    # pandas alone would take the images for an index, or name the second column row_id.1.
    with pytest.raises(DatasetError, match=r"can't be read as csv"):
        read_table(folder_of(tmp_path, "path,patient_id\na.png,1,CC\nb.png,2,CC\n"))
    with pytest.raises(DatasetError, match="column 'row_id': stands there twice"):
        read_table(folder_of(tmp_path, "path,patient_id,row_id,row_id\na.png,1,a,b\n"))
    with pytest.raises(DatasetError, match="divided by semicolons; save it again with commas"):
        read_table(folder_of(tmp_path, "path;patient_id\na.png;1\n"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "cases.csv"]


def test_cells_and_names_that_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"row 2, column path: .* has \d+ characters"):
        read_table(folder_of(tmp_path, f"path,patient_id\na.png,1\n{'x' * 1_000_000},2\n"))
    with pytest.raises(ManifestError, match=r"row 1, column path: .* contains a control character"):
        read_table(folder_of(tmp_path, "path,patient_id\na\0.png,1\n"))
    # Too long for a file system, but not for a path.
    reading = read_table(folder_of(tmp_path, f"path,patient_id,row_id\na.png,1,a\n{'x' * 400},2,b\n"))
    assert reading.left_out == (("b", "the image file is missing"),)
    with pytest.raises(ManifestError, match="column rank: answers use this name"):
        read_table(folder_of(tmp_path, "path,patient_id,rank\na.png,1,2\n"))
    pd.DataFrame({"path": ["a.png"], "patient_id": [1], "own": [[1, 2]]}).to_parquet(tmp_path / "cases.parquet")
    with pytest.raises(ManifestError, match=r"row 1, column own: .* write it as text"):
        read_table(tmp_path / "cases.parquet")


def test_ids_of_a_parquet_table_are_whole(tmp_path: Path) -> None:
    folder_of(tmp_path, "")
    table = {"path": ["a.png", "a.png", "b.png"], "patient_id": [4711.0, 4711.0, 5.0], "row_id": [1.0, None, None]}
    pd.DataFrame(table).to_parquet(tmp_path / "cases.parquet")
    frame = read_table(tmp_path / "cases.parquet").frame
    assert frame["patient_id"].tolist() == ["4711", "4711", "5"]
    assert frame["row_id"].tolist() == ["1", "a-1", "b"]


def test_an_image_of_two_women_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"row 2, column patient_id: the image a\.png is of cases/1 in row 1"):
        read_table(folder_of(tmp_path, "path,patient_id\na.png,1\n./a.png,2\n"))


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a.png", "b.png"]), st.booleans(), st.sampled_from(["", "a", "a-1", "b-2"])),
        min_size=1,
        max_size=8,
    )
)
def test_row_ids_are_unique_and_given_ones_kept(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, bool, str]]
) -> None:
    given_ids = [name for _, _, name in rows if name]
    lines = [f"{image},1,{'1,1,9,9' if boxed else ',,,'},{name}" for image, boxed, name in rows]
    table = folder_of(
        tmp_path_factory.mktemp("table"), "\n".join(["path,patient_id,x0,y0,x1,y1,row_id", *lines]) + "\n"
    )
    if len(set(given_ids)) < len(given_ids):
        with pytest.raises(ManifestError, match="row_id"):
            read_table(table)
        return
    frame = read_table(table).frame
    assert frame["row_id"].is_unique
    assert all(found == name for found, (_, _, name) in zip(frame["row_id"], rows, strict=True) if name)
    assert frame["granularity"].tolist() == ["finding" if boxed else "breast" for _, boxed, _ in rows]
