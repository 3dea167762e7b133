"""RSNA in its official layout and as a plain table."""

from pathlib import Path

import pandas as pd
import pytest

from embedder.datasets import DatasetError, read_dataset
from embedder.datasets.rsna import read_rsna
from embedder.manifest import ManifestError, read_manifest, write_manifest

HEAD = (
    "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,machine_id,"
    "difficult_negative_case"
)
ROWS = [
    "2,10006,462822612,L,CC,61.0,0,0,0,,0,,29,False",
    "2,10006,1459541791,L,MLO,61.0,0,1,0,2.0,0,C,29,True",
    "1,10007,1864590858,R,AT,,1,1,1,0,1,B,48,False",
]


def official(folder: Path, rows: list[str], images: tuple[str, ...]) -> Path:
    (folder / "train.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    for name in images:
        (folder / "train_images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "train_images" / name).write_bytes(b"not opened")
    return folder


IMAGES = ("10006/462822612.dcm", "10006/1459541791.png", "10007/1864590858.dcm")


def test_official_layout(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    reading = read_dataset(
        "rsna", official(tmp_path, ROWS, IMAGES), progress=lambda done, total: calls.append((done, total))
    )
    frame = reading.frame.set_index("row_id")
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert frame["granularity"].eq("breast").all()
    assert frame["pathology"].tolist() == ["no cancer", "benign", "malignant"]
    assert frame["native_pathology"].tolist() == [
        f"cancer {cancer}, biopsy {biopsy}, invasive {invasive}"
        for cancer, biopsy, invasive in ((0, 0, 0), (0, 1, 0), (1, 1, 1))
    ]
    assert frame["assessment"].fillna("unknown").tolist() == ["unknown", "2", "0"]
    assert frame["density"].fillna("unknown").tolist() == ["unknown", "C", "B"]
    assert frame["view"].tolist() == ["CC", "MLO", "AT"]
    assert frame["age"].fillna(-1).tolist() == [61.0, 61.0, -1]
    assert frame["implant"].tolist() == [0, 0, 1]
    assert [Path(path).relative_to(tmp_path / "train_images").as_posix() for path in frame["path"]] == list(IMAGES)
    write_manifest(reading.frame, tmp_path / "manifest.csv")
    again = read_manifest(tmp_path / "manifest.csv")
    assert again["machine_id"].tolist() == [29, 29, 48]
    assert again["pathology"].tolist() == frame["pathology"].tolist()


def test_missing_images_are_left_out(tmp_path: Path) -> None:
    reading = read_rsna(official(tmp_path, ROWS, IMAGES[:1]))
    assert reading.frame["row_id"].tolist() == ["10006_462822612"]
    assert reading.left_out == (
        ("10006_1459541791", "the image file is missing"),
        ("10007_1864590858", "the image file is missing"),
    )
    with pytest.raises(DatasetError, match=r"no image of train\.csv is there"):
        read_rsna(official(tmp_path, ROWS[1:], ()))


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("10007", "../10007", DatasetError, "row 3, column patient_id"),
        ("1864590858", "", DatasetError, "row 3, column image_id"),
        (",,1,1,1,", ",,2,1,1,", DatasetError, "row 3, column cancer"),
        (",,1,1,1,", ",,1,x,1,", DatasetError, "row 3, column biopsy"),
        (",R,AT,,", ",R,AT,old,", DatasetError, "row 3, column age"),
        (",1,0,1,B,", ",1,7,1,B,", DatasetError, "row 3, column BIRADS"),
        (",1,B,", ",1,E,", ManifestError, "row 3, column density"),
        (",R,AT", ",R,ZZ", ManifestError, "row 3, column view"),
        (",R,AT", ",B,AT", ManifestError, "row 3, column laterality"),
        (",R,AT,,", ",R,AT,200,", ManifestError, "row 3, column age"),
    ],
)
def test_cells_not_as_published_are_named(
    tmp_path: Path, old: str, new: str, error: type[Exception], message: str
) -> None:
    assert ROWS[2].count(old) == 1
    # The second image is missing: the error still counts rows of the table.
    official(tmp_path, [*ROWS[:2], ROWS[2].replace(old, new)], IMAGES[:1])
    with pytest.raises(error, match=message):
        read_rsna(tmp_path)


def test_duplicate_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="row 2, column row_id"):
        read_rsna(official(tmp_path, [ROWS[0], ROWS[0]], IMAGES))


def test_damaged_tables(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"neither train\.csv nor labels\.csv"):
        read_rsna(tmp_path)
    for content in ("", HEAD, "file,patient_id\n1,2", 'a,b\n"1'):
        (tmp_path / "train.csv").write_text(content)
        with pytest.raises(DatasetError, match=r"train\.csv: (can't be read|has no)"):
            read_rsna(tmp_path)


def test_plain_table(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,patient_id,image_id,cancer\n5_1.jpg,5,1,0\n5_2.jpg,5,2,1\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "5_2.jpg").write_bytes(b"not opened")
    reading = read_rsna(tmp_path)
    assert reading.frame["row_id"].tolist() == ["5_2"]
    assert reading.frame["native_pathology"].tolist() == ["cancer 1"]
    assert reading.left_out == (("5_1", "the image file is missing"),)
    (tmp_path / "labels.csv").write_text("file,patient_id,image_id,cancer\n../5_2.jpg,5,1,0\n")
    with pytest.raises(DatasetError, match="row 1, column file"):
        read_rsna(tmp_path)


def test_real_subset(rsna_subset: Path) -> None:
    raw = pd.read_csv(rsna_subset / "labels.csv")
    reading = read_dataset("rsna", rsna_subset)
    assert len(reading.frame) == 2032
    assert reading.left_out == ()
    assert reading.frame["patient_id"].nunique() == 575
    assert reading.frame["pathology"].eq("malignant").tolist() == raw["cancer"].eq(1).tolist()
    assert set(reading.frame["pathology"]) == {"malignant", "no cancer"}
    assert reading.frame[["laterality", "view", "density", "age"]].isna().all(axis=None)
    cancers = reading.frame[reading.frame["pathology"] == "malignant"]
    assert cancers["patient_id"].nunique() == 279


def test_a_file_name_that_no_file_has_is_a_missing_image(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(b"not opened")
    table = f"file,patient_id,image_id,cancer\n1.png,1,1,0\n{'x' * 400},2,2,0\n"
    (tmp_path / "labels.csv").write_text(table)
    assert read_rsna(tmp_path).left_out == (("2_2", "the image file is missing"),)
