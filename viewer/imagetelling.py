"""An image in the API's words."""

from typing import Any

from viewer.catalogue import ImageEntry
from viewer.pyramid import TILE, Pyramid
from viewer.studies import needs_flip


def image_facts(entry: ImageEntry, study: str | None, pyramid: Pyramid | None) -> dict[str, Any]:
    """Return what is known of an image before it is decoded, as plain values for JSON.

    Args:
        entry: The image, with its details.
        study: Its study; None where it has none.
        pyramid: The decoded image or its coarse levels, where they are here; it tells whether it is to be mirrored.
    """
    details = entry.details
    assert details is not None, "whoever asks has looked at its header"
    flip = None if pyramid is None else needs_flip(details.laterality, pyramid.appearance.chest_wall)
    return {
        "image": entry.image,
        "study": study,
        "name": entry.name,
        "rows": details.header.rows,
        "columns": details.header.columns,
        "spacing_mm": details.spacing_mm,
        "view": details.view,
        "laterality": details.laterality,
        "flip": flip,
        "detections": [mark.to_dict() for mark in entry.marks],
    }


def decoded_facts(entry: ImageEntry, study: str | None, pyramid: Pyramid) -> dict[str, Any]:
    """Return all that the page needs to show an image, as plain values for JSON."""
    look = pyramid.appearance
    return {
        **image_facts(entry, study, pyramid),
        "bits": pyramid.header.bits,
        "chest_wall": look.chest_wall,
        "windows": [window.to_dict() for window in look.windows],
        "tile": TILE,
        "levels": [
            {"level": number, "rows": rows, "columns": columns, "scale": 2**number}
            for number, (rows, columns) in enumerate(pyramid.sizes)
        ],
        "notes": list(dict.fromkeys(pyramid.notes)),
        "version": pyramid.tag,
    }
