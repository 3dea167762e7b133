"""Read the crops of a manifest's rows: each image once, in threads, at most one image a thread in memory."""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedder.crops import RoiCrop, crop_roi, crop_shape
from embedder.findings import Box
from embedder.handcrafted import describe, feature_count
from embedder.mammogram import Header, Mammogram, read_mammogram
from embedder.preparation import PreparationConfig, PreparationError, Prepared, prepare
from errors import MammoseekError

# Crops of a data set stay in memory up to this size; beyond it they lie in a temporary file.
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
    frame: int | None = None,
    allow_for_processing: bool = False,
) -> tuple[RoiCrop, Header]:
    """Read one crop from an image file.

    Args:
        path: The image.
        box: The finding in pixels of the stored image; None for the whole breast.
        config: The preparation.
        spacing_mm: Millimetres per pixel where the caller knows it; the file's own otherwise.
        view: The view where the caller knows it; the file's own otherwise.
        margin: See `crop_roi`.
        frame: Which image of a multi-frame file, counted from 1; None where there is only one.
        allow_for_processing: Take For Processing images too, see `read_mammogram`.

    Raises:
        MammoseekError: The image can't be read, or the box does not lie inside it.
    """
    mammogram = read_mammogram(path, frame=frame, allow_for_processing=allow_for_processing)
    [crop], header = crops_of_image(path, mammogram, [box], config, spacing_mm, view, margin)
    if isinstance(crop, MammoseekError):
        raise crop
    return crop, header


def crops_of_image(
    path: Path,
    mammogram: Mammogram,
    boxes: list[Box | None],
    config: PreparationConfig,
    spacing_mm: float | None,
    view: str | None,
    margin: float,
    stated_size: tuple[int, int] | None = None,
) -> tuple[list[RoiCrop | MammoseekError], Header]:
    """Prepare an image and cut its crops.

    Args:
        path: The image's file.
        mammogram: The image.
        boxes: The findings; None for the whole breast.
        config: The preparation.
        spacing_mm: See `read_crop`.
        view: See `read_crop`.
        margin: See `crop_roi`.
        stated_size: Rows and columns that the boxes were drawn on.

    Returns:
        A crop or its error for each box, and the header without the pixels, which would else live as long as
        it.
    """
    size = (mammogram.rows, mammogram.columns)
    if stated_size is not None and stated_size != size:
        raise PreparationError(
            path,
            f"it has {size[1]} × {size[0]} pixels, and its boxes are for {stated_size[1]} × {stated_size[0]}",
            "make the manifest anew from these images, or give the images that it was made from",
        )
    film = prepare_film(mammogram, config, spacing_mm, view)
    crops: list[RoiCrop | MammoseekError] = []
    for box in boxes:
        try:
            crops.append(film.crop(box, margin))
        except MammoseekError as error:
            crops.append(type(error)(path, error.cause, error.remedy))
    return crops, film.header


@dataclass(frozen=True, eq=False)
class Film:
    """A prepared image, of which any number of crops can be cut.

    Attributes:
        header: What its file says: not the pixels, which would else live as long as it.
        config: How it was prepared.
        prepared: What crops are cut from.
        plain: What descriptors measure.
    """

    header: Header
    config: PreparationConfig
    prepared: Prepared
    plain: Prepared

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        both = {id(part): part for part in (self.prepared, self.plain)}.values()
        return sum(part.pixels.nbytes + (0 if part.mask is None else part.mask.nbytes) for part in both)

    def crop(self, box: Box | None, margin: float = 1.0) -> RoiCrop:
        """Cut a finding, or the whole breast, with what is to be measured besides.

        Raises:
            PreparationError: A finding without a box, a breast with one, or a box that lies outside the image.
        """
        crop = crop_roi(self.prepared, box, self.config, margin=margin)
        if not self.config.descriptors:
            return crop
        found = describe(self.plain, box, self.config.granularity, self.config.descriptors)
        return replace(crop, descriptors=found)


def prepare_film(
    mammogram: Mammogram, config: PreparationConfig, spacing_mm: float | None = None, view: str | None = None
) -> Film:
    """Prepare an image.

    Args:
        mammogram: The image.
        config: The preparation.
        spacing_mm: See `read_crop`.
        view: See `read_crop`.
    """
    header = Header(**{field.name: getattr(mammogram, field.name) for field in fields(Header)})
    spacing_mm, view = spacing_mm or mammogram.spacing_mm, view or mammogram.view
    prepared = prepare(mammogram.pixels, config, spacing_mm=spacing_mm, view=view)
    plain = prepared
    if config.descriptors:
        # Descriptors measure what the film shows, before its contrast is worked on.
        untouched = replace(config, normalise=False, median=0, clahe=0.0, unsharp=0.0)
        if untouched != config:
            plain = prepare(mammogram.pixels, untouched, spacing_mm=spacing_mm, view=view)
    return Film(header, config, prepared, plain)


def row_box(row: pd.Series) -> Box | None:
    """Return the box of a manifest row; None for a whole breast."""
    if pd.isna(row["x0"]):
        return None
    return Box(int(row["x0"]), int(row["y0"]), int(row["x1"]), int(row["y1"]))


@dataclass(frozen=True)
class _Group:
    """Rows that are cut from one image in one way; what the manifest leaves open is None."""

    path: str
    spacing_mm: float | None
    view: str | None
    stated_size: tuple[int, int] | None
    frame: object


def _group_of(row: pd.Series) -> _Group:
    # The size matters to boxes only: a whole breast is found on any copy of its image.
    sized = not (pd.isna(row["x0"]) or pd.isna(row["image_rows"]) or pd.isna(row["image_columns"]))
    return _Group(
        str(row["path"]),
        None if pd.isna(row["spacing_mm"]) else float(row["spacing_mm"]),
        None if pd.isna(row["view"]) else str(row["view"]),
        (int(row["image_rows"]), int(row["image_columns"])) if sized else None,
        None if pd.isna(row.get("frame")) else row["frame"],
    )


