"""The content tree of a structured report (PS3.3 C.17.3), read without trust and within limits."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset

# pydicom's own table of the SNOMED RT codes that DICOM used before SNOMED CT (PS3.16 Annex O). Its `Code` compares by
# it, but can't tell the code that it found.
from pydicom.sr._snomed_dict import mapping as _snomed

from embedder import dicomvalues
from exchange import ExchangeError

MAXIMUM_DEPTH = 48
"""Levels of a content tree: the deepest path through the templates of mammography CAD has about a dozen."""

MAXIMUM_ITEMS = 60_000
"""Content items of a report: one with every speck of four dense mammograms has some ten thousand."""

_SNOMED_RT = ("SRT", "SNM3", "99SDM")  # three names of one scheme, PS3.16 Table 8-1

Identifier = tuple[int, ...]
"""A content item's place in its tree, from (1,) for the root (PS3.3 C.17.3.2.5)."""


def printable(text: str, length: int) -> str:
    """Return a text of a file without control characters, and no longer than that.

    >>> printable("a\\x1b[31mb" + 100 * "c", 8)
    'a[31mbc'
    """
    return "".join(character for character in text[:length] if character.isprintable())


@dataclass(frozen=True)
class Concept:
    """A coded concept; SNOMED RT is turned into SNOMED CT, and the meaning does not count in a comparison.

    >>> Concept.of("F-01775", "SRT", "Calcification Cluster") == Concept("129769006", "SCT")
    True
    """

    value: str
    scheme: str
    meaning: str = field(default="", compare=False)

    @classmethod
    def of(cls, value: str, scheme: str, meaning: str = "") -> "Concept":
        """Return a concept, in SNOMED CT where it is given in SNOMED RT; its meaning as one printable line."""
        meaning = printable(meaning, 64)  # the length of its VR, which a file need not keep to
        if scheme in _SNOMED_RT:
            if value in _snomed["SRT"]:
                return cls(_snomed["SRT"][value], "SCT", meaning)
            scheme = "SRT"
        return cls(value, scheme, meaning)

    def __str__(self) -> str:
        return self.meaning or f"({self.value}, {self.scheme})"


@dataclass(frozen=True)
class ImageReference:
    """What an IMAGE item points to: the SOP instance, and its frames from 1 (empty for all of them)."""

    sop_uid: str
    frames: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class ContentItem:
    """One node of a content tree; what is missing or malformed is None, or NaN in coordinates.

    Args:
        identifier: Its place in the tree.
        relationship: To its parent, such as `CONTAINS` or `INFERRED FROM`; None for the root.
        value_type: `CONTAINER`, `CODE`, `NUM`, …; None for a reference.
        name: The concept that it is about.
        code: Value of a CODE item.
        text: Value of a TEXT, DATE, TIME, DATETIME, UIDREF or PNAME item.
        number: Value of a NUM item.
        unit: Its unit of measurement.
        image: Value of an IMAGE item.
        graphic: Graphic type of a SCOORD item.
        points: Its points (column, row).
        reference: The item that stands here by reference.
        children: The items below it.
    """

    identifier: Identifier
    relationship: str | None
    value_type: str | None
    name: Concept | None = None
    code: Concept | None = None
    text: str | None = None
    number: float | None = None
    unit: Concept | None = None
    image: ImageReference | None = None
    graphic: str | None = None
    points: tuple[tuple[float, float], ...] = ()
    reference: Identifier | None = None
    children: tuple["ContentItem", ...] = ()

    @property
    def path(self) -> str:
        """The identifier as it is written in the standard's examples, such as `1.3.1.2`."""
        return dotted(self.identifier)

    def walk(self) -> Iterator["ContentItem"]:
        """Yield this item and all below it, each before its children."""
        yield self
        for child in self.children:
            yield from child.walk()

    def named(self, name: Concept) -> list["ContentItem"]:
        """Return the children that are about a concept."""
        return [child for child in self.children if child.name == name]

    def first(self, name: Concept) -> "ContentItem | None":
        """Return the first child that is about a concept."""
        return next((child for child in self.children if child.name == name), None)


@dataclass(frozen=True)
class ContentTree:
    """A report's content.

    Args:
        root: Its topmost item.
        items: Every item by its identifier.
    """

    root: ContentItem
    items: dict[Identifier, ContentItem]

    def resolve(self, item: ContentItem) -> ContentItem | None:
        """Return an item, or what it refers to; None where that is not in the report, or no item of its own."""
        if item.reference is None:
            return item
        target = self.items.get(item.reference)
        return target if target is not None and target.reference is None else None


def dotted(identifier: Identifier) -> str:
    """Return an identifier as text: `1.3.1.2`."""
    return ".".join(str(part) for part in identifier)


