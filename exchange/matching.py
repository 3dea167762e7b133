"""Which detection hits which lesion of an image: the rule, said once, that every figure of detections rests on.

Detections are taken in descending order of their score. Each takes, among the lesions that it hits and that no better
one has taken, the one that it hits best; so a lesion is found once, and a detection finds one lesion (the greedy
matching of Pascal VOC and COCO: Everingham et al., IJCV 88, 2010, section 4.2; Lin et al., ECCV 2014). As what comes
later changes nothing of what came before, one matching serves every threshold of the score.

A detection that hits only lesions that are taken is a duplicate, and is by default neither true nor false: FROC counts
a lesion that is marked twice as one lesion localised, and as false only what marks no lesion (Bunch et al., Proc SPIE
127, 1977; Chakraborty and Winter, Radiology 174, 1990). LUNA16 leaves double detections out of its count (Setio et al.,
Medical Image Analysis 42, 2017), and CAMELYON16 keeps the best of a lesion (Ehteshami Bejnordi et al., JAMA 318, 2017).
Pascal VOC and COCO call duplicates false: `duplicates="false"`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exchange import ExchangeError

FALSE = -1
"""Where `match` says that a detection hits no lesion."""

DUPLICATE = -2
"""Where `match` says that a detection hits only lesions that better ones have found."""

CRITERIA = ("centre", "iou")
DUPLICATES = ("ignored", "false")

Array = npt.NDArray[np.float64]
Outline = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class MatchingRule:
    """When a detection hits a lesion, and what a second hit on the same lesion is.

    Args:
        criterion: `centre`: the middle of the detection's box lies in the lesion, in its outline where it has one,
            else in its box. It forgives boxes that are too large, and it is strict with the smallest lesions. `iou`:
            the boxes' intersection over union reaches `iou`.
        iou: Least intersection over union, above 0 and at most 1; of no effect on `centre`.
        duplicates: `ignored`, or `false`: they are false positives.

    Raises:
        ExchangeError: There is no such rule.

    >>> print(MatchingRule("iou", iou=0.5))
    IoU 0.5
    """

    criterion: str = "centre"
    iou: float = 0.2
    duplicates: str = "ignored"

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise ExchangeError("rule", f"there is no rule {self.criterion!r}", f"use {' or '.join(CRITERIA)}")
        if not 0 < self.iou <= 1:
            raise ExchangeError("rule", f"an IoU of {self.iou} is not above 0 and at most 1", "0.2 and 0.5 are usual")
        if self.duplicates not in DUPLICATES:
            raise ExchangeError("rule", f"duplicates can't be {self.duplicates!r}", f"use {' or '.join(DUPLICATES)}")

    def __str__(self) -> str:
        return "centre" if self.criterion == "centre" else f"IoU {self.iou:g}"


def iou(boxes_a: npt.ArrayLike, boxes_b: npt.ArrayLike) -> Array:
    """Return the intersection over union of each box of one list with each of the other.

    Args:
        boxes_a: (n, 4) x0, y0, x1, y1, half-open, in one unit.
        boxes_b: (m, 4).

    Returns:
        (n, m) in [0, 1]; 0 where boxes only touch, or have no area.

    >>> iou([[0, 0, 2, 2]], [[1, 0, 3, 2]]).round(3).tolist()
    [[0.333]]
    """
    a, b = (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) for boxes in (boxes_a, boxes_b))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def centres(boxes: npt.ArrayLike) -> Array:
    """Return the (n, 2) middles x, y of (n, 4) boxes."""
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return (corners[:, :2] + corners[:, 2:]) / 2


def inside_outline(points: npt.ArrayLike, outline: Outline) -> npt.NDArray[np.bool_]:
    """Tell which points lie in a closed outline, by how often a ray from each crosses it (even-odd rule).

    Args:
        points: (n, 2) x, y.
        outline: Corners x, y, at least three; the last is joined to the first.

    Returns:
        (n,) Of points on the outline itself, those on its upper and left sides are inside, as with a half-open box.

    >>> inside_outline([[1, 1], [3, 1]], [(0, 0), (2, 0), (2, 2), (0, 2)]).tolist()
    [True, False]
    """
    places = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    start = np.asarray(outline, dtype=np.float64).reshape(-1, 2)
    end = np.roll(start, -1, axis=0)
    x, y = places[:, 0, None], places[:, 1, None]
    crossed = (start[:, 1] <= y) != (end[:, 1] <= y)
    rise = np.where(end[:, 1] == start[:, 1], 1.0, end[:, 1] - start[:, 1])
    across = start[:, 0] + (y - start[:, 1]) * (end[:, 0] - start[:, 0]) / rise
    return np.asarray((crossed & (x >= across)).sum(axis=1) % 2 == 1, np.bool_)


def hit_quality(
    boxes: npt.ArrayLike, lesions: npt.ArrayLike, outlines: Sequence[Outline | None], rule: MatchingRule
) -> Array:
    """Return how well each detection of an image hits each of its lesions.

    Args:
        boxes: (d, 4) detections.
        lesions: (l, 4) lesions.
        outlines: (l,) their outlines, None where a lesion has none.
        rule: What a hit is.

    Returns:
        (d, l) -inf where it is no hit. The IoU; or, by the centre rule, minus the distance of the middles in pixels.
    """
    if rule.criterion == "iou":
        overlap = iou(boxes, lesions)
        return np.where(overlap >= rule.iou, overlap, -np.inf)
    places, middles = centres(boxes), centres(lesions)
    corners = np.asarray(lesions, dtype=np.float64).reshape(-1, 4)
    low, high = corners[None, :, :2], corners[None, :, 2:]
    inside = np.asarray(((places[:, None] >= low) & (places[:, None] < high)).all(axis=2), np.bool_)
    for number, outline in enumerate(outlines):
        if outline is not None:
            inside[:, number] = inside_outline(places, outline)
    distance = np.linalg.norm(places[:, None] - middles[None], axis=2)
    return np.where(inside, -distance, -np.inf)


def match(quality: Array) -> npt.NDArray[np.int64]:
    """Give each detection of an image the lesion that it finds.

    Args:
        quality: (d, l) as `hit_quality` returns it, detections in descending order of their score.

    Returns:
        (d,) the number of the lesion, or `FALSE`, or `DUPLICATE`. Of equal qualities the first lesion is taken.
    """
    found = np.full(len(quality), FALSE, np.int64)
    left = quality.copy()
    for row in np.flatnonzero((quality > -np.inf).any(axis=1)):
        best = int(np.argmax(left[row]))
        if left[row, best] == -np.inf:
            found[row] = DUPLICATE
            continue
        found[row] = best
        left[:, best] = -np.inf
    return found
