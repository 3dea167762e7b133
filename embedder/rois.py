"""Read the crops of a manifest's rows: each image once, in worker threads, never more than one a worker in memory."""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedder.findings import Box
from embedder.mammogram import Header, read_mammogram
from embedder.preparation import PreparationConfig, RoiCrop, crop_roi, prepare
from errors import MammoseekError

# Crops of a data set stay in memory up to this size; beyond it they lie in a temporary file that the system maps.
MEMORY_LIMIT_BYTES = 2 << 30


@dataclass(frozen=True, eq=False)
class RoiRead:
    """One row's crop, or why there is none.

    Attributes:
        position: Position of the row in the manifest, from 0.
        crop: The crop; None where it failed.
        error: The reason; None where it succeeded.
    """

    position: int
    crop: RoiCrop | None
    error: str | None


def read_crop(
    path: Path,
    box: Box | None,
    config: PreparationConfig,
    *,
    spacing_mm: float | None = None,
    view: str | None = None,
    margin: float = 1.0,
) -> tuple[RoiCrop, Header]:
    """Read one crop from an image file.

    Args:
        path: The image.
        box: The finding in pixels of the stored image; None for the whole breast.
        config: The preparation.
        spacing_mm: Millimetres per pixel where the caller knows it; the file's own otherwise.
        view: The view where the caller knows it; the file's own otherwise.
        margin: See `crop_roi`.

    Raises:
        MammoseekError: The image can't be read, or the box does not lie inside it.
    """
    [crop], header = _crops_of_image(path, [box], config, spacing_mm, view, margin)
    if isinstance(crop, MammoseekError):
        raise crop
    return crop, header


def _crops_of_image(
    path: Path,
    boxes: list[Box | None],
    config: PreparationConfig,
    spacing_mm: float | None,
    view: str | None,
    margin: float,
) -> tuple[list[RoiCrop | MammoseekError], Header]:
    mammogram = read_mammogram(path)
    prepared = prepare(
        mammogram.pixels, config, spacing_mm=spacing_mm or mammogram.spacing_mm, view=view or mammogram.view
    )
    crops: list[RoiCrop | MammoseekError] = []
    for box in boxes:
        try:
            crops.append(crop_roi(prepared, box, config, margin=margin))
        except MammoseekError as error:
            crops.append(type(error)(path, error.cause, error.remedy))
    return crops, mammogram


def row_box(row: pd.Series) -> Box | None:
    """Return the box of a manifest row; None for a whole breast."""
    if pd.isna(row["x0"]):
        return None
    return Box(int(row["x0"]), int(row["y0"]), int(row["x1"]), int(row["y1"]))


def _known(value: object) -> object | None:
    return None if pd.isna(value) else value  # type: ignore[call-overload]


def _read_group(
    path: str, group: pd.DataFrame, positions: list[int], config: PreparationConfig, margin: float
) -> list[RoiRead]:
    first = group.iloc[0]
    spacing, view = _known(first["spacing_mm"]), _known(first["view"])
    try:
        crops, _ = _crops_of_image(
            Path(path),
            [row_box(row) for _, row in group.iterrows()],
            config,
            float(spacing) if spacing is not None else None,  # type: ignore[arg-type]
            str(view) if view is not None else None,
            margin,
        )
    except MammoseekError as error:
        return [RoiRead(position, None, str(error)) for position in positions]
    return [
        RoiRead(position, None, str(crop)) if isinstance(crop, MammoseekError) else RoiRead(position, crop, None)
        for position, crop in zip(positions, crops, strict=True)
    ]


def default_workers() -> int:
    """Return how many threads read images unless told otherwise: one a core, eight at most."""
    return max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


def read_rois(
    frame: pd.DataFrame, config: PreparationConfig, *, margin: float = 1.0, workers: int | None = None
) -> Iterator[RoiRead]:
    """Yield the crop of every row, image by image in the manifest's order; a bad image costs its own rows only.

    Args:
        frame: A manifest with absolute paths.
        config: The preparation.
        margin: See `crop_roi`.
        workers: Threads that read and prepare images; each holds one full image at a time.
    """
    workers = workers or default_workers()
    order: dict[str, list[int]] = {}
    for position, path in enumerate(frame["path"]):
        order.setdefault(str(path), []).append(position)
    pending: deque[Future[list[RoiRead]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="mammoseek-read") as pool:
        try:
            for path, positions in order.items():
                pending.append(
                    pool.submit(_read_group, path, frame.iloc[positions], positions, config, margin)
                )
                # Crops are small: a few finished images may wait while the network works, so that it never does.
                if len(pending) >= 4 * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


@dataclass(frozen=True, eq=False)
class CropStore:
    """The crops of a manifest, decoded once for many epochs.

    Attributes:
        pixels: float16 (rows, height, width) in [0, 1]; in memory or mapped from a temporary file.
        extent_mm: float32 (rows,), NaN where unknown.
        frame: The manifest's rows that could be read, in order.
        failures: Row id and message of those that could not.
    """

    pixels: npt.NDArray[np.float16]
    extent_mm: npt.NDArray[np.float32]
    frame: pd.DataFrame
    failures: list[tuple[str, str]]

    def take(self, frame: pd.DataFrame) -> "CropStore":
        """Return the crops of these rows, which keep the columns that they come with; rows not here are left out."""
        places = {row_id: place for place, row_id in enumerate(self.frame["row_id"])}
        here = frame[frame["row_id"].isin(places)].reset_index(drop=True)
        chosen = np.array([places[row_id] for row_id in here["row_id"]], np.int64)
        failures = [failure for failure in self.failures if failure[0] in set(frame["row_id"])]
        return CropStore(self.pixels[chosen], self.extent_mm[chosen], here, failures)


def load_crops(
    frame: pd.DataFrame,
    config: PreparationConfig,
    *,
    margin: float = 1.0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    memory_limit: int = MEMORY_LIMIT_BYTES,
) -> CropStore:
    """Read the crops of all rows.

    Args:
        frame: A manifest with absolute paths.
        config: The preparation.
        margin: See `crop_roi`.
        workers: Threads that read images.
        progress: Called with rows done and rows in all.
        memory_limit: Bytes of crops beyond which they go to a temporary file.
    """
    shape = (len(frame), round(config.height * margin), round(config.width * margin))
    pixels: npt.NDArray[np.float16]
    if int(np.prod(shape)) * 2 > memory_limit:
        # An unnamed file: it is gone when the last handle closes, however the process ends.
        with tempfile.TemporaryFile(prefix="mammoseek-crops-") as file:
            pixels = np.memmap(file, np.float16, "w+", shape=shape)
    else:
        pixels = np.empty(shape, np.float16)
    extent = np.full(len(frame), np.nan, np.float32)
    readable = np.zeros(len(frame), np.bool_)
    failures: list[tuple[str, str]] = []
    for done, read in enumerate(read_rois(frame, config, margin=margin, workers=workers), start=1):
        if read.crop is None:
            failures.append((str(frame["row_id"].iloc[read.position]), str(read.error)))
        else:
            pixels[read.position] = read.crop.pixels
            extent[read.position] = np.nan if read.crop.extent_mm is None else read.crop.extent_mm
            readable[read.position] = True
        if progress is not None:
            progress(done, len(frame))
    if readable.all():
        return CropStore(pixels, extent, frame.reset_index(drop=True), failures)
    return CropStore(pixels[readable], extent[readable], frame[readable].reset_index(drop=True), failures)
