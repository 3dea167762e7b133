"""Which rows of a manifest are to be embedded, which are stored already, and which can't be stored."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from index.records import parse_columns, unfit_rows
from index.writer import GalleryWriter

_LONGEST_NAME = 80  # characters of a row id in a message


@dataclass(frozen=True, eq=False)
class Intake:
    """What there is to do about the rows of a manifest.

    Attributes:
        new: The rows to embed.
        already_there: How many rows are stored as they are.
        failures: Row id and message of each row that can't be stored.
    """

    new: pd.DataFrame
    already_there: int
    failures: tuple[tuple[str, str], ...]


def sort_rows(writer: GalleryWriter, rows: pd.DataFrame) -> Intake:
    """Tell the rows of a manifest apart, before the work of embedding them.

    Args:
        writer: The gallery's writer.
        rows: The findings.

    Raises:
        GalleryError: A whole column can't be stored.
    """
    problems: dict[int, str] = {}
    present = np.zeros(len(rows), np.bool_)
    if len(rows):
        columns = parse_columns(rows, writer.folder)
        problems = unfit_rows(columns)
        granularity, row_ids = columns["granularity"].cells, pd.Series(columns["row_id"].cells)
        for row in np.flatnonzero(granularity != writer.identity.granularity):
            problems.setdefault(
                int(row),
                f"it is a {granularity[row]}, and the gallery holds rows of granularity "
                f"{writer.identity.granularity} only",
            )
        for row in np.flatnonzero(row_ids.duplicated(keep=False)):
            problems.setdefault(int(row), "its row id stands in several rows of the manifest: give each its own")
        fit = np.setdiff1d(np.arange(len(rows)), list(problems))
        presence = writer.present(rows.iloc[fit])
        present[fit] = presence.stored
        problems |= {int(fit[row]): problem for row, problem in presence.conflicts.items()}
    bad = np.isin(np.arange(len(rows)), list(problems))
    failures = [(_name(rows["row_id"].iloc[row], row), problems[row]) for row in sorted(problems)]
    return Intake(rows[~present & ~bad].reset_index(drop=True), int((present & ~bad).sum()), tuple(failures))


def _name(row_id: object, row: int) -> str:
    """Return a row id as it can be printed; the row's number where it has none."""
    if not isinstance(row_id, str) or not row_id:
        return f"row {row + 1} of the manifest"
    # repr writes out what would not print, or would steer a terminal.
    name = row_id if row_id.isprintable() else repr(row_id)[1:-1]
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
