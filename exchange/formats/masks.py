"""Masks: one image for each mammogram, whose parts are the detections."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image

from embedder.mammogram import MAXIMUM_PIXELS
from embedder.quiet import quiet_libraries
from exchange import ExchangeError
from exchange.formats.classnames import read_names
from exchange.formats.marks import Corners, Mark, Parsed, ReadOptions, RowError
from exchange.formats.tracing import region_outline
from exchange.imagefolders import list_images
from exchange.imagenames import stem_of

_SUFFIXES = ("_mask", "-mask", ".mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_roi")
_MOST_LABELS = 64  # values of one mask: more are grey levels
_MOST_PARTS = 10_000
_BINARY = (1, 255, 65535)  # what marks a place, and is no class
_DICOM_START = 132  # a preamble of 128 bytes, then DICM (PS3.10 7.1)


def read_masks(path: Path, options: ReadOptions) -> Parsed:
    """Read one mask, or a folder of them: each part of a mask (8-connected) is a detection, with its outline.

    A mask is named as its mammogram, perhaps with `_mask` behind it, and has its size. Its lowest value is background
    where it has two values; else 0 is, and each other value is a class (see `ReadOptions.names`). Parts of fewer
    than `ReadOptions.minimum_area` pixels are dropped, and counted in the notes.

    Raises:
        ExchangeError: There are no masks, or the names of classes can't be read.
    """
    parsed = Parsed(path)
    files = [Path(file) for file, _ in list_images(path.resolve())] if path.is_dir() else [path]
    if not files:
        raise ExchangeError(path, "holds no masks", "name a folder of PNG, TIFF, PGM or DICOM masks")
    names = read_names(options.names) if options.names is not None else {}
    tiny = 0
    for file in files:
        try:
            tiny += _read(file, names, options.minimum_area, parsed)
        except RowError as error:
            parsed.refuse(file.name, error)
    if tiny:
        parsed.notes.append(f"{tiny:,} parts of fewer than {options.minimum_area} pixels were dropped")
    return parsed


def mask_image(file: Path) -> str:
    """Return the name of the image that a mask is of.

    >>> mask_image(Path("masks/mdb001_mask.png"))
    'mdb001'
    """
    stem = stem_of(file.name)
    for suffix in _SUFFIXES:
        if stem.lower().endswith(suffix) and len(stem) > len(suffix):
            return stem[: -len(suffix)]
    return stem


def mask_pixels(file: Path) -> npt.NDArray[Any]:
    """Return the stored values of a mask, integers (rows, columns).

    Raises:
        RowError: It can't be read, has several images, or is coloured.
    """
    try:
        with quiet_libraries():
            pixels = _dicom_pixels(file) if _is_dicom(file) else _raster_pixels(file)
    except RowError:
        raise
    except Exception as error:  # every decoder raises its own kinds, which mean the same here
        raise RowError(
            f"can't be read as a mask ({(str(error).splitlines() or [type(error).__name__])[0][:160]})"
        ) from error
    if pixels.ndim == 3 and pixels.shape[2] in (2, 3, 4):
        colours = pixels[..., : pixels.shape[2] - (pixels.shape[2] in (2, 4))]  # without transparency
        if (colours != colours[..., :1]).any():
            raise RowError("is coloured: give a mask of numbers")
        pixels = colours[..., 0]
    if pixels.ndim != 2 or pixels.dtype.kind not in "bui":
        raise RowError("is no image of whole numbers")
    return pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels


def _read(file: Path, names: dict[int, str], minimum_area: int, parsed: Parsed) -> int:
    """Add the parts of one mask; return how many were too small."""
    mask = mask_pixels(file)
    values = np.unique(mask)
    if len(values) > _MOST_LABELS:
        raise RowError(f"has {len(values)} values: this is no mask but a picture")
    marked = (values[1:] if len(values) <= 2 else values[values != 0]).tolist()
    binary = len(marked) == 1 and marked[0] in _BINARY
    tiny = 0
    for value in marked:
        word = names.get(value, None if binary else str(value))
        where = file.name if binary else f"{file.name} value {value}"
        for position, (box, region) in enumerate(_parts(mask == value), 1):
            if np.count_nonzero(region) < minimum_area:
                tiny += 1
                continue
            outline = tuple((x + box[0], y + box[1]) for x, y in region_outline(region))
            parsed.add(
                Mark(
                    f"{where} part {position}",
                    mask_image(file),
                    box=box,
                    outline=outline,
                    word=word,
                    rows=mask.shape[0],
                    columns=mask.shape[1],
                )
            )
    return tiny


def _parts(region: npt.NDArray[np.bool_]) -> Iterator[tuple[Corners, npt.NDArray[np.bool_]]]:
    """Yield the box of each 8-connected part, and the part within it."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=8)
    if count > _MOST_PARTS:
        raise RowError(f"has {count - 1:,} parts: this is no mask but a picture")
    for part in range(1, count):
        x, y, width, height = (int(value) for value in stats[part, :4])
        yield (x, y, x + width, y + height), labels[y : y + height, x : x + width] == part


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(_DICOM_START)[128:] == b"DICM"


def _dicom_pixels(file: Path) -> npt.NDArray[Any]:
    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Rows", "Columns", "NumberOfFrames"])
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise RowError("has several frames")
    _check_pixels(int(header.Rows) * int(header.Columns))
    return np.asarray(pydicom.dcmread(file).pixel_array)


def _raster_pixels(file: Path) -> npt.NDArray[Any]:
    with Image.open(file, formats=["PNG", "PPM", "TIFF", "JPEG"]) as image:
        _check_pixels(image.width * image.height)
        if getattr(image, "n_frames", 1) != 1:
            raise RowError("has several pages")
        return np.asarray(image)


def _check_pixels(pixels: int) -> None:
    if pixels > MAXIMUM_PIXELS:
        raise RowError(f"declares {pixels // 1_000_000} million pixels")
