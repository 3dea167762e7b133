"""The registry of data sets, and the account that a reading gives of itself."""

from pathlib import Path

import pytest

from embedder.datasets import DATASETS, DatasetError, DatasetReading, read_dataset
from embedder.findings import Finding, findings_frame


def test_unknown_data_set_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'ddsm': is unknown; the known ones are mini-mias, cbis-ddsm, rsna, table"):
        read_dataset("ddsm", tmp_path)


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "table"])
def test_every_adapter_refuses_an_empty_or_absent_folder(tmp_path: Path, name: str) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DatasetError):
            read_dataset(name, path)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("path", ["x" * 400, "a\0b"])
def test_a_name_that_no_file_has_is_one_error(tmp_path: Path, name: str, path: str) -> None:
    with pytest.raises(DatasetError, match="can't be opened"):
        read_dataset(name, tmp_path / path)


def test_an_option_that_an_adapter_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'mini-mias': takes no option 'columns'; leave it out: it is for table"):
        read_dataset("mini-mias", tmp_path, columns={"path": "image"})
    with pytest.raises(DatasetError, match=r"'table': takes no option 'colour'; leave it out$"):
        read_dataset("table", tmp_path, colour="red")


def test_summary_counts_rows_women_classes_and_reasons() -> None:
    rows = [
        Finding("1", "/a.png", "finding", "set", "A", 0, 0, 9, 9, pathology="benign"),
        Finding("2", "/a.png", "finding", "set", "A", 0, 0, 9, 9, pathology="malignant"),
        Finding("3", "/b.png", "finding", "set", "B", 0, 0, 9, 9),
        Finding("4", "/b.png", "breast", "set", "B", density="C"),
    ]
    left_out = (*((f"x{number}", "torn") for number in range(5)), ("y", "wet"))
    reading = DatasetReading("set", findings_frame(rows), left_out, ("a note",))
    assert reading.summary().splitlines() == [
        "set: 4 rows of 2 women, 2 images",
        "finding: 3 rows of 2 women, 2 images",
        "  pathology: benign 1, malignant 1, unknown 1",
        "breast: 1 rows of 1 women, 1 images",
        "  density: C 1",
        "left out, torn: 5 (x0, x1, x2, …)",
        "left out, wet: 1 (y)",
        "note: a note",
    ]
    told = reading.to_dict()
    assert (told["rows"], told["women"], told["notes"]) == (4, 2, ["a note"])
    assert told["granularities"]["finding"]["labels"] == {"pathology": {"benign": 1, "malignant": 1}}
    assert told["granularities"]["breast"] == {"rows": 1, "women": 1, "images": 1, "labels": {"density": {"C": 1}}}
    assert [entry["why"] for entry in told["left_out"]] == ["torn"] * 5 + ["wet"]


def test_summary_of_many_classes_stays_short() -> None:
    ages = [f"{kind}" for kind in range(20)]
    rows = [Finding(name, "/a.png", "breast", "set", name, assessment=name) for name in ages]
    reading = DatasetReading("set", findings_frame(rows))
    assert "8 rarer classes 8" in reading.summary()
