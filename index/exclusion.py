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
from index.vectors import Positions

UNKNOWN_WOMAN = "the query's woman is not known, so her own findings may be among the neighbours; name her by --patient"


@dataclass(frozen=True, eq=False)
class Exclusion:
    """Rows that show the query's woman.

    Attributes:
        positions: int64 (m,), upwards.
        patient: Her id; None where she is unknown.
        dataset: Her data set; None where her id counts in every one.
        notes: What a reader of the answer should know of it.
    """

    positions: Positions
    patient: str | None
    dataset: str | None
    notes: tuple[str, ...] = ()

    def mask(self, rows: int) -> npt.NDArray[np.bool_]:
        """Return the same as bool (rows,)."""
        hers = np.zeros(rows, np.bool_)
        hers[self.positions] = True
        return hers


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
    if dataset is not None and not gallery.has_dataset(dataset):
        held = ", ".join(gallery.datasets) or "none"
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
        return Exclusion(np.empty(0, np.int64), None, None, (UNKNOWN_WOMAN,))
    # A data set's name or a woman's may hold a slash itself.
    cuts = [(key[:at], key[at + 1 :]) for at, letter in enumerate(key) if letter == "/"]
    if not cuts:
        raise QueryError("patient", f"{key!r} does not name her data set", "write it as dataset/patient_id")
    found: dict[int, tuple[str, str]] = {}
    for dataset, patient in cuts:
        for woman in gallery.women_called(patient).tolist():
            first = gallery.first_row(woman)
            names = _text(gallery, "dataset", first), _text(gallery, "patient_id", first)
            if fold_name(names[0]) == fold_name(dataset):
                found[woman] = names
    keys = {f"{dataset}/{patient}": (dataset, patient) for dataset, patient in found.values()}
    dataset, patient = keys.get(key, cuts[0])
    return Exclusion(gallery.rows_of(list(found)), patient, dataset, naming_note(key, keys))


def _text(gallery: Gallery, name: str, row: int) -> str:
    """Return a required text of a row: of a column that is joined already, which thousands of women ask for."""
    column = gallery.table.column(name)
    assert column.codes is not None, "it is a text in every row"
    return str(column.cells[int(column.codes[row])].as_py())


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
    found: list[npt.NDArray[np.integer]] = [gallery.women[same]]
    names = list(dict.fromkeys(name.strip() for name in patients))
    notes: list[str] = []
    if len(names) > 1:
        notes.append(f"the query's woman is named {' and '.join(names)}: the findings of both were left out")
    recognised = [gallery.record(position) for position in same.tolist()]
    folded = {fold_name(name) for name in names}
    others = sorted({r["patient_id"] for r in recognised if fold_name(r["patient_id"]) not in folded})
    if names and others:
        notes.append(f"the gallery holds this image as one of {' and '.join(others)}, who was left out too")
    if dataset is not None and names:
        notes += naming_note(dataset, [name for name in gallery.datasets if fold_name(name) == fold_name(dataset)])
    for name in names:
        women = gallery.women_called(name, dataset)
        found.append(women)
        ids = {str(gallery.table.cell("patient_id", gallery.first_row(woman))) for woman in women.tolist()}
        notes += naming_note(name, ids, dataset)
    rows = gallery.rows_of(np.concatenate(found).tolist())
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
    return exclude_position(gallery, gallery.position(row_id))


def exclude_position(gallery: Gallery, position: int) -> Exclusion:
    """Return the same of a row that is known by where it stands."""
    record = gallery.record(position)
    path = record.get("path")
    # Only what the gallery says counts, and nothing of this machine's files: the answer is the same everywhere.
    same = _same_image(gallery, {path, os.path.normpath(path)} if path else set(), record.get("sop_uid"))
    women = np.unique(np.append(gallery.women[same], gallery.women[position]))
    own = gallery.patient_key(position)
    others = sorted({gallery.patient_key(gallery.first_row(woman)) for woman in women.tolist()} - {own})
    notes = [f"the gallery holds this image as one of {' and '.join(others)} too, who was left out"] if others else []
    return Exclusion(gallery.rows_of(women), record["patient_id"], record["dataset"], tuple(notes))


def join_exclusions(parts: Sequence[Exclusion]) -> Exclusion:
    """Return what is left out for several pictures of one woman: whoever is left out for any of them.

    Args:
        parts: One per picture, at least one.
    """
    if len(parts) == 1:
        return parts[0]
    named = next((part for part in parts if part.patient is not None), parts[0])
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    if named.patient is not None:
        notes.pop(UNKNOWN_WOMAN, None)
    positions = np.unique(np.concatenate([part.positions for part in parts]))
    return Exclusion(positions, named.patient, named.dataset, tuple(notes))


def _same_image(gallery: Gallery, places: set[str], sop_uid: str | None) -> Positions:
    """Return the rows of an image, upwards."""
    found = [gallery.table.find("path", place) for place in sorted(places)]
    if sop_uid:
        found.append(gallery.table.find("sop_uid", sop_uid))
    return np.unique(np.concatenate([np.empty(0, np.int64), *found]))


def naming_note(name: str, found: Iterable[str], dataset: str | None = None) -> tuple[str, ...]:
    """Return what to say of a name that no row has, or only in another spelling."""
    spelled = set(found)
    spellings = sorted(spelled - {name})
    if spellings:
        alike = " and ".join(map(repr, spellings))
        return (f"{name!r} was taken for {alike} too: only letter case or white space around it differs",)
    if not spelled:
        place = f" in the data set {dataset}" if dataset else ""
        return (f"the gallery has no row of {name}{place}, so nothing was left out for that name",)
    return ()
