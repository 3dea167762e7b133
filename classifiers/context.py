"""What is known of a case besides its picture, as numbers: age, view, side, density, and a table's own columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.fitted import MOST_CLASSES
from classifiers.labels import ORDERED_SCALES, Array
from embedder.header import Header

CONTEXT_COLUMNS = ("age", "view", "laterality", "density")
"""What is known before anybody reads the picture. A reader's own terms (`lesion_type`, `margin`, `assessment`) may be
given as context too, but then a reader has looked."""

_PLACES = {term: place / (len(scale) - 1) for scale in ORDERED_SCALES for place, term in enumerate(scale)}
_ORDERED = ("density", "native_density")


def context_of_image(
    header: Header, record: Mapping[str, Any] | None = None, view: str | None = None
) -> dict[str, Any]:
    """Return what file, gallery and asker know of an image besides its pixels; of findings on it, nothing.

    Args:
        header: What its file says.
        record: What the gallery says of a row on it; None where it holds none.
        view: The view, where the asker says so.
    """
    known = {"age": header.age, "view": header.view, "laterality": header.laterality}
    known |= {name: record[name] for name in CONTEXT_COLUMNS if record is not None and record.get(name) is not None}
    return known if view is None else {**known, "view": view}


@dataclass(frozen=True)
class _Column:
    """One column as fitted.

    Args:
        name: The column.
        kind: `number`, `scale` (terms that are places on a scale of density) or `terms`.
        centre: Mean of the known numbers or places.
        spread: Their standard deviation; 0 of terms, and where all are the same.
        terms: The terms seen in fitting, where there are several.
        told: Whether a feature says that the cell is unknown.
    """

    name: str
    kind: Literal["number", "scale", "terms"]
    centre: float
    spread: float
    terms: tuple[str, ...]
    told: bool


class ContextEncoder:
    """Turn context columns into finite features, with statistics of the rows that it was fitted on alone.

    A number is centred and divided by its standard deviation; density is its place on its scale, from 0 (fatty, A) to
    1 (dense, D), treated as a number; other terms have one feature each. An unknown number stands at the mean, an
    unknown term has none of the features, and where some of the fitted rows know the cell and some do not, one more
    feature says that it is unknown: whether an age was noted may itself depend on the case. What was the same in
    all fitted rows tells nothing and has no feature.

    After `fit`: `features_`, their names as "column" or "column: term", and `columns_`, the column of each.

    Args:
        columns: Which columns.
    """

    def __init__(self, columns: Sequence[str] = CONTEXT_COLUMNS) -> None:
        self.columns = tuple(columns)

    def fit(self, frame: pd.DataFrame) -> Self:
        """Learn the terms, means and deviations of these rows.

        Raises:
            ClassificationError: A column is not there, holds an infinite number, or is an identifier.
        """
        for name in self.columns:
            if name not in frame.columns:
                raise ClassificationError("context", f"the table has no column {name!r}", "leave it out, or add it")
        self._fitted = tuple(_fit(frame[name], name) for name in self.columns)
        self.features_ = tuple(feature for column in self._fitted for feature in _names(column))
        self.columns_ = tuple(column.name for column in self._fitted for _ in _names(column))
        return self

    def transform(self, frame: pd.DataFrame | Mapping[str, Any]) -> npt.NDArray[np.float64]:
        """Return (rows, features), all finite.

        Args:
            frame: Rows, or one row's cells by column; a column that is not there is unknown.

        Raises:
            ClassificationError: A cell of a column of numbers is none.
        """
        table = frame if isinstance(frame, pd.DataFrame) else pd.DataFrame([dict(frame)])
        blocks = [np.empty((len(table), 0))]
        for column in self._fitted:
            cells = table[column.name] if column.name in table.columns else pd.Series(None, table.index, dtype="object")
            blocks.append(_encode(cells, column))
        return np.concatenate(blocks, axis=1)


def _fit(cells: pd.Series, name: str) -> _Column:
    known = cells[cells.notna()]
    told = 0 < len(known) < len(cells)
    texts = {str(cell) for cell in known}
    kind: Literal["number", "scale"] | None = None
    if name in _ORDERED and texts <= _PLACES.keys():
        kind = "scale"
    elif all(isinstance(cell, Number | np.bool_) for cell in known):
        kind = "number"
    if kind is not None:
        numbers = _numbers(cells, name, kind)
        numbers = numbers[~np.isnan(numbers)]
        centre, spread = (float(numbers.mean()), float(numbers.std())) if numbers.size else (0.0, 0.0)
        return _Column(name, kind, centre, spread, (), told)
    if len(texts) > MOST_CLASSES:
        raise ClassificationError(
            "context", f"the column {name!r} has {len(texts)} different values", "an identifier is no context"
        )
    return _Column(name, "terms", 0.0, 0.0, tuple(sorted(texts)) if len(texts) > 1 else (), told)


def _names(column: _Column) -> list[str]:
    names = [f"{column.name}: {term}" for term in column.terms]
    if column.spread > 0:
        names.append(column.name)
    return [*names, f"{column.name}: unknown"] if column.told else names


def _encode(cells: pd.Series, column: _Column) -> Array:
    texts = cells.astype("object").map(str, na_action="ignore").to_numpy(dtype=object)
    features = [(texts == term).astype(np.float64) for term in column.terms]
    if column.kind != "terms":
        numbers = _numbers(cells, column.name, column.kind)
        if column.spread > 0:
            features.append(np.where(np.isnan(numbers), 0.0, (numbers - column.centre) / column.spread))
    if column.told:
        features.append(cells.isna().to_numpy(dtype=np.float64))
    return np.stack(features, axis=1) if features else np.empty((len(cells), 0))


def _numbers(cells: pd.Series, name: str, kind: Literal["number", "scale"]) -> Array:
    """Return (rows,) numbers, NaN where unknown."""
    values = cells.astype("object")
    if kind == "scale":
        values = values.map(lambda cell: _PLACES.get(str(cell), cell), na_action="ignore")
    numbers = pd.to_numeric(values.where(values.notna(), None), errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(values.notna().to_numpy(dtype=bool) & ~np.isfinite(numbers))
    if wrong.size:
        text = str(values.iloc[wrong[0]])[:80]
        expected = "a density" if kind == "scale" else "a finite number"
        raise ClassificationError("context", f"{name} {text!r} is not {expected}", "correct it, or leave it unknown")
    return numbers
