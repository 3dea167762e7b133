"""Keeping a woman from herself: which rows of a gallery must not answer her query."""

import os.path
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from index import QueryError
from index.gallery import Gallery
from index.records import fold_name

Mask = npt.NDArray[np.bool_]

UNKNOWN_WOMAN = "the query's woman is not known, so her own findings may be among the neighbours; name her by --patient"


@dataclass(frozen=True, eq=False)
class Exclusion:
    """Rows that show the query's woman.

    Attributes:
        rows: bool (n,).
        patient: Her id; None where she is unknown.
        dataset: Her data set; None where her id counts in every one.
        notes: What a reader of the answer should know of it.
    """

    rows: Mask
    patient: str | None
    dataset: str | None
    notes: tuple[str, ...] = ()


def check_named(gallery: Gallery, patient: str | None, dataset: str | None) -> None:
    """Refuse what an asker says of the query's woman where it can't keep her from herself.

    Args:
        gallery: The gallery.
        patient: Her id; None where the asker says none.
        dataset: Her data set; None where the asker says none.

    Raises:
        QueryError: A name is blank, or no row of the gallery is of the data set.
    """
    for what, name in (("patient", patient), ("data set", dataset)):
        if name is not None and not name.strip():
            raise QueryError(what, f"{name!r} is no name", "leave it out where the name is not known")
    if dataset is not None and not _of_dataset(gallery, dataset).any():
        held = ", ".join(sorted(set(gallery.records["dataset"]))) or "none"
        raise QueryError(
            "data set",
            f"no row of the gallery is of {dataset!r}, so nobody of it can be left out",
            f"the data sets there are {held}; without a data set, the woman's id counts in every one",
        )


def exclude_woman(gallery: Gallery, key: str | None) -> Exclusion:
    """Return the rows of a woman who is known by her data set and id.

    Args:
        gallery: The gallery.
        key: "dataset/patient_id", letter case and white space around each aside; None where she is unknown.

    Raises:
        QueryError: The key is an id without a data set, which would match nobody.
    """
    if key is None:
        return Exclusion(np.zeros(len(gallery), np.bool_), None, None, (UNKNOWN_WOMAN,))
    dataset, slash, patient = key.partition("/")
    rows: Mask = gallery.folded_women == f"{fold_name(dataset)}/{fold_name(patient)}"
    exact: Mask = gallery.patient_keys == key
    if exact.any():
        first = gallery.record(int(np.argmax(exact)))
        dataset, patient = first["dataset"], first["patient_id"]
    elif not slash:
        raise QueryError("patient", f"{key!r} does not name her data set", "write it as dataset/patient_id")
    return Exclusion(rows | exact, patient, dataset, _naming_note(key, gallery.patient_keys[rows | exact]))


def exclude_image(
    gallery: Gallery, *, path: Path, sop_uid: str | None, patients: Sequence[str], dataset: str | None
) -> Exclusion:
    """Return the rows of the woman whom an image shows, by all that is known of her.

    A name counts whatever its letter case and the white space around it: a slip must not let her meet herself.

    Args:
        gallery: The gallery.
        path: The image. If it is in the gallery, the gallery knows whose it is.
        sop_uid: Its SOP instance UID.
        patients: Her ids as the asker and the file name her, the asker's first.
        dataset: Her data set; None where unknown: her id then counts in every data set, to be on the safe
            side.

    Raises:
        QueryError: A name is blank, or no row of the gallery is of the data set.
    """
    for patient in patients or (None,):
        check_named(gallery, patient, dataset)
    # Links are followed: an image that is reached by another way is the same image.
    places = {str(path), os.path.normpath(path), os.path.realpath(path), os.path.abspath(path)}  # noqa: PTH100
    same = _same_image(gallery, places, sop_uid)
    rows = _of_same_women(gallery, same)
    names = list(dict.fromkeys(name.strip() for name in patients))
    notes: list[str] = []
    if len(names) > 1:
        notes.append(f"the query's woman is named {' and '.join(names)}: the findings of both were left out")
    recognised = [gallery.record(int(i)) for i in np.flatnonzero(same)]
    folded = {fold_name(name) for name in names}
    others = sorted({r["patient_id"] for r in recognised if fold_name(r["patient_id"]) not in folded})
    if names and others:
        notes.append(f"the gallery holds this image as one of {' and '.join(others)}, who was left out too")
    own = np.ones(len(gallery), np.bool_)
    if dataset is not None:
        own = _of_dataset(gallery, dataset)
        if names:
            notes += _naming_note(dataset, gallery.records["dataset"].to_numpy(dtype=object)[own])
    ids = gallery.records["patient_id"].to_numpy(dtype=object)
    folded_ids = np.array([fold_name(patient) for patient in ids], dtype=object)
    for name in names:
        hers = own & (folded_ids == fold_name(name))
        rows = rows | hers
        notes += _naming_note(name, ids[hers], dataset)
    if names:
        return Exclusion(rows, names[0], dataset, tuple(notes))
    if recognised:
        notes.append("the query's woman is known from the gallery, which holds this image")
        return Exclusion(rows, recognised[0]["patient_id"], recognised[0]["dataset"], tuple(notes))
    return Exclusion(rows, None, None, (UNKNOWN_WOMAN,))


def exclude_row(gallery: Gallery, row_id: str) -> Exclusion:
    """Return the rows of the woman whom a row of the gallery shows.

    Its image may be there under another woman's or data set's name as well: whoever it is held as is left out.

    Args:
        gallery: The gallery.
        row_id: The row.

    Raises:
        QueryError: There is no such row.
    """
    position = gallery.position(row_id)
    record = gallery.record(position)
    path = record.get("path")
    # Only what the gallery says counts, and nothing of this machine's files: the answer is the same everywhere.
    same = _same_image(gallery, {path, os.path.normpath(path)} if path else set(), record.get("sop_uid"))
    same[position] = True
    others = sorted(set(gallery.patient_keys[same]) - {gallery.patient_keys[position]})
    notes = [f"the gallery holds this image as one of {' and '.join(others)} too, who was left out"] if others else []
    return Exclusion(_of_same_women(gallery, same), record["patient_id"], record["dataset"], tuple(notes))


def _same_image(gallery: Gallery, places: set[str], sop_uid: str | None) -> Mask:
    same = np.zeros(len(gallery), np.bool_)
    records = gallery.records
    if places and "path" in records.columns:
        same |= np.array([p in places for p in records["path"].to_numpy(dtype=object)], np.bool_)
    if sop_uid and "sop_uid" in records.columns:
        same |= (records["sop_uid"] == sop_uid).fillna(False).to_numpy(dtype=np.bool_)
    return same


def _of_same_women(gallery: Gallery, rows: Mask) -> Mask:
    """Return all rows of the women of some rows, and those rows."""
    return rows | np.isin(gallery.patient_keys, np.unique(gallery.patient_keys[rows]))


def _of_dataset(gallery: Gallery, dataset: str) -> Mask:
    return np.asarray(gallery.folded_datasets == fold_name(dataset), np.bool_)


def _naming_note(name: str, found: Iterable[str], dataset: str | None = None) -> tuple[str, ...]:
    """Return what to say of a name that no row has, or only in another spelling."""
    spellings = sorted(set(found) - {name})
    if spellings:
        alike = " and ".join(map(repr, spellings))
        return (f"{name!r} was taken for {alike} too: only letter case or white space around it differs",)
    if not len(set(found)):
        place = f" in the data set {dataset}" if dataset else ""
        return (f"the gallery has no row of {name}{place}, so nothing was left out for that name",)
    return ()
