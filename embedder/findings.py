"""A finding, the words for what is known of it, and the woman it belongs to."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from errors import MammoseekError

GRANULARITIES = ("finding", "breast")
LATERALITIES = ("L", "R")
SPLITS = ("train", "validation", "test")

# View codes of PS3.3 C.8.11.7 (ViewPosition of mammography), with the views of PS3.16 CID 4014 and 4015.
VIEWS = (
    *("CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "FB", "SIO", "ISO"),
    *("CV", "AT", "RL", "RM", "RI", "RS", "S", "M", "TAN", "ID"),
)

DENSITY_SCALES = (("fatty", "glandular", "dense"), ("A", "B", "C", "D"))
"""The density scales, each in its order: three classes as in mini-MIAS, and those of BI-RADS (5th edition)."""

TERMS: dict[str, tuple[str, ...]] = {
    "lesion_type": ("mass", "calcification", "architectural distortion", "asymmetry"),
    "pathology": ("benign", "malignant", "normal", "no cancer"),
    "density": tuple(term for scale in DENSITY_SCALES for term in scale),
    "shape": ("round", "oval", "irregular", "lobular", "lymph node", "architectural distortion", "asymmetry"),
    "margin": ("circumscribed", "obscured", "microlobulated", "indistinct", "spiculated"),
    "calcification_type": (
        *("skin", "vascular", "coarse", "large rod-like", "round", "punctate", "rim", "lucent-centered"),
        *("milk of calcium", "suture", "dystrophic", "amorphous", "coarse heterogeneous", "fine pleomorphic"),
        "fine linear branching",
    ),
    "calcification_distribution": ("diffuse", "regional", "grouped", "linear", "segmental"),
    "assessment": ("0", "1", "2", "3", "4", "4A", "4B", "4C", "5", "6"),
}
"""The known terms of each label column: BI-RADS (ACR, 5th edition 2013, with the 4th edition's `lobular`
shape).

`pathology` is `benign` or `malignant` where tissue or follow-up proved it, `normal` where a reader found
nothing in the breast, and `no cancer` where a data set only says that no cancer is known (benign or normal
alike).
"""

KNOWN_TERMS: dict[str, tuple[str, ...]] = {
    "granularity": GRANULARITIES,
    "laterality": LATERALITIES,
    "view": VIEWS,
    "split": SPLITS,
    **TERMS,
}
"""Every column of a manifest whose cells must be known terms."""

TISSUE_TERMS = ("lesion", "normal")
"""Terms of the column `tissue`, which a manifest has where normal tissue was added to it (`embedder.normaltissue`)."""

TERM_SEPARATOR = " + "
"""Joins several terms of one column: `irregular + architectural distortion`."""

NATIVE_COLUMNS = ("native_lesion_type", "native_pathology", "native_density")
"""A data set's own words for its labels, as it spells them."""

LABEL_COLUMNS = (*TERMS, "subtlety", *NATIVE_COLUMNS, "tissue")
"""Columns that can be learned, voted on and scored."""


class FindingError(MammoseekError):
    """A finding or box that contradicts itself."""


@dataclass(frozen=True, order=True)
class Box:
    """A rectangle in pixels of the stored image, half-open: `x0 <= x < x1`, `y0 <= y < y1`.

    Raises:
        FindingError: The rectangle is empty or inverted.

    >>> str(Box(10, 20, 30, 60))
    '10,20,30,60'
    """

    x0: int
    y0: int
    x1: int
    y1: int

    def __post_init__(self) -> None:
        if self.x0 >= self.x1 or self.y0 >= self.y1:
            raise FindingError(f"box {self}", "is empty or inverted", "give it as x0,y0,x1,y1 with x0 < x1 and y0 < y1")

    def __str__(self) -> str:
        return f"{self.x0},{self.y0},{self.x1},{self.y1}"

    def __iter__(self) -> Iterator[int]:
        """Yield x0, y0, x1, y1."""
        yield from (self.x0, self.y0, self.x1, self.y1)

    @property
    def width(self) -> int:
        """Columns inside."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """Rows inside."""
        return self.y1 - self.y0

    @property
    def centre(self) -> tuple[float, float]:
        """The middle as (x, y), in the coordinates of pixel edges."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    @classmethod
    def parse(cls, text: str) -> "Box":
        """Read a box from `x0,y0,x1,y1`; fractions are rounded outwards.

        Raises:
            FindingError: The text is not four numbers, or the box is empty or inverted.

        >>> Box.parse("9.5, 20, 30, 60")
        Box(x0=9, y0=20, x1=30, y1=60)
        """
        try:
            x0, y0, x1, y1 = (float(part) for part in text.split(","))
            return cls(math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1))
        except (ValueError, OverflowError) as error:
            raise FindingError(f"box {text[:80]!r}", "is not four numbers", "give it as x0,y0,x1,y1") from error


