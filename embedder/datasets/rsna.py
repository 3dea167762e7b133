"""RSNA 2022: full-field digital mammograms of a screening programme, whole breasts with outcome and no boxes.

Carr C. et al., RSNA Screening Mammography Breast Cancer Detection, Kaggle 2022,
https://www.kaggle.com/competitions/rsna-breast-cancer-detection.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from embedder.datasets.reading import DatasetError, DatasetReading, Progress, is_file
from embedder.findings import typed_columns
from embedder.manifest import validate

NAME = "rsna"
LICENCE = "RSNA 2022 is for research only, by the rules of its competition"

_OFFICIAL_TABLE = "train.csv"
_PLAIN_TABLE = "labels.csv"
_SUFFIXES = (".dcm", ".png")
_ID = r"\d{1,12}"
_GRADE = r"([0-6])(?:\.0)?"
_AGE = r"\d{1,3}(?:\.\d+)?"
_OFFICIAL_COLUMNS = ("laterality", "view", "age", "biopsy", "BIRADS", "density")
_OWN_COLUMNS = ("site_id", "machine_id", "implant", "invasive", "difficult_negative_case")
"""Columns of the official table that a manifest has no place for, kept under their names."""
_OUTCOMES = ("cancer", "biopsy", "invasive")


def read_rsna(path: Path, *, progress: Progress | None = None) -> DatasetReading:
    """Read the RSNA set: `train.csv` and `train_images/PATIENT/IMAGE.dcm` (or .png), or a plain table.

    The plain table, of a subset, is `labels.csv` with the columns file, patient_id, image_id and cancer; its
    files are in `images`. No image is opened.

    Args:
        path: The folder.
        progress: Called with images done and images in all.

    Returns:
        A `breast` row for each image that is there. Pathology is malignant where the table says cancer,
        benign where a biopsy found none, and else `no cancer`.

    Raises:
        DatasetError: The table is missing or not as published (the error names row and column), or no image
            is there.
        ManifestError: A cell holds an unknown term.
    """
    path = Path(path)
    official = (path / _OFFICIAL_TABLE).is_file()
    source = path / (_OFFICIAL_TABLE if official else _PLAIN_TABLE)
    table = _read_table(source, official)
    for name, pattern in (("patient_id", _ID), ("image_id", _ID), ("cancer", "[01]")):
        _check(source, table, name, pattern)
    ids = list(zip(table["patient_id"], table["image_id"], strict=True))
    files: list[list[Path]]
    if official:
        frame = _official(source, table)
        stems = [path / "train_images" / woman / image for woman, image in ids]
        files = [[stem.with_name(stem.name + suffix) for suffix in _SUFFIXES] for stem in stems]
    else:
        frame = pd.DataFrame(index=table.index)
        _check(source, table, "file", r"[^/\\]+")
        files = [[path / "images" / name] for name in table["file"]]
    found = _present(files, progress)
    frame["row_id"] = [f"{woman}_{image}" for woman, image in ids]
    frame["path"] = [str((first if first is not None else options[0]).absolute()) for first, options in found]
    frame["granularity"] = "breast"
    frame["dataset"] = NAME
    frame["patient_id"] = table["patient_id"]
    frame["pathology"] = [_pathology(*cells) for cells in zip(table["cancer"], _biopsies(table), strict=True)]
    frame["native_pathology"] = _native_pathology(table)
    frame = typed_columns(frame)
    # All rows are checked before some are left out, so that an error names the row of the table.
    validate(frame, source)
    there = [first is not None for first, _ in found]
    left_out = tuple(
        (name, "the image file is missing") for name, kept in zip(frame["row_id"], there, strict=True) if not kept
    )
    if not any(there):
        raise DatasetError(path, f"no image of {source.name} is there (such as {frame['path'].iloc[0]})")
    notes = [LICENCE] if official else ["this table tells no side, view, age or density", LICENCE]
    return DatasetReading(NAME, frame[there].reset_index(drop=True), left_out, tuple(notes))


def _read_table(source: Path, official: bool) -> pd.DataFrame:
    if not is_file(source):
        raise DatasetError(
            source.parent,
            f"has neither {_OFFICIAL_TABLE} nor {_PLAIN_TABLE}",
            "name the folder that has the table",
        )
    try:
        table = pd.read_csv(source, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DatasetError(source, f"can't be read as CSV ({reason[0]})") from error
    wanted = ("patient_id", "image_id", "cancer", *(_OFFICIAL_COLUMNS if official else ("file",)))
    lacking = [name for name in wanted if name not in table.columns]
    if lacking:
        raise DatasetError(source, f"has no column {', '.join(lacking)}")
    if table.empty:
        raise DatasetError(source, "has no rows")
    return table.apply(lambda column: column.str.strip())


def _official(source: Path, table: pd.DataFrame) -> pd.DataFrame:
    for name, pattern in (("age", _AGE), ("biopsy", "[01]"), ("BIRADS", _GRADE)):
        _check(source, table, name, f"(?:{pattern})?")
    known = table.mask(table == "")
    frame = known[["laterality", "view", "age", "density"]].copy()
    frame["native_density"] = known["density"]
    frame["assessment"] = known["BIRADS"].str[0]
    for name in _OWN_COLUMNS:
        if name in known:
            numbers = pd.to_numeric(known[name], errors="coerce")
            frame[name] = numbers if numbers.notna().equals(known[name].notna()) else known[name]
    return frame


def _check(source: Path, table: pd.DataFrame, name: str, pattern: str) -> None:
    for position, cell in enumerate(table[name], 1):
        if re.fullmatch(pattern, cell) is None:
            raise DatasetError(source, f"row {position}, column {name}: {cell[:80]!r} is not as published")


def _present(files: list[list[Path]], progress: Progress | None) -> list[tuple[Path | None, list[Path]]]:
    """Find for each image the first of its possible files that exists."""
    found = []
    for done, options in enumerate(files, 1):
        found.append((next((file for file in options if is_file(file)), None), options))
        if progress is not None:
            progress(done, len(files))
    return found


def _biopsies(table: pd.DataFrame) -> Iterable[str]:
    return table["biopsy"] if "biopsy" in table else [""] * len(table)


def _pathology(cancer: str, biopsy: str) -> str:
    if cancer == "1":
        return "malignant"
    return "benign" if biopsy == "1" else "no cancer"


def _native_pathology(table: pd.DataFrame) -> list[str]:
    names = [name for name in _OUTCOMES if name in table]
    return [
        ", ".join(f"{name} {cell}" for name, cell in zip(names, cells, strict=True))
        for cells in table[names].itertuples(index=False)
    ]
