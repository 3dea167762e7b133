"""CBIS-DDSM: digitised films with expert masks of 1,566 women, from The Cancer Imaging Archive.

Lee R.S. et al., A curated mammography data set for use in computer-aided detection and diagnosis research,
Scientific Data 4:170177, 2017. Data: https://doi.org/10.7937/K9/TCIA.2016.7O02S9CY.
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from embedder.datasets.cbismasks import Mask, read_mask
from embedder.datasets.cbistables import TABLES, read_case_tables
from embedder.datasets.reading import DatasetError, DatasetReading, Progress, is_file
from embedder.findings import COLUMNS, typed_columns
from embedder.mammogram import Header, read_header
from errors import MammoseekError

NAME = "cbis-ddsm"
LICENCE = "CBIS-DDSM is under CC BY 3.0: name Lee et al. 2017 (doi 10.7937/K9/TCIA.2016.7O02S9CY)"

_FOLDER = re.compile(r"(Mass|Calc)-(Training|Test)_P_\d{5}_(LEFT|RIGHT)_(CC|MLO)(_\d{1,2})?")
_DEEPEST = 4  # levels down to the case folders: manifest-…/CBIS-DDSM/CASE, and two for the user's own
_READERS = 4
_LESION_LABELS = (
    *(
        "lesion_type",
        "shape",
        "margin",
        "calcification_type",
        "calcification_distribution",
        "assessment",
        "subtlety",
    ),
    *("native_lesion_type", "native_pathology", "native_shape", "native_margin"),
    *("native_calcification_type", "native_calcification_distribution"),
)
_NATIVE = tuple(name for name in _LESION_LABELS if name.startswith("native_") and name not in COLUMNS)

Folders = dict[str, list[Path]]


@dataclass(eq=False)
class _Case:
    """What was read of one image and its lesions."""

    image: Path | None = None
    header: Header | None = None
    masks: dict[str, Mask] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def read_cbis_ddsm(path: Path, *, progress: Progress | None = None) -> DatasetReading:
    """Read CBIS-DDSM as it is downloaded: four tables, and a folder of DICOM files for each image and lesion.

    Both ways of naming files are understood: that of the tables (`CASE/study UID/series UID/000000.dcm`), and
    the NBIA Data Retriever's (`CASE/07-20-2016-DDSM-30688/1.000000-full mammogram images-21505/1-1.dcm`).

    Args:
        path: The folder with the tables; the case folders are in it or up to three folders below.
        progress: Called with images done and images in all.

    Returns:
        A `finding` row for each row of the tables whose image and mask can be read, boxed by the mask; a
        `breast` row for each view of a breast, malignant where any of its lesions is, with the other labels
        on which its lesions agree.

    Raises:
        DatasetError: The tables are missing or garbled, or no image is there.
    """
    path = Path(path)
    table = read_case_tables(path)
    folders = find_case_folders(path)
    if not folders:
        raise DatasetError(
            path,
            "has the tables but no folder of images (such as CBIS-DDSM/Mass-Training_P_00001_LEFT_CC)",
            "download the images there with the NBIA Data Retriever of The Cancer Imaging Archive",
        )
    cases = _read_cases(table, folders, progress)
    rows = [*_finding_rows(table, cases), *_breast_rows(table, cases)]
    left_out = [entry for case in cases.values() for entry in case.left_out]
    if not rows:
        raise DatasetError(path, f"no image can be read (of {left_out[0][0]}: {left_out[0][1]})", "download again")
    frame = typed_columns(pd.DataFrame(rows, dtype=object))
    return DatasetReading(NAME, frame, tuple(left_out), (*_notes(path, table, cases), LICENCE))


def find_case_folders(path: Path) -> Folders:
    """Return the folders of images and lesions by name; several, where they were downloaded in parts."""
    found: Folders = {}
    for folder, below, _ in os.walk(path, followlinks=True):
        deeper = []
        for name in sorted(below):
            if _FOLDER.fullmatch(name):
                place = (Path(folder) / name).resolve()
                if place not in found.setdefault(name, []):
                    found[name].append(place)
            elif not name.startswith("."):
                deeper.append(name)
        below[:] = deeper if len(Path(folder).relative_to(path).parts) < _DEEPEST - 1 else []
    return found


def _read_cases(table: pd.DataFrame, folders: Folders, progress: Progress | None) -> dict[str, _Case]:
    groups = {str(name): rows for name, rows in table.groupby("case", sort=False)}
    cases = {}
    # Decoding masks leaves the interpreter free: threads are enough.
    with ThreadPoolExecutor(_READERS) as pool:
        results = pool.map(lambda rows: _read_case(rows, folders), groups.values())
        for done, (name, case) in enumerate(zip(groups, results, strict=True), 1):
            cases[name] = case
            if progress is not None:
                progress(done, len(groups))
    return cases


def _read_case(rows: pd.DataFrame, folders: Folders) -> _Case:
    case = _Case()
    name = rows["case"].iloc[0]
    try:
        case.image = _find_image(name, folders, rows["image_file"].iloc[0])
        case.header = read_header(case.image)
    except MammoseekError as error:
        case.image = None
        case.left_out += [(what, f"image: {error.cause}") for what in (name, *rows["roi"])]
        return case
    for row in rows.itertuples():
        try:
            files = _dicom_files(str(row.roi), folders)
            case.masks[str(row.roi)] = read_mask(files, (case.header.rows, case.header.columns))
        except MammoseekError as error:
            case.left_out.append((str(row.roi), f"mask: {error.cause}"))
    return case


def _dicom_files(name: str, folders: Folders) -> list[Path]:
    below = [file for folder in folders.get(name, []) for file in sorted(folder.rglob("*.dcm"))]
    # macOS leaves files named ._1-1.dcm beside the real ones.
    files = [file for file in below if not file.name.startswith(".")]
    if not files:
        raise DatasetError(name, "its folder is missing or empty")
    return files


def _find_image(name: str, folders: Folders, listed: str) -> Path:
    below = PurePosixPath(listed).parts[1:]
    files = _dicom_files(name, folders)
    for folder in folders[name]:
        exact = folder.joinpath(*below)
        if ".." not in below and is_file(exact):
            return exact.resolve()
    if len(files) > 1:
        # The table names the series by its UID; two files of one series are two copies.
        files = [file for file in files if len(below) == 3 and read_header(file).series_uid == below[1]]
    if not files:
        cause = "its folder has several images, and none is of the series that the table names"
        raise DatasetError(name, cause)
    return files[0].resolve()


def _common(row: Any, case: _Case) -> dict[str, Any]:
    assert case.header is not None
    return {
        "path": str(case.image),
        "dataset": NAME,
        "patient_id": row.patient_id,
        "image_rows": case.header.rows,
        "image_columns": case.header.columns,
        "spacing_mm": case.header.spacing_mm,
        "laterality": row.laterality,
        "view": row.view,
        "density": row.density,
        "native_density": row.native_density,
        "age": case.header.age,
        "split": row.split,
    }


def _finding_rows(table: pd.DataFrame, cases: dict[str, _Case]) -> Iterator[dict[str, Any]]:
    for row in table.itertuples():
        case = cases[str(row.case)]
        mask = case.masks.get(str(row.roi))
        if mask is None:
            continue
        labels = {name: getattr(row, name) for name in ("pathology", *_LESION_LABELS)}
        corners = {name: getattr(mask.box, name) for name in ("x0", "y0", "x1", "y1")}
        yield {"row_id": row.roi, "granularity": "finding", **_common(row, case), **corners, **labels}


def _breast_rows(table: pd.DataFrame, cases: dict[str, _Case]) -> Iterator[dict[str, Any]]:
    # A film with masses and calcifications was published twice, as two cases: it is one breast image.
    for (woman, laterality, view), lesions in table.groupby(["patient_id", "laterality", "view"], sort=False):
        row = next((row for row in lesions.itertuples() if cases[str(row.case)].image is not None), None)
        if row is None:
            continue
        labels = {name: _agreed(lesions[name]) for name in _LESION_LABELS}
        labels["pathology"] = "malignant" if (lesions["pathology"] == "malignant").any() else "benign"
        name = f"{woman}_{laterality}_{view}"
        yield {"row_id": name, "granularity": "breast", **_common(row, cases[str(row.case)]), **labels}


def _agreed(labels: pd.Series) -> Any:
    """Return the label that all lesions have; None where they differ or one is unknown."""
    return labels.iloc[0] if len(set(labels)) == 1 else None


def _notes(path: Path, table: pd.DataFrame, cases: dict[str, _Case]) -> Iterator[str]:
    lacking = [name for name in TABLES.values() if not (path / name).is_file()]
    if lacking:
        yield f"tables that are not here: {', '.join(lacking)}"
    moved = table[(table["official_split"] == "train") & (table["split"] == "test")]
    if not moved.empty:
        women = sorted(set(moved["patient_id"]))
        yield (
            f"{len(women)} women are in training and test tables: their {len(moved)} training rows moved to "
            f"the test side, so that the official test set stays whole ({', '.join(women)})"
        )
    scaled = [name for case in cases.values() for name, mask in case.masks.items() if mask.scaled]
    if scaled:
        yield f"{len(scaled)} masks were scaled to the size of their image ({', '.join(scaled[:5])} …)"
    kinds = table.groupby(["patient_id", "laterality", "view"])["kind"].nunique()
    twice = int((kinds > 1).sum())
    if twice:
        yield f"{twice} films are published as a mass case and as a calcification case: one breast row each"
