"""From scored places to boxes: peaks of each scale's map, the best of those that overlap, and a heat map."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter
from scipy.special import expit

from embedder.breast import Mask
from embedder.dense import DensePlaces
from embedder.findings import Box
from exchange.scales import Scale
from exchange.suppression import keepers

_HEAT_SIDE = 512  # pixels of the longer side of a heat map
_TISSUE_SHARE = 0.75  # of a box; lesions lie at the skin too
_NOWHERE = -1e9  # the log odds of what is no place


@dataclass(frozen=True, eq=False)
class ScoredScale:
    """The places of one scale with their log odds of a lesion.

    Attributes:
        scale: The scale.
        places: The places.
        log_odds: float64 (places,).
    """

    scale: Scale
    places: DensePlaces
    log_odds: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Peak:
    """A place that no neighbour on its scale's grid surpasses.

    Attributes:
        box: In pixels of the stored image.
        log_odds: Of a lesion.
    """

    box: Box
    log_odds: float


def find_peaks(scored: Sequence[ScoredScale], shape: tuple[int, int], *, overlap: float, most: int) -> list[Peak]:
    """Return the best peaks of all scales, best first, without those that overlap a better one too much.

    Args:
        scored: The scales.
        shape: Rows and columns of the stored image, at whose borders boxes are cut.
        overlap: The largest intersection over union with a better box that is kept.
        most: How many at most.
    """
    peaks: list[Peak] = []
    for one in scored:
        if not len(one.log_odds):
            continue
        plane = one.places.plane(one.log_odds, _NOWHERE)
        rows, columns = one.places.cells.T
        # Of a plateau each place is a peak; suppression leaves one of them.
        highest = plane[rows, columns] >= maximum_filter(plane, size=3, mode="constant", cval=_NOWHERE)[rows, columns]
        for place in np.flatnonzero(highest):
            x, y = one.places.centres[place].tolist()
            box = square(x, y, one.scale.box, shape)
            if box is not None:
                peaks.append(Peak(box, float(one.log_odds[place])))
    peaks.sort(key=lambda peak: (-peak.log_odds, *peak.box))
    boxes = np.array([list(peak.box) for peak in peaks], np.float64).reshape(-1, 4)
    kept = np.flatnonzero(keepers(boxes, overlap) == np.arange(len(boxes)))
    return [peaks[place] for place in kept[:most]]


def tissue_around(tissue: Mask, side: float) -> Mask:
    """Return where the middle of a box may lie so that three quarters of the box are tissue.

    Known normal tissue lies in the breast (`embedder.normaltissue`): what looks unlike it at the skin is the skin. At
    the image's border tissue is taken to go on, for lesions at the chest wall are cut by it.

    Args:
        tissue: bool (rows, columns).
        side: Of the box, in pixels.
    """
    size = max(1, round(side))
    share = cv2.blur(tissue.astype(np.float32), (size, size), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(tissue & (share >= _TISSUE_SHARE), np.bool_)


def square(x: float, y: float, side: float, shape: tuple[int, int]) -> Box | None:
    """Return a square box around a point, cut at the image's borders; None where nothing of it is left.

    >>> str(square(10, 5, 12, (100, 100)))
    '4,0,16,11'
    """
    x0, y0 = max(0, round(x - side / 2)), max(0, round(y - side / 2))
    x1, y1 = min(shape[1], round(x + side / 2)), min(shape[0], round(y + side / 2))
    return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def heat_map(scored: Sequence[ScoredScale], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return the highest odds of any scale at each spot as a chance in [0, 1], oriented like the stored image.

    Args:
        scored: The scales.
        shape: Rows and columns of the stored image.

    Returns:
        float32, of at most 512 pixels a side; 0 where there is no place.
    """
    factor = min(1.0, _HEAT_SIDE / max(shape))
    size = max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))
    heat = np.zeros((size[1], size[0]), np.float32)
    for one in scored:
        if not len(one.log_odds):
            continue
        (x0, y0), step = one.places.corner, one.places.step
        across, down = shape[1] / size[0], shape[0] / size[1]
        # Pixel i of the map looks at (i + 0.5) · across of the image, cell c stands at x0 + c · step.
        transform = np.array(
            [[across / step, 0, (across / 2 - x0) / step], [0, down / step, (down / 2 - y0) / step]], np.float64
        )
        plane = one.places.plane(expit(one.log_odds), 0.0)
        warm = cv2.warpAffine(plane, transform, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        heat = np.maximum(heat, warm[:, ::-1] if one.places.mirrored else warm)
    return np.ascontiguousarray(np.clip(heat, 0, 1), np.float32)
