"""Normal tissue as a class of its own: places where nobody marked anything, as large and as placed as lesions are.

A place of normal tissue differs from a lesion in what it shows and, as far as that can be had, in nothing else: its
size is that of a lesion, its place within the breast is that of another woman's lesion, and it is cut from the films
of women with a lesion as from those of women without one.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from embedder.findings import BOX_COLUMNS, Box, FindingError, typed_columns
from embedder.preparation import PreparationConfig
from embedder.tissuemap import TISSUE_SHARE, TissueImage, TissueMap

_LESION_COLUMNS = ("lesion_type", "shape", "margin", "calcification_type", "calcification_distribution")
# What is true of a film or a woman, and so of any place on it; the film's lesion is not.
_KEPT = (
    *("path", "dataset", "patient_id", "image_rows", "image_columns", "spacing_mm", "laterality", "view", "density"),
    *("native_density", "age", "study_id", "split", "frame"),
)
_TRIES = 200  # places of lesions on one image, before a size is taken to the next
_JITTER = 0.04  # of the breast's width and height: candidates of one film shall not stand on the same few spots


@dataclass(frozen=True, eq=False)
class NormalTissue:
    """A manifest with places of normal tissue.

    Attributes:
        frame: The manifest's rows as they were, with their `tissue`, then the new ones.
        added: How many are new.
        images: Images that they are on.
        left_out: Images whose normal tissue is not known: a lesion without a place, or nothing said of the breast.
        failures: Path and message of images that can't be read.
    """

    frame: pd.DataFrame
    added: int
    images: int
    left_out: int
    failures: list[tuple[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON values."""
        counts = {name: getattr(self, name) for name in ("added", "images", "left_out")}
        return {"rows": len(self.frame), **counts, "failures": [list(failure) for failure in self.failures]}


def label_tissue(frame: pd.DataFrame) -> pd.Series:
    """Return each row's tissue: `lesion`, `normal`, or unknown.

    A finding is a lesion where its type, its shape or the like is known, or where it is benign or malignant; it is
    normal where a reader called it so. A mark of which nothing is known is neither, and a whole breast has none. What
    a column `tissue` says stands.

    Args:
        frame: A manifest.
    """
    finding = frame["granularity"] == "finding"
    lesion = frame[list(_LESION_COLUMNS)].notna().any(axis=1) | frame["pathology"].isin(["benign", "malignant"])
    said = pd.Series(None, index=frame.index, dtype="object")
    said[finding & (frame["pathology"] == "normal")] = "normal"
    said[finding & lesion] = "lesion"
    if "tissue" in frame.columns:
        said = frame["tissue"].astype("object").where(frame["tissue"].notna(), said)
    return said.where(said.notna(), None)


