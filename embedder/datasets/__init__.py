"""Public data sets in their official layouts, read into manifests: one file for each."""

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
        DatasetError: There is no adapter of that name, or the data set can't be read; the error says why.
        ManifestError: A cell of its table is wrong; the error names row and column.
    """
    if name not in DATASETS:
        raise DatasetError(f"data set {name!r}", "is unknown", f"the known ones are {', '.join(DATASETS)}")
    return DATASETS[name](Path(path), progress=progress, **options)
