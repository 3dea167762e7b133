"""The rules of a manifest: what each row and column must hold, told so that it can be mended."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedder.findings import (
    BOX_COLUMNS,
    ID_COLUMNS,
    KNOWN_TERMS,
    REQUIRED_COLUMNS,
    TERM_SEPARATOR,
    TERMS,
    TEXT_COLUMNS,
    TISSUE_TERMS,
    patient_key,
)
from errors import MammoseekError

MISSING_WORDS = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
    | {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""Cells of a CSV file that stand for an unknown value, as pandas and R write them."""

LONGEST_TEXT = 4096
"""Characters in one cell: no path is longer on Linux, and one huge cell would inflate its column in a gallery."""

_LONGEST_ID = 256
_PROBLEMS_SHOWN = 10
_LARGEST_SIDE = 1_000_000
_RANGES = {
    "spacing_mm": (0.001, 5.0),
    "age": (0.0, 130.0),
    "subtlety": (1, 5),
    "image_rows": (1, _LARGEST_SIDE),
    "image_columns": (1, _LARGEST_SIDE),
}
# Unicode's control characters (Cc) and halves of surrogate pairs (Cs).
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_WHOLE_FRACTION = re.compile(r"\d+\.0+")


class ManifestError(MammoseekError):
    """A manifest that can't be read or written, or that contradicts itself; the message gives rows and columns."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a manifest.

    Attributes:
        row: Row of the table, counted from 1 below the header; None where it concerns the whole table.
        column: The column; None where it concerns the row.
        message: What is wrong.
    """

    row: int | None
    column: str | None
    message: str

    def __str__(self) -> str:
        place = [f"row {self.row}"] if self.row is not None else []
        place += [f"column {self.column}"] if self.column is not None else []
        return f"{', '.join(place)}: {self.message}" if place else self.message


def raise_problems(subject: object, problems: list[Problem]) -> None:
    """Raise what is wrong, if anything is.

    Args:
        subject: What the error is about.
        problems: What is wrong with it.

    Raises:
        ManifestError: Something is; up to ten problems are named.
    """
    if not problems:
        return
    shown = [str(problem) for problem in problems[:_PROBLEMS_SHOWN]]
    more = len(problems) - len(shown)
    cause = shown[0] if len(problems) == 1 else "\n  " + "\n  ".join(shown)
    raise ManifestError(subject, cause + (f"\n  and {more} more" if more else ""))


def validate(frame: pd.DataFrame, subject: object = "manifest") -> None:
    """Check a typed table: required cells, known terms, ranges, boxes, duplicate ids, and who is who.

    A woman is in one split and under one spelling of her id; an image is of one woman.

    Args:
        frame: A table as `findings_frame` or `typed_columns` gives it. Two paths are taken for one image where
            their text is the same: resolve them before.
        subject: What an error is about.

    Raises:
        ManifestError: Something is wrong; up to ten problems are named by row and column.
    """
    problems = [
        *_required_problems(frame),
        *_text_problems(frame),
        *_term_problems(frame),
        *_range_problems(frame),
        *_box_problems(frame),
        *_duplicate_problems(frame),
        *_split_problems(frame),
        *_spelling_problems(frame),
        *_image_problems(frame),
    ]
    raise_problems(subject, problems)


def places(where: pd.Series | npt.NDArray[np.bool_]) -> list[int]:
    """Return the positions of the rows where something holds; unknown is not."""
    values = where.fillna(False).to_numpy(np.bool_) if isinstance(where, pd.Series) else where
    return [int(row) for row in np.flatnonzero(values)]


def quoted(value: object) -> str:
    """Return a value as an error shows it: a cell may be of any length."""
    text = str(value)
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def _required_problems(frame: pd.DataFrame) -> Iterator[Problem]:
    for name in REQUIRED_COLUMNS:
        for row in places(frame[name].isna() | (frame[name].str.strip() == "")):
            yield Problem(row + 1, name, "is empty")


def _text_problems(frame: pd.DataFrame) -> Iterator[Problem]:
    """Find text that a CSV file would give back as something else, or that no name contains."""
    for name in TEXT_COLUMNS:
        cells = frame[name].tolist()
        causes = {
            text: cause
            for text in set(cells)
            if isinstance(text, str) and (cause := _text_problem(name, text)) is not None
        }
        for row, text in enumerate(cells if causes else [], 1):
            if text in causes:
                yield Problem(row, name, f"{quoted(text)} {causes[text]}")


def _text_problem(name: str, text: str) -> str | None:
    if name in REQUIRED_COLUMNS and not text.strip():
        return None  # an empty cell is told by the rule of required columns
    if text in MISSING_WORDS:
        return "stands for an unknown value: leave the cell empty"
    if text.strip() != text:
        return "begins or ends with white space"
    # A newline or a null byte is no part of a name, and a way to write lines into what is printed.
    if _CONTROL.search(text):
        return "contains a control character"
    longest = _LONGEST_ID if name in ID_COLUMNS and name != "path" else LONGEST_TEXT
    if len(text) > longest:
        return f"has {len(text)} characters: {longest} are the most"
    if name == "patient_id" and _WHOLE_FRACTION.fullmatch(text):
        # pandas and spreadsheets write so: a search for the woman 4711 would not find 4711.0 and leave her in.
        return f"is a whole number written as a fraction: write it as {text.partition('.')[0]}"
    return None


