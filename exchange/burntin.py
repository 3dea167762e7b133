"""Text burnt into the empty background of a mammogram: a name or a date that no attribute tells.

PS3.15 E.3.1 (Clean Pixel Data Option) asks for a look at the pixels where text may be burnt in, and the attribute
Burned In Annotation is as often absent as true. This looks where text is put: outside the breast. It finds lines of
glyphs, that is, of small bright regions of about one height, beside each other on one baseline. A marker of side and
view has few glyphs and is no such line. Text across tissue, handwriting and single marks are not found: a clean answer
here is no proof.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from embedder.breast import GEOMETRY_SIDE, Mask, Pixels, small_breast_mask
from embedder.findings import Box

# Glyphs are looked for on a copy of at most so many pixels a side: the smallest legible letter of a detector image of
# 4000 rows has some 20 pixels there, and 10 here.
_SIDE = 2048
# The breast and this share of the side around it are left out: skin that fades, a nipple, the film's curve.
_MARGIN = 0.012
# By how much a glyph is brighter than its surroundings, which are as wide as _AROUND: text is drawn in full white.
_BRIGHTER = 0.25
_AROUND = 61
_HEIGHTS = (6, 80)
_WIDEST = 2.5
# A glyph fills so much of its box: a hairline scratch less, a lead marker's plate more.
_FILLING = (0.12, 0.95)


@dataclass(frozen=True)
class _Glyph:
    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


def burnt_in_text(pixels: Pixels, *, least_glyphs: int = 6) -> tuple[Box, ...]:
    """Return where lines of text are burnt into the background, upright or turned by 90 degrees.

    Args:
        pixels: float32 (rows, columns) in [0, 1], dense tissue bright.
        least_glyphs: Fewer glyphs in a line are a marker of side and view, or dust.

    Returns:
        The boxes of the lines, in pixels of the image, from top to bottom; empty where there is none.
    """
    factor = max(1.0, max(pixels.shape) / _SIDE)
    size = (max(1, round(pixels.shape[1] / factor)), max(1, round(pixels.shape[0] / factor)))
    seen = pixels if factor == 1.0 else np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.float32)
    bright = _bright_on_background(seen)
    boxes = [Box(line[0], line[1], line[2], line[3]) for line in _lines(_glyphs(bright), least_glyphs)]
    turned = _lines(_glyphs(np.ascontiguousarray(bright.T)), least_glyphs)
    boxes += [Box(top, left, bottom, right) for left, top, right, bottom in turned]
    height, width = pixels.shape
    scaled = {
        Box(
            int(box.x0 * factor),
            int(box.y0 * factor),
            min(width, int(np.ceil(box.x1 * factor))),
            min(height, int(np.ceil(box.y1 * factor))),
        )
        for box in boxes
    }
    return tuple(sorted(scaled, key=lambda box: (box.y0, box.x0)))


def _bright_on_background(seen: Pixels) -> npt.NDArray[np.uint8]:
    """Return 1 where the background is much brighter than around it."""
    local = cv2.blur(seen, (_AROUND, _AROUND))
    bright = seen > local + _BRIGHTER
    return np.asarray(bright & ~_breast(seen), np.uint8)


def _breast(seen: Pixels) -> Mask:
    """Return the breast with a margin; nothing where none stands out, so that the whole image is looked at."""
    factor = max(seen.shape) / GEOMETRY_SIDE
    size = (max(1, round(seen.shape[1] / factor)), max(1, round(seen.shape[0] / factor)))
    # Lines of text are thin: opened with a disc of that size they are gone, and can't be taken for the breast.
    small = np.asarray(cv2.resize(seen, size, interpolation=cv2.INTER_AREA), np.float32)
    mask = small_breast_mask(small)
    if mask.all():
        return np.zeros(seen.shape, np.bool_)
    whole = cv2.resize(mask.astype(np.uint8), (seen.shape[1], seen.shape[0]), interpolation=cv2.INTER_NEAREST)
    margin = 2 * round(_MARGIN * max(seen.shape)) + 1
    return np.asarray(cv2.dilate(whole, np.ones((margin, margin), np.uint8)), np.bool_)


def _glyphs(bright: npt.NDArray[np.uint8]) -> list[_Glyph]:
    count, _, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    if count < 2:
        return []
    left, top, width, height, area = (stats[1:, column] for column in range(5))
    filling = area / np.maximum(width * height, 1)
    fits = (height >= _HEIGHTS[0]) & (height <= _HEIGHTS[1]) & (width <= _WIDEST * height)
    # A stroke (I, 1, l) fills its box and is narrow; a speck of film dust fills it and is not.
    fits &= (filling >= _FILLING[0]) & ((filling <= _FILLING[1]) | (3 * width <= height))
    return [_Glyph(int(left[at]), int(top[at]), int(width[at]), int(height[at])) for at in np.flatnonzero(fits)]


def _lines(glyphs: list[_Glyph], least: int) -> list[tuple[int, int, int, int]]:
    """Chain glyphs that follow each other on one baseline; return (left, top, right, bottom) of long chains."""
    chains: list[list[_Glyph]] = []
    for glyph in sorted(glyphs, key=lambda one: one.left):
        chain = next((chain for chain in reversed(chains) if _follows(chain[-1], glyph)), None)
        if chain is None:
            chains.append([glyph])
        else:
            chain.append(glyph)
    return [
        (
            min(one.left for one in chain),
            min(one.top for one in chain),
            max(one.right for one in chain),
            max(one.top + one.height for one in chain),
        )
        for chain in chains
        if len(chain) >= least
    ]


def _follows(before: _Glyph, after: _Glyph) -> bool:
    """Tell whether two glyphs are neighbours in a line: alike in height, level, and no wider apart than a space."""
    tall = max(before.height, after.height)
    return (
        min(before.height, after.height) >= 0.55 * tall
        and abs(before.top + before.height - after.top - after.height) <= 0.35 * tall
        and after.left - before.right <= 1.3 * tall
        and after.left >= before.left + 0.3 * before.width
    )
