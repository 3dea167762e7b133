"""Where on an image a finding lies, as a closed line in the coordinates of structured reports.

Both count alike: the outer corner of the first pixel is (0, 0), its inner one (1, 1), and the outer corner of the last
pixel (columns, rows) (PS3.3 C.18.6.1.2). A half-open box x0, y0, x1, y1 is the rectangle of these very corners, and an
outline of pixel edges needs no shift either. (Presentation states begin at 1: they are something else.)
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from embedder import dicomvalues
from exchange import ExchangeError
from exchange.opinions import SecondOpinion
from exchange.sourceheader import image_name

MOST_CORNERS = 8_000
"""Corners that a line can have: its element is at most 65,534 bytes long, of 8 a corner (PS3.5 7.1.2)."""

Box = tuple[int, int, int, int]


def closed_line(opinion: SecondOpinion, image: Dataset) -> npt.NDArray[np.float32] | None:
    """Return the line around a finding: (n, 2) columns and rows, the last corner equal to the first.

    The outline where there is one, else the box. What lies beyond the image's edge is cut off at the edge; of an
    outline with more than MOST_CORNERS corners every so many are taken.

    Args:
        opinion: The finding.
        image: The header of its image.

    Returns:
        None for a finding without coordinates.

    Raises:
        ExchangeError: Nothing of it lies on the image, or the image does not say how large it is.
    """
    corners = _corners(opinion)
    if corners is None:
        return None
    rows, columns = (dicomvalues.integer(image, keyword) for keyword in ("Rows", "Columns"))
    if not rows or not columns:
        raise ExchangeError(image_name(image), "it does not say how many rows and columns it has", "copy it again")
    inside = np.clip(corners, 0, [columns, rows]).astype(np.float32)
    if (np.ptp(inside, axis=0) == 0).any():
        raise ExchangeError(
            image_name(image),
            f"the detection {opinion.detection_id[:80]!r} does not lie on its {columns} × {rows} pixels",
            "check that the detection is of this image, in pixels of the stored image",
        )
    return np.concatenate([inside, inside[:1]])


def frame_of(opinion: SecondOpinion, image: Dataset) -> int | None:
    """Return the frame that a reference to a finding's image must name; None where it has one alone.

    Raises:
        ExchangeError: The image has several frames and the finding names none, or one that is not there.
    """
    frames = dicomvalues.integer(image, "NumberOfFrames") or 1
    if opinion.frame_number is None and frames > 1:
        raise ExchangeError(
            image_name(image),
            f"it has {frames} frames, and the detection {opinion.detection_id[:80]!r} names none",
            f"give its frame_number, 1 to {frames}",
        )
    if opinion.frame_number is not None and opinion.frame_number > frames:
        raise ExchangeError(
            image_name(image),
            f"it has no frame {opinion.frame_number}, which the detection {opinion.detection_id[:80]!r} names",
            f"give one of 1 to {frames}",
        )
    return opinion.frame_number if frames > 1 else None


def place_of(line: npt.ArrayLike) -> tuple[Box, tuple[tuple[float, float], ...] | None]:
    """Return the box and the outline of a closed line; no outline where the line is the box itself.

    Args:
        line: (n, 2) columns and rows.
    """
    corners = np.asarray(line, dtype=np.float64)
    low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    if np.array_equal(corners, _rectangle(box, closed=True)):
        return box, None
    return box, tuple((float(x), float(y)) for x, y in corners[:-1])


def _corners(opinion: SecondOpinion) -> npt.NDArray[np.float64] | None:
    outline = opinion.outline or ()
    if len(outline) > 1 and outline[0] == outline[-1]:
        outline = outline[:-1]
    if len(outline) >= 3:
        step = -(-len(outline) // MOST_CORNERS)
        return np.array(outline[::step], dtype=np.float64)
    return None if opinion.box is None else _rectangle(opinion.box, closed=False)


def _rectangle(box: Sequence[int], *, closed: bool) -> npt.NDArray[np.float64]:
    x0, y0, x1, y1 = box
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    return np.array(corners + corners[:1] * closed, dtype=np.float64)
