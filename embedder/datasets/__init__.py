"""Public data sets in their official layouts, read into manifests: one file for each."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedder.datasets.cbisddsm import read_cbis_ddsm
from embedder.datasets.minimias import read_mini_mias
from embedder.datasets.reading import DatasetError, DatasetReading, Progress
from embedder.datasets.rsna import read_rsna
from embedder.datasets.table import read_table

__all__ = ["DATASETS", "DatasetError", "DatasetReading", "Progress", "read_dataset"]

DATASETS: dict[str, Callable[..., DatasetReading]] = {
    "mini-mias": read_mini_mias,
    "cbis-ddsm": read_cbis_ddsm,
    "rsna": read_rsna,
    "table": read_table,
}
"""The adapters by the name of their data set. Each takes a path, `progress=`, and options of its own."""


def read_dataset(name: str, path: Path, *, progress: Progress | None = None, **options: Any) -> DatasetReading:
    """Read a data set into a manifest.

    Args:
        name: One of DATASETS.
        path: Where it lies: its folder, or the file of a table.
        progress: Called with files done and files in all.
        options: The adapter's own: `columns` and `dataset` of `read_table`.

    Raises:
        DatasetError: There is no adapter of that name, it has no such option, or the data set can't be read; the
            error says why.
        ManifestError: A cell of its table is wrong; the error names row and column.
    """
    if name not in DATASETS:
        raise DatasetError(f"data set {name!r}", "is unknown", f"the known ones are {', '.join(DATASETS)}")
    for option in options:
        if option not in inspect.signature(DATASETS[name]).parameters:
            takers = [other for other, read in DATASETS.items() if option in inspect.signature(read).parameters]
            remedy = f"leave it out: it is for {', '.join(takers)}" if takers else "leave it out"
            raise DatasetError(f"data set {name!r}", f"takes no option {option!r}", remedy)
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # the adapter says what should be there
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise DatasetError(path, f"can't be opened ({cause})", "name a folder or table that can be") from error
    return DATASETS[name](Path(path), progress=progress, **options)
