"""The words by which a file names people, and the search for them in what is left of it."""

import re
from dataclasses import dataclass

from pydicom.dataset import Dataset

# Beside all names of persons: what a woman is known by elsewhere.
_HER_ATTRIBUTES = frozenset(
    (
        *("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID", "ServiceEpisodeID"),
        *("MedicalRecordLocator", "MilitaryRank", "PatientAddress", "PatientTelephoneNumbers", "InstitutionName"),
        *("CountryOfResidence", "RegionOfResidence", "PlacerOrderNumberImagingServiceRequest"),
        *("FillerOrderNumberImagingServiceRequest", "RequestedProcedureID", "ScheduledProcedureStepID"),
    )
)
# Shorter words are of other words as often as of names.
_SHORTEST_WORD, _SHORTEST_PART = 4, 6
_BETWEEN_NAMES = re.compile(r"[\^= ,\\]+")
_BETWEEN_WORDS = re.compile(r"\W+")
_DEEPEST = 16


@dataclass(frozen=True)
class Identities:
    """Words that name people or their papers, in lower case.

    Attributes:
        words: At least 4 characters each.
    """

    words: frozenset[str]

    def are_in(self, text: str) -> bool:
        """Tell whether a text is, or has among its words, one of them; long ones are found within words too."""
        lower = text.casefold().strip()
        if lower in self.words or not self.words.isdisjoint(_BETWEEN_WORDS.split(lower)):
            return True
        return any(len(word) >= _SHORTEST_PART and word in lower for word in self.words)

    def in_bytes(self, content: bytes) -> bool:
        """Tell whether bytes hold one of the long words, in UTF-8 or UTF-16, in capitals or not."""
        lower = content.lower()  # of ASCII only: other letters are looked for in both cases
        for word in self.words:
            if len(word) < _SHORTEST_PART:
                continue
            for spelling in {word, word.upper(), word.title()}:
                for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
                    if _holds(lower, spelling.encode(encoding, "ignore").lower(), is_number=word.isdigit()):
                        return True
        return False


def _holds(content: bytes, word: bytes, *, is_number: bool) -> bool:
    if not word or word not in content:
        return False
    # A number stands by itself: digits within a UID that happen to be the same are none.
    return not is_number or re.search(rb"(?<![0-9.])" + re.escape(word) + rb"(?![0-9.])", content) is not None


def find_identities(dataset: Dataset) -> Identities:
    """Return the words by which a data set names people, those of its sequences too."""
    words: set[str] = set()
    _collect(dataset, words, 0)
    return Identities(frozenset(word for word in words if len(word) >= _SHORTEST_WORD))


def _collect(dataset: Dataset, words: set[str], depth: int) -> None:
    for tag in dataset.keys():  # noqa: SIM118 - iterating a data set converts every element, and may raise
        try:
            element = dataset[tag]
            if element.VR == "SQ":
                if depth < _DEEPEST:
                    for item in element.value:
                        _collect(item, words, depth + 1)
            elif element.VR == "PN" or element.keyword in _HER_ATTRIBUTES:
                whole = str(element.value).casefold().strip(" \0")
                words.add(whole)
                if element.VR == "PN":
                    words.update(_BETWEEN_NAMES.split(whole))
        except Exception:  # a value that pydicom can't convert, of many kinds: it is not copied either
            continue
