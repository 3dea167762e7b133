"""A data set without identity: the basic profile of PS3.15 Annex E with modified dates, and stricter where it is loose.

A new data set is made of what may stay; what no rule lets stay is not copied. The rules, in their order:

1. Private attributes, group lengths, curves (50xx), overlays (60xx), attributes that PS3.6 does not know, and those
   whose value representation or multiplicity is not that of PS3.6 are removed.
2. DA, DT and TM are moved by the woman's number of days (Retain Longitudinal Temporal Information With Modified Dates
   Option, E.3.6), but for her birth and death, which the option does not cover; what can't be moved is emptied.
3. UIDs are replaced, but for those that the standard registers (SOP classes, transfer syntaxes, ...).
4. Table E.1-1 (`exchange.profiletable`). Where it leaves a choice that depends on the object's definition, an attribute
   is not removed but emptied (`X/Z`) or gets a dummy value (`X/D`, `Z/D`, `X/Z/D`): valid in all objects. Sequences
   with `D` or `X/Z/U*` are kept, and cleaned by these rules.
5. Attributes that the table does not have, where the basic profile would keep them as they are: free text and bytes
   stay only where listed here (KEPT_TEXT, KEPT_BYTES), coded strings and numbers only where they are such, codes only
   of published coding schemes. Any of them is removed where it holds a word of the woman's or another person's name or
   a number of hers.
"""

import re
from dataclasses import dataclass

from pydicom.datadict import DicomDictionary, dictionary_VM, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID_dictionary

from exchange.dateshift import checked_time, shift_date, shift_moment
from exchange.identities import Identities, find_identities
from exchange.profiletable import ACTIONS
from exchange.pseudonyms import PseudonymKey

EDITION = "2026c"
"""Of PS3.15, whose table is applied."""

METHOD = "PS3.15 Basic Profile, dates modified, mammoseek"

KEPT_TEXT = frozenset(
    (
        *("Manufacturer", "ManufacturerModelName", "SoftwareVersions"),
        *("DetectorManufacturerName", "DetectorManufacturerModelName"),
        *("SecondaryCaptureDeviceManufacturer", "SecondaryCaptureDeviceManufacturerModelName"),
        *("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"),
        *("RescaleType", "ModalityLUTType"),
    )
)
"""Attributes of free text that stay: the maker of the equipment, codes, and what the grey levels mean."""

KEPT_BYTES = frozenset(("PixelData", "LUTData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"))
"""Attributes of bytes that stay."""

