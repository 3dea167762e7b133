"""What the page must know of the gallery before anything is asked: sizes, and the values that filters can take."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from index.facets import SIZE
from index.gallery import Gallery

_FILTERS = ("density", "view", "lesion_type", "dataset")
_FACETS = ("margin", "shape", "density")
_LABELS = ("pathology", "lesion_type", "density", "assessment")
_MOST_VALUES = 50
_SIZE_COLUMNS = ("x0", "y0", "x1", "y1", "spacing_mm")


def own_version() -> str:
    """Return the installed version of mammoseek."""
    try:
        return version("mammoseek")
    except PackageNotFoundError:
        return "uninstalled"


def gallery_facts(gallery: Gallery) -> dict[str, Any]:
    """Return the parts of `GET /session` that a gallery decides, as plain values for JSON."""
    table = gallery.table
    known = {name for name in table.names if table.column(name).known} if len(gallery) else set()
    facets = [name for name in _FACETS if name in known]
    if known.issuperset(_SIZE_COLUMNS):
        facets.append(SIZE)
    return {
        "gallery": {
            "rows": len(gallery),
            "women": int(gallery.women.max()) + 1 if len(gallery) else 0,
            "granularity": gallery.identity.granularity,
            "generation": gallery.generation,
            "model": gallery.identity.model_digest[:16],
            "labels": [name for name in _LABELS if name in known],
        },
        "filters": {
            **{name: _values(gallery, name) if name in known else [] for name in _FILTERS},
            "age": _range(gallery, "age") if "age" in known else None,
        },
        "facets": facets,
        "typical_label": "pathology" if "pathology" in known else None,
    }


def _values(gallery: Gallery, name: str) -> list[str]:
    """Return a column's values in order; the most frequent ones where there are many."""
    column = gallery.table.column(name)
    if column.codes is None:
        return sorted({str(value) for value in column.distinct[~column.missing].tolist()})[:_MOST_VALUES]
    counts = np.bincount(column.codes[~column.missing], minlength=len(column.distinct))
    frequent = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
    return sorted(str(column.distinct[place]) for place in frequent if counts[place])


def _range(gallery: Gallery, name: str) -> list[float] | None:
    column = gallery.table.column(name)
    if column.codes is not None:
        return None
    numbers = np.asarray(column.cells[~column.missing], np.float64)
    return [float(numbers.min()), float(numbers.max())]
