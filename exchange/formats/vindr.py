"""VinDr-Mammo's finding_annotations.csv.

Nguyen H.T. et al., VinDr-Mammo: A large-scale benchmark dataset for computer-aided diagnosis in full-field digital
mammography, Scientific Data 10:277, 2023. Data: https://physionet.org/content/vindr-mammo/.
"""

import ast
from collections.abc import Mapping
from pathlib import Path

from embedder.findings import TERM_SEPARATOR
from exchange import ExchangeError
from exchange.formats.marks import Mark, Parsed, ReadOptions, RowError, corners_of, text_of, whole
from exchange.formats.tables import laterality_of, table_rows

DATASET = "vindr-mammo"
COLUMNS = ("study_id", "image_id", "laterality", "view_position", "finding_categories", "xmin", "ymin", "xmax", "ymax")
"""Columns by which the table is known."""

_NOTHING = "no finding"
_LONGEST_LIST = 2000


def read_vindr(path: Path, options: ReadOptions) -> Parsed:
    """Read the findings of VinDr-Mammo as detections without scores; rows of images without findings are left out.

    The images are named `study_id/image_id`, with `.dicom` or another suffix. The data set names no women: where the
    image does not either, each study counts as one woman's. The assessment of a finding is kept in its note.

    Raises:
        ExchangeError: It is no such table.
    """
    parsed = Parsed(path)
    without, checked = 0, False
    for place, cells in table_rows(path, parsed):
        if not checked:
            lacking = [name for name in COLUMNS if name not in cells]
            if lacking:
                raise ExchangeError(
                    path, f"has no column {', '.join(lacking)}", "give VinDr-Mammo's finding_annotations.csv"
                )
            checked = True
        try:
            words = categories(cells["finding_categories"])
            box = corners_of([cells[name] for name in COLUMNS[-4:]], COLUMNS[-4:])
            if box is None and [word.casefold() for word in words] == [_NOTHING]:
                without += 1
                continue
            parsed.add(_mark(place, cells, words, box))
        except RowError as error:
            parsed.refuse(place, error)
    if without:
        parsed.notes.append(f"{without:,} rows are of images without findings")
    return parsed


def categories(text: str) -> list[str]:
    """Return the words of a Python list such as ['Mass', 'Skin Thickening'].

    Raises:
        RowError: It is no such list.
    """
    try:
        # Short, and of literals only: nothing is run.
        found = ast.literal_eval(text.strip()) if len(text) <= _LONGEST_LIST else None
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(word, str) for word in found):
        raise RowError(f"finding_categories {text[:80]!r} is no list such as ['Mass']")
    return found


def _mark(
    place: str, cells: Mapping[str, str], words: list[str], box: tuple[float, float, float, float] | None
) -> Mark:
    study, image = text_of(cells["study_id"], "study_id"), text_of(cells["image_id"], "image_id")
    if study is None or image is None:
        raise RowError("has no study_id or image_id")
    assessment = text_of(cells.get("finding_birads"), "finding_birads")
    view = text_of(cells["view_position"], "view_position")
    return Mark(
        place=place,
        image=f"{study}/{image}",
        box=box,
        word=text_of(TERM_SEPARATOR.join(words), "finding_categories"),
        note=assessment and f"assessment {assessment}",
        study_id=study,
        laterality=laterality_of(cells["laterality"]),
        view=view and view.upper(),
        rows=whole(cells.get("height"), "height"),
        columns=whole(cells.get("width"), "width"),
        whose=(DATASET, study),
    )
