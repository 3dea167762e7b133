"""What a file or folder of detections is, told by its content."""

from collections.abc import Mapping
from pathlib import Path

from pydicom.filereader import read_file_meta_info

from embedder.mammogram import read_header
from errors import MammoseekError
from exchange import ExchangeError
from exchange.formats import cbis, coco, own, vindr, yolo
from exchange.formats.documents import read_document
from exchange.formats.tables import read_header as read_columns
from exchange.imagefolders import list_images

KINDS: Mapping[str, str] = {
    "csv": "a table with one detection a row",
    "json": "mammoseek's JSON",
    "coco-results": "a list of COCO results",
    "coco": "a COCO data set",
    "yolo": "YOLO's text files",
    "vindr": "VinDr-Mammo's finding_annotations.csv",
    "cbis-ddsm": "CBIS-DDSM's folder, or a table of its kind",
    "masks": "images of masks",
    "cad-sr": "a DICOM Mammography CAD report, or a folder of some",
}
"""Kinds of detection files, and what they are."""

MAMMOGRAPHY_CAD_SR = "1.2.840.10008.5.1.4.1.1.88.50"

_HEAD = 65_536


def guess_kind(path: Path) -> tuple[str, str]:
    """Return one of KINDS, and by what it was told.

    Raises:
        ExchangeError: It is none of them, or can't be read.
    """
    try:
        if path.is_dir():
            return _folder_kind(path)
        if not path.is_file():
            cause = "is no plain file" if path.exists() else "there is no such file or folder"
            raise ExchangeError(path, cause, "check its name")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ExchangeError(path, f"can't be opened ({reason})", "check its name and permissions") from error
    return _file_kind(path, head)


def _folder_kind(path: Path) -> tuple[str, str]:
    if cbis.is_folder(path):
        return "cbis-ddsm", "it holds a table of CBIS-DDSM"
    if yolo.label_files(path):
        return "yolo", "it is a folder of .txt files"
    first = next(list_images(path.resolve()), None)
    if first is not None and is_cad_report(Path(first[0])):
        return "cad-sr", "it is a folder of CAD reports"
    if first is not None:
        return "masks", "it is a folder of images"
    raise ExchangeError(
        path, "holds no label files, masks or tables", f"name a file, or say its kind: {', '.join(KINDS)}"
    )


def _file_kind(path: Path, head: bytes) -> tuple[str, str]:
    if head[128:132] == b"DICM":
        if is_cad_report(path):
            return "cad-sr", "its SOP class is Mammography CAD SR"
        raise ExchangeError(path, "is a DICOM file and no CAD report", "of a mask say the kind, masks")
    if _is_picture(path, head):
        return "masks", "it is an image"
    text = head.decode("utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        if path.suffix.lower() == ".txt":
            return "yolo", "it is an empty .txt file: an image without detections"
        raise ExchangeError(path, "is empty", "write it again")
    if lines[0].lstrip()[0] in "[{":
        return _document_kind(path)
    if path.suffix.lower() == ".txt" and yolo.is_label_line(lines[0]):
        return "yolo", "its first line is a class and numbers"
    names = read_columns(path, lines[0]).names
    if set(vindr.COLUMNS) <= set(names):
        return "vindr", "its columns are those of VinDr-Mammo"
    if set(cbis.COLUMNS) <= set(names):
        return "cbis-ddsm", "its columns are those of CBIS-DDSM"
    return "csv", "its first line names columns"


def _document_kind(path: Path) -> tuple[str, str]:
    document = read_document(path)
    if own.is_own(document):
        return "json", "it says so"
    if coco.is_dataset(document):
        return "coco", "it has images and annotations"
    if coco.is_results(document):
        return "coco-results", "it is a list of objects with image_id"
    if isinstance(document, dict) and "images" in document:
        raise ExchangeError(path, "is a COCO data set without annotations", "name the file of results instead")
    raise ExchangeError(path, "is JSON, but neither COCO's nor mammoseek's", "convert it to COCO results")


def is_cad_report(path: Path) -> bool:
    """Tell whether a file is a DICOM Mammography CAD SR, by its meta information."""
    try:
        return str(read_file_meta_info(path).get("MediaStorageSOPClassUID")) == MAMMOGRAPHY_CAD_SR
    except Exception:  # pydicom raises whatever a damaged file leads it to
        return False


def _is_picture(path: Path, head: bytes) -> bool:
    if head[:1] not in (b"\x89", b"\xff", b"P", b"I", b"M"):
        return False
    try:
        return bool(read_header(path))
    except MammoseekError as error:
        return "one bit a pixel" in error.cause  # of a mask that is no fault