@dataclass(frozen=True)
class Finding:
    """One row of a manifest: a marked place on a mammogram, or a whole breast image, and what is known of it.

    What is unknown is None, never a negative (a `pathology` of None is not `benign`).

    Args:
        row_id: Names the row, unique in its manifest.
        path: The image file.
        granularity: `finding` (has a box) or `breast` (has none).
        dataset: The data set.
        patient_id: The woman, unique in her data set.
        x0: Box, see `Box`.
        y0: Box.
        x1: Box.
        y1: Box.
        image_rows: Rows of the stored image.
        image_columns: Columns of the stored image.
        spacing_mm: Millimetres per pixel.
        laterality: `L` or `R`.
        view: One of VIEWS.
        lesion_type: See TERMS, like the label columns that follow.
        pathology: See TERMS.
        density: Of the breast.
        shape: Of a mass.
        margin: Of a mass.
        calcification_type: Morphology of calcifications.
        calcification_distribution: Distribution of calcifications.
        assessment: BI-RADS category.
        subtlety: 1 (subtle) to 5 (obvious).
        native_lesion_type: The data set's own word.
        native_pathology: The data set's own word.
        native_density: The data set's own word.
        age: Of the woman, in years.
        study_id: The examination, where the data set names it.
        split: The data set's own split, one of SPLITS; None leaves it to the user of the manifest.
    """

    row_id: str
    path: str
    granularity: str
    dataset: str
    patient_id: str
    x0: int | None = None
    y0: int | None = None
    x1: int | None = None
    y1: int | None = None
    image_rows: int | None = None
    image_columns: int | None = None
    spacing_mm: float | None = None
    laterality: str | None = None
    view: str | None = None
    lesion_type: str | None = None
    pathology: str | None = None
    density: str | None = None
    shape: str | None = None
    margin: str | None = None
    calcification_type: str | None = None
    calcification_distribution: str | None = None
    assessment: str | None = None
    subtlety: int | None = None
    native_lesion_type: str | None = None
    native_pathology: str | None = None
    native_density: str | None = None
    age: float | None = None
    study_id: str | None = None
    split: str | None = None


COLUMNS = tuple(field.name for field in fields(Finding))
REQUIRED_COLUMNS = ("row_id", "path", "granularity", "dataset", "patient_id")
BOX_COLUMNS = ("x0", "y0", "x1", "y1")
INTEGER_COLUMNS = (*BOX_COLUMNS, "image_rows", "image_columns", "subtlety")
NUMBER_COLUMNS = ("spacing_mm", "age")
TEXT_COLUMNS = tuple(name for name in COLUMNS if name not in (*INTEGER_COLUMNS, *NUMBER_COLUMNS))
ID_COLUMNS = ("row_id", "path", "dataset", "patient_id", "study_id")
"""Text columns that name something: two spellings of one name would make it two things."""

ANSWER_FIELDS = ("rank", "similarity", "box")
"""Names that an answer gives to a neighbour, as in `index.records`: no column of a table's own can have them."""


def findings_frame(findings: Iterable[Finding]) -> pd.DataFrame:
    """Return findings as a manifest table: one row each, every standard column, in its type."""
    rows = list(findings)
    return typed_columns(pd.DataFrame({name: [getattr(row, name) for row in rows] for name in COLUMNS}))


def typed_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the standard columns in their types, absent ones added as missing.

    Whole numbers are `Int64`, numbers `float64`, all other standard columns text (see `cell_text`); further
    columns stay as they are.
    """
    typed: dict[str, pd.Series] = {}
    for name in COLUMNS:
        column = frame[name] if name in frame else pd.Series(None, index=frame.index, dtype="object")
        column = column.astype("object")
        if name in INTEGER_COLUMNS:
            typed[name] = pd.to_numeric(column).astype("Int64")
        elif name in NUMBER_COLUMNS:
            typed[name] = pd.to_numeric(column).astype("float64")
        else:
            typed[name] = column.map(cell_text, na_action="ignore").astype("str").where(column.notna())
    for name in frame.columns:
        if name not in typed:
            typed[name] = frame[name]
    return pd.DataFrame(typed).reset_index(drop=True)


def cell_text(cell: object) -> str:
    """Return a cell of a text column as text.

    A table keeps whole numbers as fractions where one of them is missing: the woman 4711 is not "4711.0".

    >>> cell_text(4711.0), cell_text("007"), cell_text(4.5)
    ('4711', '007', '4.5')
    """
    return str(int(cell)) if isinstance(cell, float | np.floating) and cell.is_integer() else str(cell)


def patient_key(frame: pd.DataFrame) -> pd.Series:
    """Return each row's woman as `dataset/patient_id`: a patient id is unique only within its data set."""
    names = frame["dataset"].astype("object").astype(str), frame["patient_id"].astype("object").astype(str)
    return names[0] + "/" + names[1]
