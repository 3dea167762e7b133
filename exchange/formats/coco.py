"""COCO's JSON: a list of results, and whole data sets (https://cocodataset.org/#format-data, #format-results)."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exchange import ExchangeError
from exchange.formats.documents import read_document
from exchange.formats.marks import (
    MAXIMUM_ROWS,
    Corners,
    Mark,
    Outline,
    Parsed,
    ReadOptions,
    RowError,
    number,
    outline_of,
    text_of,
    too_many,
    whole,
)
from exchange.formats.places import bounds
from exchange.formats.runs import runs_outline

ATTRIBUTES = "mammoseek"
"""Key of a result under which what COCO has no word for is written, and read again."""


@dataclass(frozen=True)
class _Images:
    """The images and categories of a COCO data set."""

    names: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    categories: Mapping[str, str | None] = field(default_factory=dict)


def companion_path(path: Path) -> Path:
    """Return where the COCO data set of a file of results is looked for, and written to."""
    return path.with_name(f"{path.stem}.dataset.json")


def is_results(document: object) -> bool:
    """Tell whether a document is a list of COCO results."""
    return isinstance(document, list) and (
        not document or (isinstance(document[0], dict) and "image_id" in document[0])
    )


def is_dataset(document: object) -> bool:
    """Tell whether a document is a COCO data set with annotations."""
    return isinstance(document, dict) and isinstance(document.get("annotations"), list) and "images" in document


def read_coco_results(path: Path, options: ReadOptions) -> Parsed:
    """Read a list of COCO results: image_id, category_id, bbox [x, y, width, height], score, segmentation.

    The ids are those of a COCO data set beside it (see `ReadOptions.companion`). Without one, the image ids are taken
    for the images' names, and the category ids for the labels.

    Raises:
        ExchangeError: The file or its data set can't be read.
    """
    document = read_document(path)
    if not is_results(document):
        raise ExchangeError(path, "is no list of COCO results", "give a list of objects with image_id and bbox")
    parsed = Parsed(path)
    companion = options.companion
    if companion is None and companion_path(path).is_file():
        companion = companion_path(path)
    images = _Images()
    if companion is not None:
        dataset = read_document(companion)
        if not isinstance(dataset, dict) or "images" not in dataset:
            raise ExchangeError(companion, "is no COCO data set: it has no images", "name the one of the results")
        images = _read_images(companion, dataset, parsed)
        parsed.notes.append(f"image and category ids are those of {companion}")
    _read_annotations(document, "result", images, parsed)
    return parsed


def read_coco_dataset(path: Path, options: ReadOptions) -> Parsed:
    """Read the annotations of a COCO data set; a score is read where an annotation has one.

    Raises:
        ExchangeError: It can't be read.
    """
    document = read_document(path)
    if not is_dataset(document):
        raise ExchangeError(path, "is no COCO data set", "give an object with images, categories and annotations")
    parsed = Parsed(path)
    _read_annotations(document["annotations"], "annotation", _read_images(path, document, parsed), parsed)
    return parsed


def _read_images(path: Path, dataset: dict[str, Any], parsed: Parsed) -> _Images:
    names: dict[str, str] = {}
    sizes: dict[str, tuple[int | None, int | None]] = {}
    categories: dict[str, str | None] = {}
    prefix = "" if path == parsed.path else f"{path.name}, "
    for position, key, entry in _entries(path, dataset, "images", parsed, prefix):
        try:
            name = text_of(entry.get("file_name"), "file_name", longest=4096)
            if name is None:
                raise RowError("has no file_name")
            sizes[key] = whole(entry.get("height"), "height"), whole(entry.get("width"), "width")
            names[key] = name
        except RowError as error:
            parsed.refuse(f"{prefix}images {position}", error)
    for position, key, entry in _entries(path, dataset, "categories", parsed, prefix):
        try:
            categories[key] = text_of(entry.get("name"), "name")
        except RowError as error:
            parsed.refuse(f"{prefix}categories {position}", error)
    return _Images(names, sizes, categories)


def _entries(
    path: Path, dataset: dict[str, Any], what: str, parsed: Parsed, prefix: str
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield position, id and content of each image or category whose id is its own."""
    entries = dataset.get(what, [])
    if not isinstance(entries, list):
        raise ExchangeError(path, f"its {what} are no list", "write it again")
    if len(entries) > MAXIMUM_ROWS:
        raise too_many(path)
    keys: list[str | None] = []
    for position, entry in enumerate(entries, 1):
        key = None
        try:
            key = text_of(entry.get("id"), "id") if isinstance(entry, dict) else None
            if key is None:
                raise RowError("has no id")
        except RowError as error:
            parsed.refuse(f"{prefix}{what} {position}", error)
        keys.append(key)
    counts = Counter(keys)
    for position, (key, entry) in enumerate(zip(keys, entries, strict=True), 1):
        if key is None:
            continue
        if counts[key] > 1:
            parsed.refuse(f"{prefix}{what} {position}", f"the id {key!r} is that of {counts[key]} {what}: none is used")
        else:
            yield position, key, entry


