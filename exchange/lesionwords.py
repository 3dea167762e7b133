"""Detectors' and data sets' own words for lesions, in BI-RADS terms."""

import re
from collections.abc import Mapping

from embedder.findings import TERM_SEPARATOR, TERMS
from exchange import ExchangeError

_TERM_OF_WORD = {
    **dict.fromkeys(("mass", "masses", "nodule", "nodules", "circ", "spic"), "mass"),
    **dict.fromkeys(
        ("calc", "calcs", "calcification", "calcifications", "mcc", "microcalcification", "microcalcifications"),
        "calcification",
    ),
    **dict.fromkeys(("distortion", "distortions", "arch"), "architectural distortion"),
    **dict.fromkeys(("asymmetry", "asymmetries", "asymmetric", "asym"), "asymmetry"),
}
_NEGATIONS = frozenset({"no", "non", "not", "without", "normal", "norm", "negative"})
_WORD = re.compile(r"[a-z]+")
_LONGEST_LABEL = 1000  # characters that are looked at: a label is some words


def lesion_type(label: str | None, own: Mapping[str, str] | None = None) -> str | None:
    """Return the BI-RADS lesion type of a label; several are joined by TERM_SEPARATOR; None where it names none.

    The words of VinDr-Mammo (`Suspicious Calcification`, `Focal Asymmetry` ...), CBIS-DDSM, INbreast and mini-MIAS
    are known, alone and among others: `malignant mass` is a mass. Skin thickening, nipple retraction and lymph nodes
    are no lesion types of BI-RADS: they keep their own word only.

    Args:
        label: The word or words.
        own: Lesion types by label, letter case aside, that go before this (see `check_own_words`).

    >>> lesion_type("Suspicious Calcification"), lesion_type("mass_malignant"), lesion_type("Skin Thickening")
    ('calcification', 'mass', None)
    """
    if label is None:
        return None
    folded = label.strip().casefold()
    if own:
        said = own.get(folded)
        if said is not None:
            return said
    words = _WORD.findall(folded[:_LONGEST_LABEL])
    if _NEGATIONS & set(words):
        return None
    found = {_TERM_OF_WORD[word] for word in words if word in _TERM_OF_WORD}
    return TERM_SEPARATOR.join(term for term in TERMS["lesion_type"] if term in found) or None


def check_own_words(words: Mapping[str, str]) -> dict[str, str]:
    """Return lesion types by label, ready for `lesion_type`.

    Raises:
        ExchangeError: One is no lesion type.
    """
    for label, term in words.items():
        if not all(part in TERMS["lesion_type"] for part in term.split(TERM_SEPARATOR)):
            remedy = f"use one of {', '.join(TERMS['lesion_type'])}"
            raise ExchangeError(f"label {label[:80]!r}", f"{term[:80]!r} is no lesion type", remedy)
    return {label.strip().casefold(): term for label, term in words.items()}