_CODING_SCHEMES = frozenset(("SCT", "SRT", "SNM3", "99SDM", "DCM", "LN", "UCUM", "FMA", "NCIt", "RADLEX", "BI", "UMLS"))
_CODE = re.compile(r"[A-Za-z0-9.,:_+*/{}\[\]()%^-]{1,16}")
# The birth and death of the woman, which no option keeps.
_HER_DATES = ("PatientBirth", "PatientDeath")
_TEXT_VRS = frozenset(("AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
_BYTE_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW"))
_BINARY_VRS = frozenset(("AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"))
_CODED = re.compile(r"[A-Z0-9 _]{0,16}")
_NUMBERS = {"DS": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"), "IS": re.compile(r"[+-]?\d{1,11}")}
_LONGEST_NUMBER = 16
_DUMMY = "REMOVED"
_DEEPEST = 16
# Groups below are of commands, files and media, not of data sets.
_FIRST_GROUP = 8
# PS3.16 CID 7050: the profile and the option that were applied.
_METHOD_CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)


@dataclass(frozen=True)
class Woman:
    """Whose image it is: the issuer of her id, and her id."""

    issuer: str
    patient_id: str


def deidentified(dataset: Dataset, woman: Woman, key: PseudonymKey) -> Dataset:
    """Return a copy of a data set without identity, its pixel data untouched.

    Args:
        dataset: An image, without group 0002.
        woman: Whose it is.
        key: Makes the pseudonym, the new UIDs and the number of days.
    """
    cleaner = _Cleaner(key, key.shift_days(woman.issuer, woman.patient_id), find_identities(dataset))
    clean = cleaner.clean(dataset)
    pseudonym = key.woman(woman.issuer, woman.patient_id)
    clean.SpecificCharacterSet = "ISO_IR 192"
    clean.PatientID = pseudonym
    clean.PatientName = pseudonym
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = METHOD
    clean.DeidentificationMethodCodeSequence = Sequence(_code(*pair) for pair in _METHOD_CODES)
    clean.LongitudinalTemporalInformationModified = "MODIFIED"
    return clean


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


@dataclass(frozen=True)
class _Cleaner:
    key: PseudonymKey
    days: int
    identities: Identities

    def clean(self, dataset: Dataset, depth: int = 0) -> Dataset:
        """Return a new data set of what may stay."""
        clean = Dataset()
        for tag in sorted(dataset.keys()):
            kept = self._element(dataset, BaseTag(tag), depth)
            if kept is not None:
                clean.add(kept)
        return clean

    def _element(self, dataset: Dataset, tag: BaseTag, depth: int) -> DataElement | None:
        if tag.group < _FIRST_GROUP or tag.is_private or tag.element == 0 or tag not in DicomDictionary:
            return None
        try:
            element = dataset[tag]
        except Exception:  # a value that pydicom can't convert, of many kinds
            return None
        keyword, vr = keyword_for_tag(tag), str(element.VR)
        several = vr != "SQ" and isinstance(element.value, MultiValue | list) and len(element.value) > 1
        if keyword == "SpecificCharacterSet" or vr not in (expected := dictionary_VR(tag), *expected.split(" or ")):
            return None
        if several and dictionary_VM(tag) == "1":
            return None
        if vr in ("DA", "DT", "TM") and not keyword.startswith(_HER_DATES):
            return self._moved(element)
        if vr == "UI":
            return DataElement(tag, "UI", [self._uid(uid) for uid in _texts(element)] or None)
        action = ACTIONS.get(keyword)
        if action is not None:
            return self._acted(action, element, depth)
        return None if keyword.startswith(_HER_DATES) else self._unlisted(keyword, element, depth)

    def _acted(self, action: str, element: DataElement, depth: int) -> DataElement | None:
        """Do what Table E.1-1 says."""
        if action == "X":
            return None
        if element.VR == "SQ" and action in ("D", "X/D", "X/Z/D", "X/Z/U*"):
            return self._sequence(element, depth)
        if element.VR == "SQ":
            return DataElement(element.tag, "SQ", Sequence())
        if action in ("Z", "X/Z") or element.is_empty:
            return DataElement(element.tag, element.VR, None)
        return DataElement(element.tag, element.VR, _DUMMY) if element.VR in _TEXT_VRS - {"UR"} else None

    def _unlisted(self, keyword: str, element: DataElement, depth: int) -> DataElement | None:
        """Keep what can't tell who somebody is."""
        vr = element.VR
        if vr == "SQ":
            return self._sequence(element, depth)
        if vr in _BINARY_VRS:
            return element
        if isinstance(element.value, bytes):
            if vr in _BYTE_VRS or " or O" in vr:
                return element if keyword in KEPT_BYTES else None
            return element if len(element.value) <= 8 else None  # a number whose sign is not known yet
        if " or " in vr:
            return element
        texts = _texts(element)
        if any(self.identities.are_in(text) for text in texts):
            return None
        if vr == "CS":
            texts = [text.upper() for text in texts]
        kept = (
            (vr == "CS" and all(_CODED.fullmatch(text) for text in texts))
            or (vr in _NUMBERS and all(_is_number(vr, text) for text in texts))
            or (vr in _TEXT_VRS and keyword in KEPT_TEXT)
        )
        return DataElement(element.tag, vr, texts or None) if kept else None

    def _sequence(self, element: DataElement, depth: int) -> DataElement | None:
        if depth >= _DEEPEST:
            return None
        items = [self.clean(item, depth + 1) for item in element.value if _may_be_told(item)]
        # A sequence whose items are all gone says nothing, and an empty one may be invalid.
        kept = [item for item in items if len(item)]
        return DataElement(element.tag, "SQ", Sequence(kept)) if kept or not items else None

    def _moved(self, element: DataElement) -> DataElement:
        shift = {"DA": shift_date, "DT": shift_moment, "TM": lambda value, _: checked_time(value)}[element.VR]
        moved = [shift(text, self.days) for text in _texts(element)]
        whole = [value for value in moved if value is not None]
        return DataElement(element.tag, element.VR, whole if whole and len(whole) == len(moved) else None)

    def _uid(self, uid: str) -> str:
        return uid if uid in UID_dictionary else self.key.uid(uid)


def _texts(element: DataElement) -> list[str]:
    value = element.value
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    # The text of a number as it was written: 0.070 stays 0.070.
    given = [getattr(one, "original_string", one) for one in values if one is not None]
    return (
        [text for one in given if (text := str(one).strip(" \0"))]
        if len(given) < 2
        else [str(one).strip(" \0") for one in given]
    )


def _is_number(vr: str, text: str) -> bool:
    return len(text) <= _LONGEST_NUMBER and (text == "" or _NUMBERS[vr].fullmatch(text) is not None)


def _may_be_told(item: Dataset) -> bool:
    """Tell whether an item is no code, or a code of a published scheme: a hospital's own may say anything."""
    try:
        if "CodeValue" not in item and "CodeMeaning" not in item:
            return True
        value, scheme = str(item.get("CodeValue", "")).strip(), str(item.get("CodingSchemeDesignator", "")).strip()
    except Exception:  # as in `_Cleaner._element`
        return False
    return scheme in _CODING_SCHEMES and _CODE.fullmatch(value) is not None
