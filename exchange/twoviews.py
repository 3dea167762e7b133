"""Detections on the CC and the MLO view of one breast that are one lesion.

A lesion lies about equally far from the nipple in both views (Paquerault et al., Medical Physics 29, 238-247, 2002, who
fuse candidates of two views by that distance; van Engeland et al., Medical Physics 33, 3203-3212, 2006). So pairs are
made by the difference of the two distances, the most alike first, and no detection is in two pairs. Where the nipple is
not known, the foremost point of the breast, that furthest from the chest wall, stands in for it; an image in which it
can't be found has no pairs.

It is a rule of thumb: lesions that lie equally far from the nipple can't be told apart by it.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from embedder.breast import Pixels, chest_wall_is_right, shrink, small_breast_mask
from embedder.findings import BOX_COLUMNS, patient_key
from embedder.mammogram import read_mammogram
from embedder.rois import default_workers
from errors import MammoseekError
from exchange import ExchangeError
from exchange.matching import centres

Point = tuple[float, float]

_VIEWS = ("CC", "MLO")
# Nothing stands out from a background where all is breast: its foremost point is the image's border, not the nipple.
_WHOLE_IMAGE = 0.99


@dataclass(frozen=True)
class PairingConfig:
    """Which detections of two views are one lesion.

    Args:
        most_mm: Largest difference of their distances from the nipple.
        same_type: Two whose `lesion_type` is known and differs are not one.

    Raises:
        ExchangeError: The difference is no positive length.
    """

    most_mm: float = 15.0
    same_type: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.most_mm < np.inf:
            raise ExchangeError("pairing", f"{self.most_mm} mm is no positive length", "15 is a start")


def foremost_point(pixels: Pixels) -> Point | None:
    """Return the point of the breast that is furthest from the chest wall, which stands in for an unknown nipple.

    Args:
        pixels: float32 (rows, columns) in [0, 1], dense tissue bright.

    Returns:
        x and y in pixels; None where no breast stands out from the background.
    """
    small = shrink(pixels)
    mask = small_breast_mask(small)
    if mask.mean() > _WHOLE_IMAGE or not mask.any():
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    column = int(columns[0] if chest_wall_is_right(small, mask) else columns[-1])
    row = float(np.flatnonzero(mask[:, column]).mean())
    scale_x, scale_y = pixels.shape[1] / small.shape[1], pixels.shape[0] / small.shape[0]
    return (column + 0.5) * scale_x, (row + 0.5) * scale_y


def find_nipples(
    paths: list[str], *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, Point], list[tuple[str, str]]]:
    """Read images and return the foremost point of each breast.

    Args:
        paths: Image files.
        workers: Threads that read images.
        progress: Called with images read and images in all.

    Returns:
        By path, x and y in pixels; and path and message of those in which it can't be found.
    """

    def find(path: str) -> Point | str:
        try:
            return foremost_point(read_mammogram(Path(path)).pixels) or "no breast stands out from the background"
        except MammoseekError as error:
            return error.cause

    found: dict[str, Point] = {}
    failures: list[tuple[str, str]] = []
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        for done, (path, answer) in enumerate(zip(paths, pool.map(find, paths), strict=True), start=1):
            if isinstance(answer, str):
                failures.append((path, answer))
            else:
                found[path] = answer
            if progress is not None:
                progress(done, len(paths))
    return found, failures


def pair_views(
    detections: pd.DataFrame, nipples: Mapping[str, Point], config: PairingConfig | None = None
) -> pd.DataFrame:
    """Give one `lesion_id` to detections on the CC and the MLO view of one breast that may be one lesion.

    Args:
        detections: A table as `exchange.detections.detections_frame` gives it. Those that have a `lesion_id` keep it
            and are in no pair, as are those without box, spacing, side, view or nipple, and those of other views.
        nipples: By path, x and y of the nipple, or of what stands in for it, in pixels of the stored image.
        config: Which are one.

    Returns:
        The table; `lesion_id` of a pair is its two ids, joined by `+`, CC first.
    """
    config = config or PairingConfig()
    table = detections.reset_index(drop=True)
    distance = _distances(table, nipples)
    free = table["lesion_id"].isna().to_numpy() & table["laterality"].notna().to_numpy() & ~np.isnan(distance)
    ids, views = table["row_id"].astype(str).to_numpy(dtype=object), table["view"].to_numpy(dtype=object)
    types = table["lesion_type"].astype("object").to_numpy()
    candidates = []
    breasts = pd.DataFrame(
        {"woman": patient_key(table), "study": table["study_id"], "side": table["laterality"]}, index=table.index
    )
    for members in breasts[free].groupby(["woman", "study", "side"], dropna=False).groups.values():
        rows = np.asarray(members, np.int64)
        first, second = (rows[views[rows] == view] for view in _VIEWS)
        for one in first:
            for other in second:
                known = not (pd.isna(types[one]) or pd.isna(types[other]))
                apart = abs(distance[one] - distance[other])
                if apart <= config.most_mm and not (config.same_type and known and types[one] != types[other]):
                    candidates.append((apart, ids[one], ids[other], one, other))
    lesion = table["lesion_id"].astype("object").to_numpy(copy=True)
    taken: set[int] = set()
    for _, cc, mlo, one, other in sorted(candidates):
        if one not in taken and other not in taken:
            taken |= {one, other}
            lesion[[one, other]] = f"{cc}+{mlo}"
    return table.assign(lesion_id=pd.Series(lesion, dtype="object"))


def _distances(table: pd.DataFrame, nipples: Mapping[str, Point]) -> np.ndarray:
    """Return the distance of each detection's middle from the nipple in mm; NaN where it can't be told."""
    middles = centres(table[list(BOX_COLUMNS)].to_numpy(np.float64, na_value=np.nan))
    unknown = (np.nan, np.nan)
    places = np.array([nipples.get(str(path), unknown) for path in table["path"]], np.float64).reshape(-1, 2)
    spacing = table["spacing_mm"].to_numpy(np.float64, na_value=np.nan)
    return np.asarray(np.linalg.norm(middles - places, axis=1) * spacing, np.float64)
