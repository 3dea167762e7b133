"""What the cells and columns of a manifest may be, checked as they come from the file, before they get their types."""

import datetime
from collections.abc import Iterator

import numpy as np
import pandas as pd

from embedder.findings import ANSWER_FIELDS, COLUMNS, ID_COLUMNS, INTEGER_COLUMNS, NUMBER_COLUMNS, TEXT_COLUMNS
from embedder.manifestrules import LONGEST_TEXT, Problem, places, quoted, raise_problems

# From here on a float does not hold every whole number: two ids may have become one.
_LARGEST_EXACT = 2**53
_LARGEST_INTEGER = 2**63
_LONGEST_NAME = 256


def check_types(raw: pd.DataFrame, subject: object) -> None:
    """Check, before a table gets its types, that every known cell can be what its column holds.

    Numbers stand in columns of numbers, ids are text or whole numbers, and the table's own columns have names
    and cells that a gallery can store.

    Args:
        raw: The table as it was read, its columns named by text.
        subject: What an error is about.

    Raises:
        ManifestError: Something is wrong; up to ten problems are named by row and column.
    """
    problems = [*_own_names(raw), *_numbers(raw), *_texts(raw), *_own_cells(raw)]
    raise_problems(subject, problems)


def _numbers(raw: pd.DataFrame) -> Iterator[Problem]:
    for name in (*INTEGER_COLUMNS, *NUMBER_COLUMNS):
        if name not in raw.columns:
            continue
        cells = raw[name].astype("object")
        # pandas raises at a list where it should coerce.
        single = cells.map(lambda cell: isinstance(cell, str) or not hasattr(cell, "__len__"))
        numbers = pd.to_numeric(cells.where(single, "several"), errors="coerce").astype("float64")
        wrong = cells.notna() & ~np.isfinite(numbers)
        if name in INTEGER_COLUMNS:
            wrong |= numbers.notna() & ((numbers % 1 != 0) | (numbers.abs() > 2**31))
        kind = "a whole number" if name in INTEGER_COLUMNS else "a number"
        for row in places(wrong):
            yield Problem(row + 1, name, f"{quoted(cells.iloc[row])} is not {kind}")


def _texts(raw: pd.DataFrame) -> Iterator[Problem]:
    for name in TEXT_COLUMNS:
        if name not in raw.columns:
            continue
        for row, cell in _known_others(raw[name]):
            cause = _id_problem(cell) if name in ID_COLUMNS else _cell_problem(cell)
            if cause:
                yield Problem(row + 1, name, f"{quoted(cell)} {cause}")


def _known_others(column: pd.Series) -> Iterator[tuple[int, object]]:
    """Give row and cell of all that is neither text nor unknown."""
    cells = column.astype("object")
    known = cells.notna().to_numpy()
    for row, cell in enumerate(cells):
        if known[row] and not isinstance(cell, str):
            yield row, cell


def _id_problem(cell: object) -> str:
    if isinstance(cell, bool | np.bool_):
        return "is a truth value: an id is text or a whole number"
    if isinstance(cell, int | np.integer):
        return ""
    if not isinstance(cell, float | np.floating):
        return _cell_problem(cell) or "is no id: write it as text"
    if not cell.is_integer():
        return "is no whole number: write ids as text"
    return "" if abs(float(cell)) < _LARGEST_EXACT else "is too large to be exact as a number: write ids as text"


def _cell_problem(cell: object) -> str:
    """Say why a cell that is no text can't be stored."""
    if isinstance(cell, float | np.floating) and np.isinf(cell):
        return "is infinite: leave the cell empty"
    if isinstance(cell, int | np.integer) and not -_LARGEST_INTEGER <= int(cell) < _LARGEST_INTEGER:
        return "is too large a number: write it as text"
    if isinstance(cell, bool | np.bool_ | int | np.integer | float | np.floating):
        return ""
    kind = (
        "a date"
        if isinstance(cell, datetime.date | datetime.time | np.datetime64)
        else f"of type {type(cell).__name__}"
    )
    return f"is {kind}: write it as text"


def _own_names(raw: pd.DataFrame) -> Iterator[Problem]:
    for position, name in enumerate(raw.columns, 1):
        if name in COLUMNS:
            continue
        if not name:
            yield Problem(None, None, f"column {position} has no name: name it, or leave it out if it counts the rows")
        elif name in ANSWER_FIELDS:
            yield Problem(None, name, "answers use this name: rename it")
        elif "/" in name or set(name) == {"."} or not name.isprintable() or len(name) > _LONGEST_NAME:
            cause = f"can't be the name of a column: use at most {_LONGEST_NAME} printable characters without a slash"
            yield Problem(None, None, f"{quoted(name)} {cause}")


def _own_cells(raw: pd.DataFrame) -> Iterator[Problem]:
    for name in raw.columns.difference(list(COLUMNS), sort=False):
        column = raw[name]
        if pd.api.types.is_bool_dtype(column.dtype):
            continue
        yield from _own_texts(column, name)
        others = list(_known_others(column))
        for row, cell in others:
            if cause := _cell_problem(cell):
                yield Problem(row + 1, name, f"{quoted(cell)} {cause}")
        kinds = {"text"} if len(others) < column.notna().sum() else set()
        kinds |= {"truth values" if isinstance(cell, bool | np.bool_) else "numbers" for _, cell in others}
        if len(kinds) > 1:
            yield Problem(None, name, f"holds {' and '.join(sorted(kinds))}: write all as text")


def _own_texts(column: pd.Series, name: str) -> Iterator[Problem]:
    for row, cell in enumerate(column.astype("object"), 1):
        if not isinstance(cell, str):
            continue
        if len(cell) > LONGEST_TEXT:
            yield Problem(row, name, f"{quoted(cell)} has {len(cell)} characters: {LONGEST_TEXT} are the most")
        elif "\0" in cell:
            yield Problem(row, name, f"{quoted(cell)} contains a zero byte")
