"""Keeping a woman from herself: which rows of a gallery must not answer her query."""

import os.path
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from index import QueryError
from index.gallery import Gallery

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


def exclude_woman(gallery: Gallery, key: str | None) -> Exclusion:
    """Return the rows of a woman who is known by her data set and id.

    Args:
        gallery: The gallery.
        key: "dataset/patient_id"; None where she is unknown.

    Raises:
        QueryError: The key is an id without a data set, which would match nobody.
    """
    if key is None:
        return Exclusion(np.zeros(len(gallery), np.bool_), None, None, (UNKNOWN_WOMAN,))
    rows: Mask = gallery.patient_keys == key
    if rows.any():
        first = gallery.record(int(np.argmax(rows)))
        return Exclusion(rows, first["patient_id"], first["dataset"])
    dataset, slash, patient = key.partition("/")
    if not slash:
        raise QueryError("patient", f"{key!r} does not name her data set", "write it as dataset/patient_id")
    return Exclusion(rows, patient, dataset)


def exclude_image(
    gallery: Gallery, *, path: Path, sop_uid: str | None, patients: Sequence[str], dataset: str | None
) -> Exclusion:
    """Return the rows of the woman whom an image shows, by all that is known of her.

    Args:
        gallery: The gallery.
        path: The image. If it is in the gallery, the gallery knows whose it is.
        sop_uid: Its SOP instance UID.
        patients: Her ids as the asker and the file name her, the asker's first.
        dataset: Her data set; None where unknown: her id then counts in every data set, to be on the safe
            side.
    """
    same = _same_image(gallery, path, sop_uid)
    rows = same | np.isin(gallery.patient_keys, np.unique(gallery.patient_keys[same]))
    recognised = [gallery.record(int(i)) for i in np.flatnonzero(same)]
    ids = gallery.records["patient_id"].to_numpy(dtype=object)
    own = np.ones(len(gallery), np.bool_)
    if dataset is not None:
        own = gallery.records["dataset"].to_numpy(dtype=object) == dataset
    names = [name.strip() for name in patients if name.strip()]
    for name in names:
        rows = rows | (own & (ids == name))
    notes = []
    if len(set(names)) > 1:
        notes.append(f"the query's woman is named {' and '.join(names)}: the findings of both were left out")
    others = sorted({record["patient_id"] for record in recognised} - set(names))
    if names and others:
        notes.append(f"the gallery holds this image as one of {' and '.join(others)}, who was left out too")
    if names:
        return Exclusion(rows, names[0], dataset, tuple(notes))
    if recognised:
        notes.append("the query's woman is known from the gallery, which holds this image")
        return Exclusion(rows, recognised[0]["patient_id"], recognised[0]["dataset"], tuple(notes))
    return Exclusion(rows, None, None, (UNKNOWN_WOMAN,))


def _same_image(gallery: Gallery, path: Path, sop_uid: str | None) -> Mask:
    same = np.zeros(len(gallery), np.bool_)
    records = gallery.records
    if "path" in records.columns:
        places = {str(path), os.path.normpath(path), os.path.realpath(path), os.path.abspath(path)}  # noqa: PTH100
        same |= np.array([p in places for p in records["path"].to_numpy(dtype=object)], np.bool_)
    if sop_uid and "sop_uid" in records.columns:
        same |= (records["sop_uid"] == sop_uid).fillna(False).to_numpy(dtype=np.bool_)
    return same