def add_normal_tissue(
    frame: pd.DataFrame,
    *,
    per_image: int = 2,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NormalTissue:
    """Add places of normal tissue to a manifest, and say of its findings which are lesions.

    The new rows know what is known of their film and woman (density, view, split), and of the place only that it is
    normal: of lesion type and pathology they know nothing, so that these are learned and scored as before. See
    `normal_places` for where they lie.

    Args:
        frame: A manifest with absolute paths.
        per_image: Places on an image, at most.
        seed: Of the draw. The order of the rows and the images' folders have no part in it.
        workers: Threads that read images.
        progress: Called with images read and images in all.

    Raises:
        FindingError: There is no lesion, no image whose normal tissue is known, or normal tissue was added before.
    """
    if not 1 <= per_image <= 1000:
        raise FindingError("normal tissue", f"{per_image} places on an image are out of range", "use 1 to 1000")
    tissue = label_tissue(frame)
    if "tissue" in frame.columns and (frame["tissue"] == "normal").any():
        raise FindingError("manifest", "has normal tissue already", "start from the manifest without it")
    read = TissueMap.read(frame.assign(tissue=tissue), workers=workers, progress=progress)
    places = normal_places(read, per_image=per_image, seed=seed)
    return NormalTissue(
        with_rows(frame.assign(tissue=tissue), places),
        len(places),
        int(places["path"].nunique()),
        read.left_out,
        read.failures,
    )


def normal_places(
    tissue: TissueMap, *, per_image: int, seed: int, preparation: PreparationConfig | None = None
) -> pd.DataFrame:
    """Return places of normal tissue as rows of a manifest.

    A place has the size of a lesion of its data set, all lesions in turn, so that sizes are distributed as theirs are,
    and lies where in the breast some other woman's lesion lies: that lesion's own place where it fits, else another's.
    It is in the breast to at least 95 %, out of the pectoral muscle, overlaps no other place, and the crop around it
    shows nothing of a mark.

    Args:
        tissue: The images.
        per_image: Places on an image, at most.
        seed: Of the draw.
        preparation: How large a crop around a place is; our defaults unless given.

    Returns:
        One row a place, by image.
    """
    preparation = preparation or PreparationConfig()
    taken: dict[str, list[Box]] = {image.key: [] for image in tissue.images}
    for dataset in sorted({image.dataset for image in tissue.images}):
        images = [image for image in tissue.images if image.dataset == dataset]
        generator = _generator(seed, dataset)
        templates = tissue.lesions(dataset)
        wanted = per_image * len(images)
        order = np.concatenate([generator.permutation(len(templates)) for _ in range(wanted // len(templates) + 1)])
        # The largest go first: they find room on few films, and none once small ones stand in their way.
        sizes = sorted((templates[i] for i in order[:wanted]), key=lambda lesion: -lesion.width * lesion.height)
        for template in sizes:
            places = [template, *(templates[i] for i in generator.permutation(len(templates)))]
            for position in generator.permutation(len(images)):
                image = images[position]
                if len(taken[image.key]) >= per_image:
                    continue
                others = islice((lesion for lesion in places if lesion.woman != image.woman), _TRIES)
                boxes = (image.box_at(lesion.across, lesion.down, image.size_of(template)) for lesion in others)
                found = next((box for box in boxes if _fits(image, box, taken[image.key], preparation)), None)
                if found is not None:
                    taken[image.key].append(found)
                    break
    return _rows(tissue.images, taken, "normal", tissue.row_ids)


def candidate_places(
    tissue: TissueMap,
    women: Iterable[str],
    *,
    per_image: int,
    seed: int,
    preparation: PreparationConfig | None = None,
) -> pd.DataFrame:
    """Return many places of normal tissue that may overlap, to choose among: sizes and places drawn as lesions have.

    Args:
        tissue: The images.
        women: Keys of the women on whose images they shall be.
        per_image: Places to draw on an image; those that do not fit are left out.
        seed: Of the draw.
        preparation: See `normal_places`.
    """
    preparation = preparation or PreparationConfig()
    wanted = set(women)
    images = [image for image in tissue.images if image.woman in wanted]
    found: dict[str, list[Box]] = {}
    for image in images:
        templates = [lesion for lesion in tissue.lesions(image.dataset) if lesion.woman != image.woman]
        generator = _generator(seed, f"{image.dataset}/{image.key}")
        boxes: list[Box] = []
        for _ in range(4 * per_image if templates else 0):
            size, place = (templates[i] for i in generator.integers(len(templates), size=2))
            aside, below = generator.normal(0, _JITTER, 2)
            box = image.box_at(place.across + float(aside), place.down + float(below), image.size_of(size))
            if box is not None and box not in boxes and _fits(image, box, [], preparation):
                boxes.append(box)
            if len(boxes) == per_image:
                break
        found[image.key] = boxes
    return _rows(images, found, "hard", tissue.row_ids)


def normal_rows(places: Iterable[tuple[str, Mapping[str, Any], Box]]) -> pd.DataFrame:
    """Return places of normal tissue as rows of a manifest.

    Args:
        places: Row id, what is known of the image and its woman, and the place.
    """
    rows = [
        {
            "row_id": row_id,
            "granularity": "finding",
            **{name: known.get(name) for name in _KEPT},
            **dict(zip(BOX_COLUMNS, box, strict=True)),
            "tissue": "normal",
        }
        for row_id, known, box in places
    ]
    names = ["row_id", "granularity", *_KEPT, *BOX_COLUMNS, "tissue"]
    return pd.DataFrame(rows, columns=names).astype("object")


def with_rows(frame: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return a manifest with further rows at its end; what they do not know is missing."""
    together = pd.concat([frame.astype("object"), rows.reindex(columns=frame.columns).astype("object")])
    return typed_columns(together.reset_index(drop=True).infer_objects())


def overlap(first: Box, second: Box) -> float:
    """Return the intersection of two boxes over their union.

    >>> overlap(Box(0, 0, 10, 10), Box(5, 0, 15, 10))
    0.3333333333333333
    """
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    shared = max(0, width) * max(0, height)
    return shared / (first.width * first.height + second.width * second.height - shared)


def _fits(image: TissueImage, box: Box | None, taken: Sequence[Box], preparation: PreparationConfig) -> bool:
    if box is None or any(overlap(box, other) > 0 for other in taken):
        return False
    if image.marks:
        seen = _seen(image, box, preparation)
        if any(overlap(seen, mark) > 0 for mark in image.marks):
            return False
    return image.share(box) >= TISSUE_SHARE


def _seen(image: TissueImage, box: Box, preparation: PreparationConfig) -> Box:
    """Return what a crop around a place shows of the image."""
    floor = preparation.floor_mm / image.spacing_mm if image.spacing_mm else preparation.floor_pixels
    side = max(preparation.context * max(box.width, box.height), floor)
    x, y = box.centre
    ratio = preparation.width / preparation.height
    across, down = side * max(1.0, ratio) / 2, side * max(1.0, 1 / ratio) / 2
    return Box(int(x - across), int(y - down), int(x + across) + 1, int(y + down) + 1)


def _rows(images: Sequence[TissueImage], boxes: dict[str, list[Box]], word: str, known: frozenset[str]) -> pd.DataFrame:
    rows = []
    for image in images:
        for number, box in enumerate(boxes[image.key], start=1):
            row_id = f"{image.key}-{word}-{number}"
            while row_id in known:
                row_id += "x"
            rows.append((row_id, image.record, box))
    return normal_rows(rows)


def _generator(seed: int, name: str) -> np.random.Generator:
    """Return the source of random numbers of one data set or image, whatever others there are."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
