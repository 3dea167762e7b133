"""Where on a manifest's images normal tissue may be looked for, and where in the breast its lesions lie."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from embedder.breast import Mask, shrink
from embedder.findings import Box, FindingError, patient_key
from embedder.mammogram import read_mammogram
from embedder.preparation import PreparationError
from embedder.rois import default_workers, frame_number, row_box
from embedder.tissue import TISSUE_SHARE, tissue_mask
from errors import MammoseekError

__all__ = ["TISSUE_SHARE", "Lesion", "TissueImage", "TissueMap"]

_IMAGE = ["path", "frame"]


@dataclass(frozen=True)
class Lesion:
    """A lesion's size and its place in the breast.

    Attributes:
        dataset: Its data set.
        woman: Her key.
        width: Columns of its box, in pixels of its own image.
        height: Rows of its box.
        spacing_mm: Of its image; None where unknown.
        across: Its middle, from the chest wall (0) to the nipple's side of the breast's bounding box (1).
        down: Its middle, from the top of the breast's bounding box (0) to its bottom (1).
    """

    dataset: str
    woman: str
    width: int
    height: int
    spacing_mm: float | None
    across: float
    down: float


@dataclass(frozen=True, eq=False)
class TissueImage:
    """One image with the breast on it.

    Attributes:
        key: The first by name of its rows' ids: it names the image wherever it lies.
        dataset: The data set.
        woman: Her key.
        record: What all rows of the image say of it.
        rows: Rows of the stored image.
        columns: Columns of the stored image.
        spacing_mm: Millimetres per pixel; None where unknown.
        mask: bool, breast tissue without pectoral muscle on a copy of at most 256 pixels a side.
        mirrored: The chest wall is at the right of the stored image.
        marks: What is marked on it, normal tissue aside.
    """

    key: str
    dataset: str
    woman: str
    record: dict[str, Any]
    rows: int
    columns: int
    spacing_mm: float | None
    mask: Mask
    mirrored: bool
    marks: tuple[Box, ...]

    def share(self, box: Box) -> float:
        """Return the share of a box that is breast tissue."""
        down, across = self.mask.shape[0] / self.rows, self.mask.shape[1] / self.columns
        y0, x0 = int(box.y0 * down), int(box.x0 * across)
        y1, x1 = max(y0 + 1, int(np.ceil(box.y1 * down))), max(x0 + 1, int(np.ceil(box.x1 * across)))
        return float(self.mask[y0:y1, x0:x1].mean())

    def size_of(self, lesion: Lesion) -> tuple[int, int]:
        """Return a lesion's width and height in pixels of this image: as large on the patient where both say."""
        scale = lesion.spacing_mm / self.spacing_mm if lesion.spacing_mm and self.spacing_mm else 1.0
        return max(1, round(lesion.width * scale)), max(1, round(lesion.height * scale))

    def box_at(self, across: float, down: float, size: tuple[int, int]) -> Box | None:
        """Return a box of a size at a place of the breast, see `Lesion`; None where it would leave the image."""
        left, top, width, height = self._breast
        x = left + (1 - across if self.mirrored else across) * width
        y = top + down * height
        x0, y0 = round(x - size[0] / 2), round(y - size[1] / 2)
        if x0 < 0 or y0 < 0 or x0 + size[0] > self.columns or y0 + size[1] > self.rows:
            return None
        return Box(x0, y0, x0 + size[0], y0 + size[1])

    def place_of(self, box: Box) -> tuple[float, float]:
        """Return where in the breast the middle of a box is, see `Lesion`."""
        left, top, width, height = self._breast
        x, y = box.centre
        across = (x - left) / width
        return (1 - across if self.mirrored else across), (y - top) / height

    @cached_property
    def _breast(self) -> tuple[float, float, float, float]:
        """The breast's bounding box as left, top, width and height in pixels of the stored image."""
        down, across = self.rows / self.mask.shape[0], self.columns / self.mask.shape[1]
        ys, xs = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        if not ys.size:
            return 0.0, 0.0, float(self.columns), float(self.rows)
        return xs[0] * across, ys[0] * down, (xs[-1] + 1 - xs[0]) * across, (ys[-1] + 1 - ys[0]) * down


