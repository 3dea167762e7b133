"""Hand-crafted descriptors of a finding or a breast, to fuse with the learned ones.

Where women are few, both together describe a lesion better than either (Abdelhafiz et al., BMC Bioinformatics 20,
281, 2019, section "Learned and hand-crafted features"). What radiologists name is measured: shape, margin, density;
and what computer-aided diagnosis measured before there were networks. Each group of features stands in the module of
its subject, which cites where it comes from.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from embedder.crops import checked_box
from embedder.findings import Box
from embedder.handcrafted.breastmeasures import (
    DENSITY_NAMES,
    ZONE_NAMES,
    BreastPlane,
    breast_plane,
    describe_density,
    describe_zones,
)
from embedder.handcrafted.calcifications import CALCIFICATION_NAMES, describe_calcification
from embedder.handcrafted.intensity import HISTOGRAM_NAMES, INTENSITY_NAMES, describe_intensity, histogram_features
from embedder.handcrafted.lesionmargin import MARGIN_NAMES, describe_margin
from embedder.handcrafted.lesionshape import SHAPE_NAMES, describe_shape
from embedder.handcrafted.orientation import HGD_NAMES, describe_divergence
from embedder.handcrafted.patches import Patch, cut_patch, nominal_spacing
from embedder.handcrafted.segmentation import Lesion, segment_lesion
from embedder.handcrafted.texture import HOG_NAMES, TEXTURE_NAMES, describe_hog, describe_texture
from embedder.preparation import PreparationConfig, PreparationError, Prepared
from errors import MammoseekError

_FINDING_NAMES = {
    "shape": SHAPE_NAMES,
    "margin": MARGIN_NAMES,
    "texture": TEXTURE_NAMES,
    "hog": HOG_NAMES,
    "hgd": HGD_NAMES,
    "intensity": INTENSITY_NAMES,
    "calcification": CALCIFICATION_NAMES,
}
_BREAST_NAMES = {
    "density": DENSITY_NAMES,
    "zones": ZONE_NAMES,
    "texture": TEXTURE_NAMES,
    "intensity": HISTOGRAM_NAMES,
}
_NAMES = {"finding": _FINDING_NAMES, "breast": _BREAST_NAMES}

# A finding's shape fills a patch of fixed size; below 6 mm it is the pixels' and not the finding's.
_LESION_SIDE, _LESION_CONTEXT, _LESION_FLOOR_MM = 128, 1.6, 6.0
# Texture has a scale of its own, and a finding less than 13 mm wide has too few pixels of it.
_TEXTURE_MM, _TEXTURE_FLOOR_MM, _TEXTURE_SIDES = 0.4, 12.8, (32, 160)
_FINDING_DISTANCES_MM, _BREAST_DISTANCES_MM = (0.4, 0.8, 1.6, 3.2), (0.8, 1.6, 3.2, 6.4)
# Spots are looked for as finely as the image shows them, within reason.
_SPOTS_MM, _SPOTS_CONTEXT, _SPOTS_FLOOR_MM, _SPOTS_SIDES = 0.1, 1.4, 10.0, (32, 400)


class HandcraftedError(MammoseekError):
    """Descriptors that can't be computed: an unknown group or granularity, or a box that is wrong."""