def read_content_tree(dataset: Dataset, subject: object) -> ContentTree:
    """Read the content tree of an SR document.

    Args:
        dataset: The document.
        subject: What its errors are about, such as its path.

    Raises:
        ExchangeError: The tree is damaged, or beyond MAXIMUM_DEPTH or MAXIMUM_ITEMS.
    """
    items: dict[Identifier, ContentItem] = {}
    counted = 0

    # Depth is limited, so recursion is safe; references are kept as they are and never followed here.
    def read(node: Dataset, identifier: Identifier) -> ContentItem:
        nonlocal counted
        counted += 1
        if counted > MAXIMUM_ITEMS or len(identifier) > MAXIMUM_DEPTH:
            raise ExchangeError(
                subject,
                f"its content tree has more than {MAXIMUM_ITEMS:,} items or {MAXIMUM_DEPTH} levels",
                "ask its maker for a report without the marks of single pixels",
            )
        below = [
            read(child, (*identifier, position))
            for position, child in enumerate(sequence(node, "ContentSequence", subject), start=1)
        ]
        found = items[identifier] = _item(node, identifier, tuple(below))
        return found

    root = read(dataset, (1,))
    return ContentTree(root, items)


def sequence(dataset: Dataset, keyword: str, subject: object) -> list[Dataset]:
    """Return the items of a sequence, none where it is absent.

    Raises:
        ExchangeError: It is damaged; what it held would otherwise be lost unsaid.
    """
    try:
        found = dataset[keyword].value if keyword in dataset else []
        items = [] if found is None else list(found)
        damaged = not all(isinstance(item, Dataset) for item in items)
    except Exception:  # pydicom converts on access and raises of many kinds
        damaged = True
    if damaged:
        raise ExchangeError(subject, f"its {keyword} is damaged", "copy it again from its source")
    return items


def concept(dataset: Dataset, keyword: str, position: int = 0) -> Concept | None:
    """Return a code of a code sequence (PS3.3 Table 8.8-1), the first one by default; None where there is none."""
    item = dicomvalues.item(dataset, keyword, position)
    if item is None:
        return None
    values = (dicomvalues.text(item, name) for name in ("CodeValue", "LongCodeValue", "URNCodeValue"))
    value = next((value for value in values if value is not None), None)
    if value is None:
        return None
    scheme = dicomvalues.text(item, "CodingSchemeDesignator") or ""
    return Concept.of(value, scheme, dicomvalues.text(item, "CodeMeaning") or "")


_TEXTS = {"TEXT": "TextValue", "DATE": "Date", "TIME": "Time", "DATETIME": "DateTime", "UIDREF": "UID"} | {
    "PNAME": "PersonName"
}


def _item(node: Dataset, identifier: Identifier, children: tuple[ContentItem, ...]) -> ContentItem:
    value_type = dicomvalues.text(node, "ValueType")
    found: dict[str, Any] = {}
    if value_type is None:
        found["reference"] = _reference(node)
    elif value_type == "CODE":
        found["code"] = concept(node, "ConceptCodeSequence")
    elif value_type in _TEXTS:
        found["text"] = dicomvalues.text(node, _TEXTS[value_type])
    elif value_type == "NUM":
        measured = dicomvalues.item(node, "MeasuredValueSequence")
        if measured is not None:
            found["number"] = _number(measured)
            found["unit"] = concept(measured, "MeasurementUnitsCodeSequence")
    elif value_type == "IMAGE":
        found["image"] = _image(node)
    elif value_type == "SCOORD":
        found["graphic"] = dicomvalues.text(node, "GraphicType")
        found["points"] = _points(node)
    return ContentItem(
        identifier=identifier,
        relationship=dicomvalues.text(node, "RelationshipType"),
        value_type=value_type,
        name=concept(node, "ConceptNameCodeSequence"),
        children=children,
        **found,
    )


def _number(measured: Dataset) -> float | None:
    """Return a measured value: the binary number of which the text has the first digits, where there is one."""
    told, exact = (dicomvalues.number(measured, keyword) for keyword in ("NumericValue", "FloatingPointValue"))
    if told is not None and exact is not None and math.isclose(told, exact, rel_tol=1e-9, abs_tol=1e-12):
        return exact
    return told


def _reference(node: Dataset) -> Identifier | None:
    parts = dicomvalues.numbers(node, "ReferencedContentItemIdentifier")
    whole = [int(part) for part in parts if part is not None and part == int(part)]
    return tuple(whole) if whole and len(whole) == len(parts) else None


def _image(node: Dataset) -> ImageReference | None:
    item = dicomvalues.item(node, "ReferencedSOPSequence")
    uid = dicomvalues.text(item, "ReferencedSOPInstanceUID") if item is not None else None
    if item is None or uid is None:
        return None
    frames = dicomvalues.numbers(item, "ReferencedFrameNumber")
    return ImageReference(uid, tuple(int(frame) for frame in frames if frame is not None and frame >= 1))


def _points(node: Dataset) -> tuple[tuple[float, float], ...]:
    values = [math.nan if value is None else value for value in dicomvalues.numbers(node, "GraphicData")]
    if len(values) % 2:
        values.append(math.nan)  # half a point: the reader of the coordinates finds them unusable
    return tuple(zip(values[::2], values[1::2], strict=True))