@dataclass(frozen=True, eq=False)
class TissueMap:
    """The images of a manifest on which normal tissue is known, and all its lesions.

    Attributes:
        images: By data set and key.
        templates: All lesions, by row id.
        row_ids: Ids that the manifest has.
        left_out: Images whose normal tissue is not known, see `normal_is_known`.
        failures: Path and message of images that can't be read.
    """

    images: list[TissueImage]
    templates: list[Lesion]
    row_ids: frozenset[str]
    left_out: int
    failures: list[tuple[str, str]]

    @classmethod
    def read(
        cls,
        frame: pd.DataFrame,
        *,
        workers: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> "TissueMap":
        """Read a manifest's images and find the breast on each.

        Args:
            frame: A manifest with absolute paths and a column `tissue`.
            workers: Threads that read images.
            progress: Called with images read and images in all.

        Raises:
            FindingError: There is no lesion with a place, or no image whose normal tissue is known.
        """
        lesions = (frame["granularity"] == "finding") & (frame["tissue"] == "lesion")
        if not lesions.any():
            raise FindingError("manifest", "has no lesion whose size normal tissue could have", "add findings")
        ordered = frame.assign(woman=patient_key(frame)).sort_values("row_id")
        ordered["frame"] = ordered["frame"] if "frame" in frame.columns else None
        groups = [rows for _, rows in ordered.groupby(_IMAGE, sort=False, dropna=False)]
        wanted = [rows for rows in groups if normal_is_known(rows) or (rows["tissue"] == "lesion").any()]
        images: list[TissueImage] = []
        templates: list[Lesion] = []
        failures: list[tuple[str, str]] = []
        with ThreadPoolExecutor(workers or default_workers()) as pool:
            for done, (rows, found) in enumerate(zip(wanted, pool.map(_read, wanted), strict=True), start=1):
                if isinstance(found, MammoseekError):
                    failures.append((str(rows["path"].iloc[0]), found.cause))
                else:
                    templates += _templates(rows, found)
                    images += [found] if normal_is_known(rows) else []
                if progress is not None:
                    progress(done, len(wanted))
        if not images or not templates:
            reason = f" ({failures[0][0]}: {failures[0][1]})" if failures else ""
            what = "image whose normal tissue is known" if not images else "lesion on an image that can be read"
            raise FindingError("manifest", f"has no {what}{reason}", "add breasts called normal, or check the images")
        images.sort(key=lambda image: (image.dataset, image.key))
        left_out = sum(not normal_is_known(rows) for rows in groups)
        return cls(images, templates, frozenset(frame["row_id"].astype(str)), left_out, failures)

    def lesions(self, dataset: str) -> list[Lesion]:
        """Return the lesions of a data set; all there are where it has none."""
        return [lesion for lesion in self.templates if lesion.dataset == dataset] or self.templates


def normal_is_known(rows: pd.DataFrame) -> bool:
    """Tell whether what is not marked on an image is known to be normal.

    It is where a reader called the breast normal, or where lesions are marked and what is said of the whole breast
    tells of no other: a breast that is malignant has a malignant mark, and its lesion type is that of a mark. Of a
    breast of which nothing is said, or only that no cancer is known, it is not.

    Args:
        rows: All rows of the image, with their `tissue`.
    """
    breast, marks = rows[rows["granularity"] == "breast"], rows[rows["tissue"] == "lesion"]
    if marks.empty:
        said = [*breast["lesion_type"].dropna(), *breast["margin"].dropna(), *breast["shape"].dropna()]
        unsure = (rows["granularity"] == "finding") & rows["tissue"].isna()
        return not said and not unsure.any() and set(breast["pathology"].dropna()) == {"normal"}
    for name, telling in (("pathology", {"malignant", "benign"}), ("lesion_type", None)):
        named = set(breast[name].dropna())
        named = named & telling if telling is not None else named
        if marks[name].notna().all() and not named <= set(marks[name]):
            return False
    return True


def _read(rows: pd.DataFrame) -> TissueImage | MammoseekError:
    first = rows.iloc[0]
    path = Path(str(first["path"]))
    try:
        mammogram = read_mammogram(path, frame=frame_number(path, None if pd.isna(first["frame"]) else first["frame"]))
        record = {str(name): _only(rows[name]) for name in rows.columns}
        stated = record["image_rows"], record["image_columns"]
        actual = mammogram.rows, mammogram.columns
        if None not in stated and stated != actual:
            cause = f"it has {actual[1]} × {actual[0]} pixels, and its boxes are for {stated[1]} × {stated[0]}"
            raise PreparationError(path, cause, "give the images that the manifest was made from")
        mask, mirrored = tissue_mask(mammogram, record["view"])
    except MammoseekError as error:
        return error
    marked = rows[(rows["granularity"] == "finding") & (rows["tissue"] != "normal")]
    return TissueImage(
        key=str(first["row_id"]),
        dataset=str(first["dataset"]),
        woman=str(first["woman"]),
        record={**record, "image_rows": actual[0], "image_columns": actual[1]},
        rows=actual[0],
        columns=actual[1],
        spacing_mm=record["spacing_mm"] or mammogram.spacing_mm,
        mask=shrink(mask.astype(np.float32)) > 0.5,
        mirrored=mirrored,
        marks=tuple(box for _, row in marked.iterrows() if (box := row_box(row)) is not None),
    )


def _templates(rows: pd.DataFrame, image: TissueImage) -> list[Lesion]:
    found = []
    for _, row in rows[(rows["tissue"] == "lesion") & rows["x0"].notna()].iterrows():
        box = row_box(row)
        assert box is not None, "its corners are known"
        place = image.place_of(box)
        found.append(Lesion(image.dataset, image.woman, box.width, box.height, image.spacing_mm, *place))
    return found


def _only(column: pd.Series) -> Any:
    """Return what all known cells of a column say; None where they differ or none is known."""
    known = column.dropna().unique()
    return known[0] if len(known) == 1 else None
