"""CBIS-DDSM: its folder with tables, films and masks, or one table of its kind."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from embedder.datasets.cbisddsm import Folders, find_case_folders, read_cbis_ddsm
from embedder.datasets.cbismasks import read_mask
from embedder.datasets.cbistables import TABLES
from embedder.findings import BOX_COLUMNS
from errors import MammoseekError
from exchange import ExchangeError
from exchange.formats.marks import Mark, Parsed, ReadOptions, RowError, text_of
from exchange.formats.tables import laterality_of, table_rows
from exchange.images import ImageCatalogue, ImageFacts

DATASET = "cbis-ddsm"
COLUMNS = ("patient_id", "left_or_right_breast", "image_view", "image_file_path", "roi_mask_file_path")
"""Columns by which a table is known."""

_KEPT = ("laterality", "view", "spacing_mm")


def is_folder(path: Path) -> bool:
    """Tell whether a folder holds one of CBIS-DDSM's tables."""
    return any((path / name).is_file() for name in TABLES.values())


def read_cbis_folder(path: Path, options: ReadOptions) -> Parsed:
    """Read the data set as it is downloaded, by `embedder.datasets.cbisddsm`: its findings without scores.

    Raises:
        DatasetError: It can't be read.
    """
    reading = read_cbis_ddsm(path)
    parsed = Parsed(path, notes=list(reading.notes))
    for name, reason in reading.left_out:
        parsed.refuse(name, reason)
    findings = reading.frame[reading.frame["granularity"] == "finding"]
    for row in findings.astype("object").where(findings.notna(), None).to_dict("records"):
        parsed.add(
            Mark(
                place=row["row_id"],
                image=row["path"],
                box=tuple(float(row[name]) for name in BOX_COLUMNS),  # type: ignore[arg-type]
                word=row["native_lesion_type"],
                term=row["lesion_type"],
                detection_id=row["row_id"],
                dataset=row["dataset"],
                patient_id=row["patient_id"],
                **{name: row[name] for name in _KEPT},
            )
        )
    return parsed


def read_cbis_table(path: Path, options: ReadOptions, catalogue: ImageCatalogue) -> Parsed:
    """Read one table of the kind of CBIS-DDSM: each row's film is found in the catalogue, its box by its mask.

    A film is found by `image file path`, or as the only image of the folder that it begins with; a mask is looked for
    in the folder that `ROI mask file path` begins with, below `ReadOptions.masks` or the table's folder.

    Raises:
        ExchangeError: It is no such table.
    """
    parsed = Parsed(path)
    folders: Folders | None = None
    for place, cells in table_rows(path, parsed):
        if folders is None:
            lacking = [name for name in COLUMNS if name not in cells]
            if lacking:
                raise ExchangeError(path, f"has no column {', '.join(lacking)}", "give a table of CBIS-DDSM")
            folders = find_case_folders(options.masks or path.parent)
        try:
            parsed.add(_mark(place, cells, folders, catalogue))
        except RowError as error:
            parsed.refuse(place, error)
    return parsed


def _mark(place: str, cells: Mapping[str, str], folders: Folders, catalogue: ImageCatalogue) -> Mark:
    facts = _film(cells["image_file_path"].strip(), catalogue)
    if facts.rows is None or facts.columns is None:
        raise RowError(f"the size of {facts.path} is not known")
    roi = _first_folder(cells["roi_mask_file_path"].strip())
    files = [file for folder in folders.get(roi, []) for file in sorted(folder.rglob("*.dcm"))]
    files = [file for file in files if not file.name.startswith(".")]
    if not files:
        raise RowError(f"there is no folder {roi[:80]!r} with a mask")
    try:
        mask = read_mask(files, (facts.rows, facts.columns))
    except MammoseekError as error:
        raise RowError(f"mask: {error.cause}") from error
    word = text_of(cells.get("abnormality_type"), "abnormality type")
    view = text_of(cells["image_view"], "image view")
    return Mark(
        place=place,
        image=facts.path,
        box=tuple(float(corner) for corner in mask.box),  # type: ignore[arg-type]
        word=word,
        detection_id=text_of(roi, "the lesion's folder"),
        note="the mask was scaled to the size of its image" if mask.scaled else None,
        laterality=laterality_of(cells["left_or_right_breast"]),
        view=view and view.upper(),
        whose=_woman(cells),
    )


def _film(name: str, catalogue: ImageCatalogue) -> ImageFacts:
    try:
        return catalogue.image(name)
    except ExchangeError as error:
        try:
            return catalogue.only_below(_first_folder(name))
        except ExchangeError:
            raise RowError(f"image {error}") from error


def _first_folder(name: str) -> str:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return parts[0] if len(parts) > 1 else ""


def _woman(cells: Mapping[str, str]) -> tuple[str, str] | None:
    woman = text_of(cells["patient_id"], "patient_id")
    return None if woman is None else (DATASET, woman)
