"""Which women classifiers leave out together: a gallery of hundreds of women then costs a handful of fits.

Classifiers are fitted without the woman who is asked about. Fitted anew for each woman of a gallery they would cost far
more than all the rest, so its women are taken in ten parts, by their keys, and who is of a part is judged without all
of it; where women are few, without herself alone.
"""

import hashlib
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

PARTS = 10
"""Parts of a gallery's women."""

_FEWEST_WOMEN = 100  # in a gallery whose women are taken in parts


def parts_of_women(keys: npt.NDArray[np.object_]) -> dict[str, str]:
    """Return each woman's part of a gallery: one of ten, by a digest of her key; where women are few, herself.

    Args:
        keys: (n,) each row's woman.
    """
    women = sorted(set(keys.tolist()))
    if len(women) < _FEWEST_WOMEN:
        return {woman: woman for woman in women}
    return {woman: str(int(hashlib.sha256(woman.encode()).hexdigest()[:8], 16) % PARTS) for woman in women}


def left_out(parts: Mapping[str, str], hers: Collection[str]) -> frozenset[str]:
    """Return the keys of all women that are left out with a woman.

    Args:
        parts: As `parts_of_women` gives them.
        hers: Keys that are hers; those that are not in the gallery are passed over.

    >>> sorted(left_out({"a": "1", "b": "2", "c": "1"}, ["a", "unknown"]))
    ['a', 'c']
    """
    asked = {parts[key] for key in hers if key in parts}
    return frozenset(key for key, part in parts.items() if part in asked)
