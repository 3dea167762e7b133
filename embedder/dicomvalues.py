"""Attributes of a DICOM data set, read without trust: what is malformed is missing."""

import math
from datetime import date
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence


def value(dataset: Dataset, keyword: str) -> Any:
    """Return an attribute's value, the first of several; None where it is missing, empty or malformed."""
    try:
        found = dataset.get(keyword)
        if isinstance(found, MultiValue | list | tuple):
            found = found[0] if len(found) else None
    except (
        Exception
    ):  # pydicom converts on access and raises of many kinds, RecursionError on hostile nesting among them
        return None
    return None if found == "" else found


def values(dataset: Dataset, keyword: str) -> list[Any]:
    """Return all values of an attribute; empty where it is missing, empty or malformed."""
    try:
        found = dataset.get(keyword)
        if found is None or found == "":
            return []
        return list(found) if isinstance(found, MultiValue | list | tuple) else [found]
    except Exception:  # as in `value`
        return []


def text(dataset: Dataset, keyword: str) -> str | None:
    """Return an attribute as text without blanks around it; None where there is none."""
    found = value(dataset, keyword)
    stripped = "" if found is None else str(found).strip(" \0\t\r\n")
    return stripped or None


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return an attribute as a finite number; None where there is none."""
    return _finite(value(dataset, keyword))


def numbers(dataset: Dataset, keyword: str) -> list[float | None]:
    """Return all values of an attribute as finite numbers."""
    return [_finite(found) for found in values(dataset, keyword)]


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return an attribute as a whole number; None where there is none."""
    found = number(dataset, keyword)
    return int(found) if found is not None and found == int(found) else None


def day(dataset: Dataset, keyword: str) -> date | None:
    """Return an attribute of VR DA as a date; None where there is none."""
    found = text(dataset, keyword)
    try:
        return date(int(found[:4]), int(found[4:6]), int(found[6:8])) if found and len(found) == 8 else None
    except ValueError:
        return None


def is_present(dataset: Dataset, keyword: str) -> bool:
    """Tell whether an attribute is there and has a value, well formed or not."""
    return keyword in dataset and bool(dataset.get_item(keyword).value)


def item(dataset: Dataset, keyword: str, position: int = 0) -> Dataset | None:
    """Return one item of a sequence; None where it is not there."""
    try:
        found = dataset.get(keyword)
        if isinstance(found, Sequence) and position < len(found):
            one = found[position]
            return one if isinstance(one, Dataset) else None
    except Exception:  # as in `value`
        return None
    return None


def functional_group(dataset: Dataset, keyword: str, frame: int = 0) -> Dataset | None:
    """Return a functional group of an enhanced image (PS3.3 C.7.6.16): the frame's own, else the shared one.

    Args:
        dataset: The image.
        keyword: The macro's sequence.
        frame: Position of the frame, from 0.
    """
    for group in (
        item(dataset, "PerFrameFunctionalGroupsSequence", frame),
        item(dataset, "SharedFunctionalGroupsSequence"),
    ):
        found = item(group, keyword) if group is not None else None
        if found is not None:
            return found
    return None


def _finite(found: Any) -> float | None:
    try:
        converted = float(str(found)) if found is not None else None
    except ValueError:
        return None
    return converted if converted is not None and math.isfinite(converted) else None
