"""Keeping a woman from herself on Milvus: who must not answer a query, found as `index.exclusion` finds her rows."""

import os.path
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from index import QueryError
from index.exclusion import UNKNOWN_WOMAN, naming_note
from index.milvus.address import quote
from index.milvus.filter import dynamic, every, some
from index.milvus.gallery import MilvusGallery
from index.milvus.rows import DATASET, KEY, PATIENT, RECORD, decode_record
from index.milvus.store import Row
from index.records import fold_name


@dataclass(frozen=True)
class BarredWomen:
    """Whose rows must not answer.

    Attributes:
        keys: The women, each as "dataset/patient_id".
        patient: Her id; None where she is unknown.
        dataset: Her data set; None where her id counts in every one.
        notes: What a reader of the answer should know of it.
    """

    keys: tuple[str, ...]
    patient: str | None
    dataset: str | None
    notes: tuple[str, ...] = ()


def check_named(gallery: MilvusGallery, patient: str | None, dataset: str | None) -> None:
    """Refuse what an asker says of the query's woman where it can't keep her from herself.

    Raises:
        QueryError: A name is blank, or no row of the gallery is of the data set.
    """
    for what, name in (("patient", patient), ("data set", dataset)):
        if name is not None and not name.strip():
            raise QueryError(what, f"{name!r} is no name", "leave it out where the name is not known")
    if dataset is not None and not gallery.count(_is(DATASET, dataset)):
        held = ", ".join(_datasets(gallery)) or "none"
        raise QueryError(
            "data set",
            f"no row of the gallery is of {dataset!r}, so nobody of it can be left out",
            f"the data sets there are {held}; without a data set, the woman's id counts in every one",
        )


def bar_woman(gallery: MilvusGallery, key: str | None) -> BarredWomen:
    """Return the woman who is known by her data set and id, see `index.exclusion.exclude_woman`.

    Args:
        gallery: The gallery.
        key: "dataset/patient_id", letter case and white space around each aside; None where she is unknown.

    Raises:
        QueryError: The key is an id without a data set, which would match nobody.
    """
    if key is None:
        return BarredWomen((), None, None, (UNKNOWN_WOMAN,))
    # A data set's name or a woman's may hold a slash itself.
    cuts = [(key[:at], key[at + 1 :]) for at, letter in enumerate(key) if letter == "/"]
    if not cuts:
        raise QueryError("patient", f"{key!r} does not name her data set", "write it as dataset/patient_id")
    hers = some(*(every(_is(DATASET, dataset), _is(PATIENT, patient)) for dataset, patient in cuts))
    found = gallery.meeting(str(hers), [KEY, RECORD])
    dataset, patient = cuts[0]
    for row in found:
        if row[KEY] == key:
            record = decode_record(row[RECORD], gallery.columns)
            dataset, patient = record["dataset"], record["patient_id"]
            break
    keys = sorted({row[KEY] for row in found})
    return BarredWomen(tuple(keys), patient, dataset, naming_note(key, keys))


def bar_image(
    gallery: MilvusGallery, *, path: Path, sop_uid: str | None, patients: Sequence[str], dataset: str | None
) -> BarredWomen:
    """Return the women whom an image shows, by all that is known, see `index.exclusion.exclude_image`.

    Args:
        gallery: The gallery.
        path: The image.
        sop_uid: Its SOP instance UID.
        patients: Her ids as the asker and the file name her, the asker's first.
        dataset: Her data set; None where unknown: her id then counts in every data set.

    Raises:
        QueryError: A name is blank, or no row of the gallery is of the data set.
    """
    for patient in patients or (None,):
        check_named(gallery, patient, dataset)
    places = {str(path), os.path.normpath(path), os.path.realpath(path), os.path.abspath(path)}  # noqa: PTH100
    same = _same_image(gallery, places, sop_uid)
    keys = [row[KEY] for row in same]
    names = list(dict.fromkeys(name.strip() for name in patients))
    notes: list[str] = []
    if len(names) > 1:
        notes.append(f"the query's woman is named {' and '.join(names)}: the findings of both were left out")
    recognised = [decode_record(row[RECORD], gallery.columns) for row in same]
    folded = {fold_name(name) for name in names}
    others = sorted({r["patient_id"] for r in recognised if fold_name(r["patient_id"]) not in folded})
    if names and others:
        notes.append(f"the gallery holds this image as one of {' and '.join(others)}, who was left out too")
    if dataset is not None and names:
        notes += naming_note(dataset, [n for n in _datasets(gallery) if fold_name(n) == fold_name(dataset)])
    for name in names:
        hers = every(True if dataset is None else _is(DATASET, dataset), _is(PATIENT, name))
        found = gallery.meeting(str(hers), [KEY, RECORD])
        keys += [row[KEY] for row in found]
        ids = {decode_record(row[RECORD], gallery.columns)["patient_id"] for row in found}
        notes += naming_note(name, ids, dataset)
    barred = tuple(sorted(set(keys)))
    if names:
        return BarredWomen(barred, names[0], dataset, tuple(notes))
    if recognised:
        notes.append("the query's woman is known from the gallery, which holds this image")
        return BarredWomen(barred, recognised[0]["patient_id"], recognised[0]["dataset"], tuple(notes))
    return BarredWomen(barred, None, None, (UNKNOWN_WOMAN,))


def bar_row(gallery: MilvusGallery, key: str, record: dict[str, object]) -> BarredWomen:
    """Return the women whom a row shows, whoever its image is held as, see `index.exclusion.exclude_row`.

    Args:
        gallery: The gallery.
        key: The row's woman as "dataset/patient_id".
        record: All that is known of the row.
    """
    path, sop_uid = record.get("path"), record.get("sop_uid")
    places = {str(path), os.path.normpath(str(path))} if path else set()
    keys = {key, *(row[KEY] for row in _same_image(gallery, places, str(sop_uid) if sop_uid else None))}
    others = sorted(keys - {key})
    notes = [f"the gallery holds this image as one of {' and '.join(others)} too, who was left out"] if others else []
    return BarredWomen(tuple(sorted(keys)), str(record["patient_id"]), str(record["dataset"]), tuple(notes))


def _same_image(gallery: MilvusGallery, places: set[str], sop_uid: str | None) -> list[Row]:
    columns = gallery.by_name
    wanted = [("path", place) for place in sorted(places)] + ([("sop_uid", sop_uid)] if sop_uid else [])
    held = [(columns[name], text) for name, text in wanted if name in columns and columns[name].kind == "text"]
    condition = some(*(f"{dynamic(column)} == {quote(text)}" for column, text in held if text))
    return [] if condition is False else gallery.meeting(str(condition), [KEY, RECORD])


def _datasets(gallery: MilvusGallery) -> list[str]:
    """Return the names of the data sets, sorted."""
    column = gallery.by_name.get("dataset")
    return [] if column is None else sorted(gallery.distinct(column))


def _is(field: str, name: str) -> str:
    return f"{field} == {quote(fold_name(name))}"
