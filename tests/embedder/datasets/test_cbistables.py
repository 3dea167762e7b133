"""The case descriptions of CBIS-DDSM: the real ones, and damaged ones."""

from pathlib import Path

import pandas as pd
import pytest

from embedder.datasets import DatasetError
from embedder.datasets.cbistables import TABLES, read_case_tables
from embedder.findings import TERM_SEPARATOR, TERMS

MASS_HEAD = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,"
    "mass margins,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path\n"
)
MASS_ROW = (
    'P_00001,3,LEFT,CC,1,mass,OVAL,SPICULATED,4,BENIGN_WITHOUT_CALLBACK,4,a/b/c/0.dcm,d/e/f/0.dcm,"g/h/i/1.dcm\n"\n'
)
TRAIN = TABLES["mass", "train"]


@pytest.fixture(scope="module")
def real(cbis_tables: Path) -> pd.DataFrame:
    return read_case_tables(cbis_tables)


def raw_tables(folder: Path) -> pd.DataFrame:
    parts = []
    for (kind, split), name in TABLES.items():
        part = pd.read_csv(folder / name).rename(columns={"breast density": "breast_density"})
        parts.append(part.assign(kind=kind, official=split))
    return pd.concat(parts, ignore_index=True)


def test_real_rows_and_women(real: pd.DataFrame, cbis_tables: Path) -> None:
    raw = raw_tables(cbis_tables)
    assert len(real) == len(raw) == 3568
    assert real["patient_id"].nunique() == 1566
    assert real["case"].nunique() == raw["image file path"].nunique() == 3103
    assert real["roi"].is_unique


def test_real_women_are_on_one_side(real: pd.DataFrame, cbis_tables: Path) -> None:
    raw = raw_tables(cbis_tables)
    trained = set(raw.loc[raw["official"] == "train", "patient_id"])
    tested = set(raw.loc[raw["official"] == "test", "patient_id"])
    assert len(trained & tested) == 31
    assert real.groupby("patient_id")["split"].nunique().eq(1).all()
    assert set(real.loc[real["split"] == "test", "patient_id"]) == tested
    moved = real[(real["official_split"] == "train") & (real["split"] == "test")]
    assert set(moved["patient_id"]) == trained & tested
    assert len(moved) == raw[(raw["official"] == "train") & raw["patient_id"].isin(tested)].shape[0] == 83


def test_real_paths_have_no_newlines_and_name_the_folders(real: pd.DataFrame) -> None:
    for name in ("image_file", "crop_file", "mask_file"):
        assert not real[name].str.contains(r"\s").any()
        assert real[name].str.endswith(".dcm").all()
    assert (real["image_file"].str.split("/").str[0] == real["case"]).all()
    assert (real["mask_file"].str.split("/").str[0] == real["roi"]).all()
    assert (real["crop_file"].str.split("/").str[0] == real["roi"]).all()


def test_real_labels_are_known_terms_and_nothing_is_lost(real: pd.DataFrame) -> None:
    for name, terms in TERMS.items():
        for label in real[name].dropna().unique():
            assert set(label.split(TERM_SEPARATOR)) <= set(terms), (name, label)
    for name in ("shape", "margin", "calcification_type", "calcification_distribution"):
        native = real[f"native_{name}"]
        assert (native.isna() == real[name].isna()).all()
        words = native.dropna().map(lambda text: len(set(text.replace("CENTERED", "CENTER").split("-"))))
        assert (words == real.loc[words.index, name].str.count(r" \+ ") + 1).all()
    assert real["lesion_type"].value_counts().to_dict() == {
        "calcification": 1872,
        "mass": 1543,
        "architectural distortion": 103,
        "asymmetry": 50,
    }
    assert real["pathology"].value_counts().to_dict() == {"benign": 2111, "malignant": 1457}
    assert real["density"].isna().sum() == 2
    assert real["subtlety"].isna().sum() == 2
    # The same signs in another order are the same class.
    orders = real.loc[real["native_calcification_type"].isin(["PUNCTATE-AMORPHOUS", "PUNCTATE-ROUND_AND_REGULAR"])]
    assert set(orders["calcification_type"]) == {"punctate + amorphous", "round + punctate"}


def test_one_table_will_do(tmp_path: Path) -> None:
    (tmp_path / TRAIN).write_text(MASS_HEAD + MASS_ROW)
    row = read_case_tables(tmp_path).iloc[0]
    assert row["pathology"] == "benign"
    assert row["native_pathology"] == "BENIGN_WITHOUT_CALLBACK"
    assert (row["shape"], row["margin"], row["density"]) == ("oval", "spiculated", "C")
    assert row["calcification_type"] is None
    assert row["mask_file"] == "g/h/i/1.dcm"
    assert row["roi"] == "Mass-Training_P_00001_LEFT_CC_1"


@pytest.mark.parametrize(
    ("old", "new", "column"),
    [
        *(
            ("OVAL", "BANANA", "mass shape"),
            ("SPICULATED", "OVAL-", "mass margins"),
            (",3,", ",7,", "breast density"),
        ),
        *(
            (",4,BENIGN", ",6,BENIGN", "assessment"),
            ("LEFT", "left", "left or right breast"),
            ("CC", "ML", "image view"),
        ),
        *(
            ("P_00001", "../../P", "patient_id"),
            ("CC,1,", "CC,1/..,", "abnormality id"),
            ("4,a", "9,a", "subtlety"),
        ),
        ("BENIGN_WITHOUT_CALLBACK", "UNPROVEN", "pathology"),
    ],
)
def test_cells_not_as_published_are_named(tmp_path: Path, old: str, new: str, column: str) -> None:
    assert MASS_ROW.count(old) == 1
    other = MASS_ROW.replace("P_00001", "P_00002")
    (tmp_path / TRAIN).write_text(MASS_HEAD + other + MASS_ROW.replace(old, new))
    with pytest.raises(DatasetError, match=f"train_set.csv: row 2, column '{column}'"):
        read_case_tables(tmp_path)


def test_damaged_tables(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none of the case-description tables"):
        read_case_tables(tmp_path)
    for content in (b"", b"\xff\xfe\x00", b'a,b\n"1', b"a,b\n1,2,3\n1\n1,2,3,4,5"):
        (tmp_path / TRAIN).write_bytes(content)
        with pytest.raises(DatasetError, match="train_set"):
            read_case_tables(tmp_path)
    (tmp_path / TRAIN).write_text(MASS_HEAD.replace("pathology", "outcome") + MASS_ROW)
    with pytest.raises(DatasetError, match="has no column 'pathology'"):
        read_case_tables(tmp_path)
    (tmp_path / TRAIN).write_text(MASS_HEAD + MASS_ROW + MASS_ROW)
    with pytest.raises(DatasetError, match="describe Mass-Training_P_00001_LEFT_CC_1 twice"):
        read_case_tables(tmp_path)
    (tmp_path / TRAIN).write_text(MASS_HEAD)
    with pytest.raises(DatasetError, match="no rows"):
        read_case_tables(tmp_path)
