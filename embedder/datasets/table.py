"""Any table of the user's own: CSV or Parquet with at least an image and a woman in each row."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from embedder.datasets.reading import DatasetError, DatasetReading, Progress, is_file
from embedder.findings import BOX_COLUMNS, COLUMNS, cell_text
from embedder.manifest import ManifestError, manifest_from_raw, read_raw_table

NAME = "table"


def read_table(
    path: Path,
    *,
    progress: Progress | None = None,
    columns: Mapping[str, str] | None = None,
    dataset: str | None = None,
) -> DatasetReading:
    """Read a table whose columns are those of a manifest, or are said to be.

    Args:
        path: A .csv or .parquet file. Image paths are relative to its folder.
        progress: Called with rows done and rows in all.
        columns: For columns of a manifest, the names that the table gives them: `{"path": "image"}`. Columns
            that have a manifest's name already need no mention; further ones are kept as they are.
        dataset: Name of the data set; by default the table's own column, else the file's name without suffix.

    Returns:
        One row for each row whose image is there. A row with a box is a `finding`, one without is a `breast`,
        unless its column `granularity` says otherwise. Rows without a `row_id` are named by their image.

    Raises:
        DatasetError: The file can't be read, lacks a column, or none of its images is there.
        ManifestError: A cell is wrong; the error names row and column.
    """
    path = Path(path)
    try:
        raw = read_raw_table(path)
    except ManifestError as error:
        raise DatasetError(path, error.cause, error.remedy) from error
    raw = _renamed(path, raw, columns or {})
    raw["dataset"] = dataset if dataset is not None else _filled(raw, "dataset", [path.stem] * len(raw))
    raw["granularity"] = _filled(raw, "granularity", _granularities(raw))
    raw["row_id"] = _filled(raw, "row_id", _row_ids(raw))
    # All rows are checked before some are left out, so that an error names the row of the table.
    frame = manifest_from_raw(raw, path)
    there = []
    for done, name in enumerate(frame["path"], 1):
        there.append(is_file(Path(name)))
        if progress is not None:
            progress(done, len(frame))
    if not any(there):
        cause = f"none of its images is there (such as {frame['path'].iloc[0]})"
        raise DatasetError(path, cause, "write image paths relative to the table's folder, or absolute ones")
    left_out = tuple(
        (name, "the image file is missing") for name, kept in zip(frame["row_id"], there, strict=True) if not kept
    )
    return DatasetReading(dataset or NAME, frame[there].reset_index(drop=True), left_out)


def _renamed(path: Path, raw: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    for name, own in columns.items():
        if name not in COLUMNS:
            raise DatasetError(f"column {name!r}", "is none of a manifest", f"those are {', '.join(COLUMNS)}")
        if own not in raw.columns:
            raise DatasetError(path, f"has no column {own!r}", f"its columns are {', '.join(raw.columns)}")
        if name != own and name in raw.columns and name not in columns.values():
            raise DatasetError(path, f"has a column {name!r} already: {own!r} can't be that too")
    if len(set(columns.values())) < len(columns):
        raise DatasetError(path, "one of its columns is to be two columns of the manifest")
    raw = raw.rename(columns={own: name for name, own in columns.items()})
    for name in ("path", "patient_id"):
        if name not in raw.columns:
            remedy = f"say which of its columns that is: {', '.join(raw.columns)}"
            raise DatasetError(path, f"has no column {name!r}", remedy)
    return raw


def _filled(raw: pd.DataFrame, name: str, values: list[str]) -> pd.Series:
    filler = pd.Series(values, index=raw.index, dtype=object)
    return raw[name].astype(object).where(raw[name].notna(), filler) if name in raw else filler


def _granularities(raw: pd.DataFrame) -> list[str]:
    boxed = raw.reindex(columns=list(BOX_COLUMNS)).notna().any(axis=1)
    return ["finding" if given else "breast" for given in boxed]


def _row_ids(raw: pd.DataFrame) -> list[str]:
    """Name rows by their image: a breast `stem`, its findings `stem-1`, `stem-2` …"""
    taken = set(raw["row_id"].dropna().map(cell_text)) if "row_id" in raw else set()
    counts: Counter[str] = Counter()
    names = []
    for path, granularity in zip(raw["path"], raw["granularity"], strict=True):
        stem = (Path(path).stem if isinstance(path, str) else "") or "row"
        name = stem
        while name in taken or (granularity == "finding" and name == stem):
            counts[stem] += 1
            name = f"{stem}-{counts[stem]}"
        taken.add(name)
        names.append(name)
    return names