def frame_number(path: Path, value: object) -> int | None:
    """Return the frame that a manifest's own column `frame` asks for; that column has no rules of its own before.

    Raises:
        PreparationError: It is no whole number from 1.
    """
    if value is None:
        return None
    try:
        number = float(str(value))
        if number >= 1 and number.is_integer():
            return int(number)
    except ValueError:
        pass
    raise PreparationError(path, f"frame {str(value)[:80]!r} is no whole number from 1", "mend the manifest's column")


def _read_group(
    group: _Group, positions: list[int], boxes: list[Box | None], config: PreparationConfig, margin: float
) -> list[RoiRead]:
    try:
        path = Path(group.path)
        mammogram = read_mammogram(path, frame=frame_number(path, group.frame))
        crops, _ = crops_of_image(
            path, mammogram, boxes, config, group.spacing_mm, group.view, margin, group.stated_size
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
    """Yield every row's crop, image by image in the manifest's order; a bad image costs its own rows only.

    Args:
        frame: A manifest with absolute paths. Where it has a column `frame`, that is which image of a multi-frame
            file a row is on, counted from 1.
        config: The preparation.
        margin: See `crop_roi`.
        workers: Threads that read and prepare images; each holds one full image at a time.
    """
    workers = workers or default_workers()
    order: dict[_Group, list[int]] = {}
    boxes: list[Box | None] = []
    for position, (_, row) in enumerate(frame.iterrows()):
        order.setdefault(_group_of(row), []).append(position)
        boxes.append(row_box(row))
    pending: deque[Future[list[RoiRead]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="mammoseek-read") as pool:
        try:
            for group, positions in order.items():
                places = [boxes[position] for position in positions]
                pending.append(pool.submit(_read_group, group, positions, places, config, margin))
                # Crops are small: a few finished images may wait while the network works, so that it never
                # does.
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
        descriptors: float32 (rows, features), see `RoiCrop`; no features where none are asked for.
        frame: The manifest's rows that could be read, in order.
        failures: Row id and message of those that could not.
    """

    pixels: npt.NDArray[np.float16]
    extent_mm: npt.NDArray[np.float32]
    descriptors: npt.NDArray[np.float32]
    frame: pd.DataFrame
    failures: list[tuple[str, str]]

    def take(self, frame: pd.DataFrame) -> "CropStore":
        """Return the crops of these rows, which keep their own columns; rows not here are left out."""
        places = {row_id: place for place, row_id in enumerate(self.frame["row_id"])}
        here = frame[frame["row_id"].isin(places)].reset_index(drop=True)
        chosen = np.array([places[row_id] for row_id in here["row_id"]], np.int64)
        asked = set(frame["row_id"])
        failures = [failure for failure in self.failures if failure[0] in asked]
        if np.array_equal(chosen, np.arange(len(self.frame))):
            return CropStore(self.pixels, self.extent_mm, self.descriptors, here, failures)
        # What did not fit into memory does not fit a second time.
        shape = (len(chosen), *self.pixels.shape[1:])
        pixels = _map_file(shape) if isinstance(self.pixels, np.memmap) else np.empty(shape, np.float16)
        for target, source in enumerate(chosen):
            pixels[target] = self.pixels[source]
        return CropStore(pixels, self.extent_mm[chosen], self.descriptors[chosen], here, failures)


def _map_file(shape: tuple[int, ...]) -> npt.NDArray[np.float16]:
    """Return a float16 array in an unnamed temporary file, which is gone with it however the process ends.

    Raises:
        PreparationError: The disk has no room for it.
    """
    size = max(1, 2 * int(np.prod(shape)))
    try:
        with tempfile.TemporaryFile(prefix="mammoseek-crops-") as file:
            # Room is claimed now: a mapped file that runs out of disk later ends the process without a word.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.float16, "r+" if hasattr(os, "posix_fallocate") else "w+", shape=shape)
    except OSError as error:
        raise PreparationError(
            tempfile.gettempdir(),
            f"has no room for {size / 1e9:.1f} GB of crops ({error.strerror or error})",
            "free some disk, or name another folder by the environment variable TMPDIR",
        ) from error


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

    Raises:
        PreparationError: The disk has no room for that file.
    """
    shape = (len(frame), *crop_shape(config, margin))
    mapped = 2 * int(np.prod(shape)) > memory_limit
    pixels = _map_file(shape) if mapped else np.empty(shape, np.float16)
    extent = np.full(len(frame), np.nan, np.float32)
    described = np.zeros((len(frame), feature_count(config)), np.float32)
    readable = np.zeros(len(frame), np.bool_)
    failures: list[tuple[str, str]] = []
    for done, read in enumerate(read_rois(frame, config, margin=margin, workers=workers), start=1):
        if read.crop is None:
            failures.append((str(frame["row_id"].iloc[read.position]), str(read.error)))
        else:
            pixels[read.position] = read.crop.pixels
            extent[read.position] = np.nan if read.crop.extent_mm is None else read.crop.extent_mm
            if read.crop.descriptors is not None:
                described[read.position] = read.crop.descriptors
            readable[read.position] = True
        if progress is not None:
            progress(done, len(frame))
    # Close the gaps in place: a copy would bring a mapped file into memory.
    kept = np.flatnonzero(readable)
    for target, source in enumerate(kept):
        if target != source:
            pixels[target] = pixels[source]
    here = frame.iloc[kept].reset_index(drop=True)
    return CropStore(pixels[: len(kept)], extent[kept], described[kept], here, failures)