def _read_annotations(entries: list[Any], what: str, images: _Images, parsed: Parsed) -> None:
    if len(entries) > MAXIMUM_ROWS:
        raise too_many(parsed.path)
    for position, entry in enumerate(entries, 1):
        place = f"{what} {position}"
        try:
            if not isinstance(entry, dict):
                raise RowError("is no object")
            parsed.add(_mark(place, entry, images))
        except RowError as error:
            parsed.refuse(place, error)


def _mark(place: str, entry: dict[str, Any], images: _Images) -> Mark:
    key = text_of(entry.get("image_id"), "image_id", longest=4096)
    if key is None:
        raise RowError("has no image_id")
    if images.names and key not in images.names:
        raise RowError(f"the data set has no image {key[:80]!r}")
    category = text_of(entry.get("category_id"), "category_id")
    word = category
    note = None
    if category is not None and images.categories:
        if category not in images.categories:
            note = f"the data set has no category {category}"
        word = images.categories.get(category, category)
    rows, columns = images.sizes.get(key, (None, None))
    box, outline, outline_note = _box(entry.get("bbox")), None, None
    try:
        outline = _outline(entry.get("segmentation"), rows, columns)
    except RowError as error:
        if box is None:
            raise
        outline_note = f"outline left out: {error}"
    more = entry.get(ATTRIBUTES)
    more = more if isinstance(more, dict) else {}
    notes = (text_of(more.get("note"), "note", longest=2000), note, outline_note)
    return Mark(
        place=place,
        image=images.names.get(key, key),
        box=box if box is not None or outline is None else bounds(outline),
        outline=outline,
        score=number(entry.get("score"), "score"),
        word=text_of(more["native_label"], "label") if "native_label" in more else word,
        term=text_of(more.get("lesion_type"), "lesion_type"),
        detection_id=text_of(more.get("detection_id"), "id") or text_of(entry.get("id"), "id"),
        detector=text_of(more.get("detector"), "detector"),
        detector_version=text_of(more.get("detector_version"), "detector_version"),
        lesion_id=text_of(more.get("lesion_id"), "lesion_id"),
        frame_number=whole(more.get("frame_number"), "frame_number"),
        note="; ".join(part for part in notes if part) or None,
        dataset=text_of(more.get("dataset"), "dataset"),
        patient_id=text_of(more.get("patient_id"), "patient_id"),
        study_id=text_of(more.get("study_id"), "study_id"),
        laterality=text_of(more.get("laterality"), "laterality"),
        view=text_of(more.get("view"), "view"),
        spacing_mm=number(more.get("spacing_mm"), "spacing_mm"),
        sop_uid=text_of(more.get("sop_uid"), "sop_uid"),
        rows=rows,
        columns=columns,
    )


def _box(value: object) -> Corners | None:
    if value is None or value == []:
        return None
    if not isinstance(value, list) or len(value) != 4:
        raise RowError("bbox is not [x, y, width, height]")
    found = [number(side, name) for side, name in zip(value, ("x", "y", "width", "height"), strict=True)]
    if None in found:
        raise RowError("bbox lacks a number")
    x, y, width, height = (side for side in found if side is not None)
    return x, y, x + width, y + height


def _outline(value: object, rows: int | None, columns: int | None) -> Outline | None:
    """Return the outline of a segmentation: the largest of its polygons, or that of its mask's largest part."""
    if value is None or value == []:
        return None
    if isinstance(value, dict):
        return runs_outline(value, rows, columns)
    if not isinstance(value, list):
        raise RowError("segmentation is neither polygons nor a run-length code")
    polygons = [outline_of(polygon) for polygon in (value if isinstance(value[0], list) else [value])]
    return max((polygon for polygon in polygons if polygon), key=_extent, default=None)


def _extent(outline: Outline) -> float:
    left, top, right, bottom = bounds(outline)
    return (right - left) * (bottom - top)