def _term_problems(frame: pd.DataFrame) -> Iterator[Problem]:
    added = {"tissue": TISSUE_TERMS} if "tissue" in frame.columns else {}
    for name, known in {**KNOWN_TERMS, **added}.items():
        wrong = []
        for term in frame[name].dropna().unique():
            parts = str(term).split(TERM_SEPARATOR) if name in TERMS else [str(term)]
            if not all(part in known for part in parts):
                wrong.append(term)
        for row in places(frame[name].isin(wrong) & ~frame[name].duplicated()):
            yield Problem(row + 1, name, f"{quoted(frame[name].iloc[row])} is none of {', '.join(known)}")


def _range_problems(frame: pd.DataFrame) -> Iterator[Problem]:
    for name, (low, high) in _RANGES.items():
        values = frame[name].astype("float64")
        for row in places(values.notna() & ~values.between(low, high)):
            yield Problem(row + 1, name, f"{values.iloc[row]:g} is not {low:g} to {high:g}")


def _box_problems(frame: pd.DataFrame) -> Iterator[Problem]:
    corners = frame[list(BOX_COLUMNS)].astype("float64")
    given = corners.notna()
    finding = (frame["granularity"] == "finding").fillna(False).to_numpy(np.bool_)
    breast = (frame["granularity"] == "breast").fillna(False).to_numpy(np.bool_)
    complete = given.all(axis=1).to_numpy()
    for row in places(finding & ~complete):
        lacking = [name for name in BOX_COLUMNS if not given[name].iloc[row]]
        yield Problem(row + 1, ", ".join(lacking), "a finding needs a box")
    for row in places(breast & given.any(axis=1).to_numpy()):
        stated = [name for name in BOX_COLUMNS if given[name].iloc[row]]
        cause = "a whole breast has no box: leave them empty, or make it a finding"
        yield Problem(row + 1, ", ".join(stated), cause)
    whole = finding & complete
    for low, high, size in (("x0", "x1", "image_columns"), ("y0", "y1", "image_rows")):
        for row in places(whole & (corners[low] >= corners[high]).to_numpy()):
            start, end = int(corners[low].iloc[row]), int(corners[high].iloc[row])
            cause = f"the box is empty or inverted ({low} {start}, {high} {end})"
            yield Problem(row + 1, f"{low}, {high}", cause)
        for row in places(whole & (corners[low] < 0).to_numpy()):
            yield Problem(row + 1, low, f"{int(corners[low].iloc[row])} lies outside the image")
        limit = frame[size].astype("float64")
        for row in places(whole & (corners[high] > limit).to_numpy()):
            end, bound = int(corners[high].iloc[row]), int(limit.iloc[row])
            cause = f"{end} lies outside the image, which has {bound} {size.removeprefix('image_')}"
            yield Problem(row + 1, high, cause)


def _duplicate_problems(frame: pd.DataFrame) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for row, row_id in enumerate(frame["row_id"]):
        if pd.isna(row_id):
            continue
        if row_id in first:
            yield Problem(row + 1, "row_id", f"{quoted(row_id)} stands in row {first[row_id] + 1} already")
        else:
            first[row_id] = row


def _split_problems(frame: pd.DataFrame) -> Iterator[Problem]:
    sides: dict[str, str] = {}
    told: set[str] = set()
    for row, (woman, split) in enumerate(zip(patient_key(frame), frame["split"], strict=True)):
        if pd.isna(split) or woman in told:
            continue
        if sides.setdefault(woman, split) != split:
            told.add(woman)
            cause = f"the woman {woman[:80]} is in {sides[woman]} and in {split}: she can be in one only"
            yield Problem(row + 1, "split", cause)


def _spelling_problems(frame: pd.DataFrame) -> Iterator[Problem]:
    """Find women who stand there under two spellings of their id, or of their data set's name."""
    datasets, patients = frame["dataset"].tolist(), frame["patient_id"].tolist()
    seen: dict[tuple[str, str], int] = {}
    for row in places(_known_women(frame) & ~patient_key(frame).duplicated()):
        earlier = seen.setdefault((_folded(datasets[row]), _folded(patients[row])), row)
        if earlier == row:
            continue
        column, names = ("dataset", datasets) if datasets[row] != datasets[earlier] else ("patient_id", patients)
        cause = f"{quoted(names[row])} is {quoted(names[earlier])} of row {earlier + 1} but for case or spaces"
        yield Problem(row + 1, column, f"{cause}: write one woman one way")


def _image_problems(frame: pd.DataFrame) -> Iterator[Problem]:
    """Find images that two women share: one of them would meet herself under the other's name."""
    keys = patient_key(frame).to_numpy(dtype=object)
    rows = np.flatnonzero((_known_women(frame) & frame["path"].notna()).to_numpy(np.bool_))
    images, women = pd.factorize(frame["path"].iloc[rows])[0], pd.factorize(keys[rows])[0]
    _, first = np.unique(images, return_index=True)
    owner = first[images]
    for place in np.flatnonzero(women != women[owner]):
        row, earlier = int(rows[place]), int(rows[owner[place]])
        cause = (
            f"the image {PurePath(frame['path'].iloc[row]).name[:80]} is of {keys[earlier][:80]} in row {earlier + 1}"
        )
        yield Problem(row + 1, "patient_id", cause)


def _known_women(frame: pd.DataFrame) -> pd.Series:
    return frame["dataset"].notna() & frame["patient_id"].notna()


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()