def feature_names(granularity: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of what `describe` returns, in its order: `shape.log_area` and so on.

    Args:
        granularity: `finding` or `breast`.
        groups: Some of `embedder.preparation.DESCRIPTOR_GROUPS`, in the order wanted.

    Raises:
        HandcraftedError: The granularity is unknown, or a group of it is unknown or named twice.

    >>> feature_names("breast", ("intensity",))[:2]
    ('intensity.mean', 'intensity.std')
    """
    _check_groups(granularity, groups)
    return tuple(f"{group}.{name}" for group in groups for name in _NAMES[granularity][group])


def feature_count(preparation: PreparationConfig) -> int:
    """Return how many descriptors a preparation asks for."""
    return len(feature_names(preparation.granularity, preparation.descriptors))


def describe(prepared: Prepared, box: Box | None, granularity: str, groups: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Describe a finding or a breast.

    Lengths are in mm; where the spacing is unknown the breast is taken to be 230 mm high. Grey levels are described
    as the preparation left them: a normalised image has lost its absolute brightness. Features come in different
    units and ranges: standardise them before they meet a distance.

    Args:
        prepared: The prepared mammogram; for a breast, with its chest wall at the left.
        box: The finding in pixels of the stored image; None for a breast.
        granularity: `finding` or `breast`.
        groups: Which features, see `feature_names`.

    Returns:
        float32 (features,), all finite, the same for the same input.

    Raises:
        HandcraftedError: The granularity or a group is unknown, a finding has no box, a breast has one, or the box
            lies outside the image.
    """
    _check_groups(granularity, groups)
    try:
        place = checked_box(prepared, box, granularity)
    except PreparationError as error:
        raise HandcraftedError("descriptors", error.cause, error.remedy) from error
    if place is None:
        computed = _describe_breast(breast_plane(prepared), groups)
    else:
        computed = _describe_finding(prepared, place, groups)
    names = _NAMES[granularity]
    return np.array([computed[group][name] for group in groups for name in names[group]], np.float32)


def _describe_finding(prepared: Prepared, box: Box, groups: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Compute the groups of a finding; the lesion is segmented once, and only where a group needs it."""
    patch = cut_patch(prepared, box, side=_LESION_SIDE, context=_LESION_CONTEXT, floor_mm=_LESION_FLOOR_MM)
    outlined: dict[str, Callable[[Lesion], dict[str, float]]] = {
        "shape": lambda lesion: describe_shape(patch, lesion),
        "margin": lambda lesion: describe_margin(patch, lesion),
        "intensity": lambda lesion: describe_intensity(prepared, patch, lesion),
    }
    others: dict[str, Callable[[], dict[str, float]]] = {
        "texture": lambda: _finding_texture(prepared, box),
        "hog": lambda: describe_hog(patch.pixels),
        "hgd": lambda: describe_divergence(patch),
        "calcification": lambda: describe_calcification(_spots_patch(prepared, box)),
    }
    computed = {group: compute() for group, compute in others.items() if group in groups}
    if outlined.keys() & set(groups):
        lesion = segment_lesion(patch)
        computed.update({group: compute(lesion) for group, compute in outlined.items() if group in groups})
    return computed


def _describe_breast(plane: BreastPlane, groups: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Compute the groups of a breast."""
    compute: dict[str, Callable[[], dict[str, float]]] = {
        "density": lambda: describe_density(plane),
        "zones": lambda: describe_zones(plane),
        "texture": lambda: describe_texture(plane.pixels, plane.interior, plane.mm_per_pixel, _BREAST_DISTANCES_MM),
        "intensity": lambda: histogram_features(plane.pixels[plane.interior]),
    }
    return {group: compute[group]() for group in groups}


def _finding_texture(prepared: Prepared, box: Box) -> dict[str, float]:
    """Describe the texture of a marked place, at 0.4 mm per pixel unless it is very large."""
    wide = max(max(box.width, box.height) * nominal_spacing(prepared), _TEXTURE_FLOOR_MM)
    side = int(np.clip(round(wide / _TEXTURE_MM), *_TEXTURE_SIDES))
    patch = cut_patch(prepared, box, side=side, context=1.0, floor_mm=_TEXTURE_FLOOR_MM)
    return describe_texture(patch.pixels, patch.valid, patch.mm_per_pixel, _FINDING_DISTANCES_MM)


def _spots_patch(prepared: Prepared, box: Box) -> Patch:
    """Cut a marked place and some of what is around it, as finely as it is stored."""
    spacing = nominal_spacing(prepared)
    wide = max(max(box.width, box.height) * spacing * _SPOTS_CONTEXT, _SPOTS_FLOOR_MM)
    side = int(np.clip(round(wide / max(spacing, _SPOTS_MM)), *_SPOTS_SIDES))
    return cut_patch(prepared, box, side=side, context=_SPOTS_CONTEXT, floor_mm=_SPOTS_FLOOR_MM)


def _check_groups(granularity: str, groups: tuple[str, ...]) -> None:
    """Refuse what is not known."""
    if granularity not in _NAMES:
        raise HandcraftedError("descriptors", f"granularity {granularity!r} is unknown", "use finding or breast")
    known = _NAMES[granularity]
    for group in groups:
        if group not in known:
            raise HandcraftedError(
                "descriptors", f"group {group!r} of a {granularity} is unknown", f"use {', '.join(known)}"
            )
    if len(set(groups)) < len(groups):
        raise HandcraftedError("descriptors", f"a group is named twice: {', '.join(groups)}", "name each once")
