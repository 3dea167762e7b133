"""Detections against the truth of every image that was looked at: which are right, which false, which set aside."""

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedder.findings import BOX_COLUMNS, patient_key
from embedder.manifest import manifest_digest
from embedder.normaltissue import label_tissue
from exchange import ExchangeError
from exchange.matching import DUPLICATE, FALSE, MatchingRule, Outline, hit_quality, match

MISSED = -np.inf
"""The score of a lesion that no detection hits."""

FRAME_COLUMN = "frame"
"""A manifest's own column that says which image of a multi-frame file a row is of."""

_FIRST_FRAME = 1  # of an image without frames
_NAMED = 3  # examples in a message

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of the images that were looked at.

    Attributes:
        images: One row an image: `path`, `frame`, `woman` (a number), `density` (None where unknown).
        lesions: One row a lesion: `row_id`, `image` (a position in `images`), `lesion_type`, the box, `outline`.
        women: How many women the images are of.
        set_aside: Path and frame of images of which nothing can be judged.
        digest: SHA-256 of the manifest.
        datasets: Of the images.
        notes: What a reader of the figures should know.
    """

    images: pd.DataFrame
    lesions: pd.DataFrame
    women: int
    set_aside: frozenset[tuple[str, int]]
    digest: str
    datasets: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Judgement:
    """Detections, judged by one rule.

    Attributes:
        truth: What they were judged by.
        rule: The rule.
        lesion_scores: (lesions,) of the detection that finds each; MISSED where none does.
        false_scores: (f,) of the false positives.
        false_images: (f,) their images, positions in `truth.images`.
        outcomes: One row a detection that was judged: `row_id`, `path`, `frame`, `score`, `outcome` (`true
            positive`, `false positive` or `duplicate`) and `lesion`, the `row_id` of the lesion that it finds.
        notes: What was set aside, and how much of it.
    """

    truth: Truth
    rule: MatchingRule
    lesion_scores: Array
    false_scores: Array
    false_images: Whole
    outcomes: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def duplicates(self) -> int:
        """How many detections hit only lesions that better ones have found."""
        return int((self.outcomes["outcome"] == "duplicate").sum())


def read_truth(frame: pd.DataFrame) -> Truth:
    """Return what a manifest says of its images.

    Every image that a row names was looked at, whether the row is a finding or a whole breast: false positives are
    counted over all of them. Every finding is a lesion, but for normal tissue (see
    `embedder.normaltissue.label_tissue`). An image is set aside where its breast row tells of a lesion that no
    finding marks, for a detection there may be right.

    Args:
        frame: A manifest as `embedder.manifest.read_manifest` gives it. A column of its own, `outline`, may hold the
            corners of a lesion's outline, as pairs or as JSON; a column `frame` the number of a multi-frame image.

    Raises:
        ExchangeError: It has no lesion with a place, or an image of two women.
    """
    rows = pd.DataFrame({"path": frame["path"].astype(str), "frame": _frames(frame, FRAME_COLUMN)})
    numbers, distinct = pd.factorize(pd.MultiIndex.from_frame(rows))
    keys = [(str(path), int(number)) for path, number in distinct]
    owners = patient_key(frame).to_numpy(dtype=object)
    tissue = label_tissue(frame).to_numpy(dtype=object)
    lesion = ((frame["granularity"] == "finding") & (tissue != "normal")).to_numpy(np.bool_)
    for image in np.flatnonzero(pd.Series(owners).groupby(numbers).nunique().to_numpy() > 1):
        both = sorted(set(owners[numbers == image]))[:2]
        raise ExchangeError(keys[image][0], f"belongs to {both[0]} and to {both[1]}", "correct the manifest")
    unplaced = _unplaced_lesions(frame, numbers, lesion)
    kept = np.flatnonzero(~np.isin(np.arange(len(keys)), unplaced))
    place = np.full(len(keys), -1, np.int64)
    place[kept] = np.arange(len(kept))

    first = pd.Series(numbers).drop_duplicates().index.to_numpy()[kept]
    women, _ = pd.factorize(owners[first])
    density = frame["density"].astype("object").reset_index(drop=True).groupby(numbers).first()
    images = pd.DataFrame(
        {
            "path": [keys[image][0] for image in kept],
            "frame": [keys[image][1] for image in kept],
            "woman": women,
            "density": pd.Series([None if pd.isna(term) else term for term in density.iloc[kept]], dtype="object"),
        }
    )
    marked = np.flatnonzero(lesion & (place[numbers] >= 0))
    if not len(marked):
        raise ExchangeError("truth", "has no lesion with a place", "give a manifest with findings and their boxes")
    lesions = frame.iloc[marked][["row_id", "lesion_type", *BOX_COLUMNS]].reset_index(drop=True)
    lesions["image"] = place[numbers[marked]]
    given = frame["outline"].iloc[marked] if "outline" in frame.columns else [None] * len(marked)
    lesions["outline"] = pd.Series(
        [_outline(cell, row) for cell, row in zip(given, lesions["row_id"], strict=True)], dtype="object"
    )
    _check_boxes(lesions, "truth")
    notes = []
    if len(unplaced):
        notes.append(f"{len(unplaced)} images set aside: a lesion is known there, but not its place")
    return Truth(
        images,
        lesions,
        int(images["woman"].nunique()),
        frozenset(keys[image] for image in unplaced),
        manifest_digest(frame),
        tuple(sorted(set(frame["dataset"].astype(str)))),
        tuple(notes),
    )


def judge(truth: Truth, detections: pd.DataFrame, rule: MatchingRule) -> Judgement:
    """Match detections with the lesions of their images.

    Detections of one score are taken in the order of their ids. An image is known by its path and frame; the woman is
    the truth's. What can't be judged is left out of every count, and said: detections on images that the truth does
    not know or that it sets aside, and detections without a place.

    Args:
        truth: The images that were looked at.
        detections: A table as `exchange.detections.detections_frame` gives it; it may be empty.
        rule: When a detection hits a lesion.

    Raises:
        ExchangeError: A detection has no score, no area or the id of another, or none is on an image of the truth.
    """
    table = _checked(detections)
    keys = list(zip(table["path"], table["frame"], strict=True))
    known = {key: number for number, key in enumerate(zip(truth.images["path"], truth.images["frame"], strict=True))}
    aside = np.array([key in truth.set_aside for key in keys], np.bool_)
    table["image"] = [known.get(key, -1) for key in keys]
    strange = (table["image"] < 0).to_numpy() & ~aside
    if len(table) and strange.all():
        raise ExchangeError(
            "detections",
            f"none is on an image of the truth, which knows {truth.images['path'].iloc[0]} but not {keys[0][0]}",
            "give both the same paths of images",
        )
    placeless = table["x0"].isna().to_numpy() & ~aside & ~strange
    notes = []
    if strange.any():
        named = ", ".join(sorted({str(path) for path in table.loc[strange, "path"]})[:_NAMED])
        notes.append(f"{strange.sum()} detections left out: on images that the truth does not know, such as {named}")
    if aside.any():
        notes.append(f"{aside.sum()} detections left out: on images that were set aside")
    if placeless.any():
        notes.append(f"{placeless.sum()} detections left out: they have no place")
    table = table[~(strange | aside | placeless)]
    table = table.sort_values(["score", "row_id"], ascending=[False, True], kind="stable").reset_index(drop=True)

    found = _match_images(truth, table, rule)
    outcome = np.select([found >= 0, found == DUPLICATE], ["true positive", "duplicate"], "false positive")
    scores = table["score"].to_numpy(np.float64)
    lesion_scores = np.full(len(truth.lesions), MISSED)
    right = found >= 0
    lesion_scores[found[right]] = scores[right]
    wrong = found == FALSE
    if rule.duplicates == "false":
        wrong |= found == DUPLICATE
    ids = truth.lesions["row_id"].to_numpy(dtype=object)
    outcomes = table[["row_id", "path", "frame", "score"]].assign(
        outcome=outcome,
        lesion=pd.Series([ids[number] if number >= 0 else None for number in found], dtype="object"),
    )
    return Judgement(
        truth,
        rule,
        lesion_scores,
        scores[wrong],
        table["image"].to_numpy(np.int64)[wrong],
        outcomes,
        tuple(notes),
    )


def _match_images(truth: Truth, table: pd.DataFrame, rule: MatchingRule) -> Whole:
    """Return, for each detection in descending order of score, the position of its lesion, or what it is instead."""
    found = np.full(len(table), FALSE, np.int64)
    boxes = table[list(BOX_COLUMNS)].to_numpy(np.float64)
    lesions = truth.lesions[list(BOX_COLUMNS)].to_numpy(np.float64)
    outlines = truth.lesions["outline"].tolist()
    own = truth.lesions.groupby("image").indices
    for image, rows in table.groupby("image").indices.items():
        places = own.get(image)
        if places is None:
            continue
        taken = match(hit_quality(boxes[rows], lesions[places], [outlines[place] for place in places], rule))
        found[rows] = np.where(taken >= 0, places[np.maximum(taken, 0)], taken)
    return found


def _checked(detections: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of detections that are needed, or refuse what is wrong with them."""
    lacking = [name for name in ("row_id", "path", "score", *BOX_COLUMNS) if name not in detections.columns]
    if lacking:
        raise ExchangeError("detections", f"there is no column {lacking[0]}", "read them with `exchange.formats`")
    scores = pd.to_numeric(detections["score"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    unscored = ~np.isfinite(scores)
    if unscored.any():
        raise ExchangeError(
            "detections",
            f"{unscored.sum()} of {len(scores)} have no score, such as {detections['row_id'].iloc[unscored.argmax()]}",
            "score them all, or leave them out: without a score they stand on no curve",
        )
    twice = detections["row_id"].duplicated().to_numpy(np.bool_)
    if twice.any():
        raise ExchangeError(
            "detections", f"two have the id {detections['row_id'].iloc[int(twice.argmax())]}", "give each its own"
        )
    table = detections[["row_id", "path", *BOX_COLUMNS]].reset_index(drop=True)
    table["path"], table["score"] = table["path"].astype(str), scores
    table["frame"] = _frames(detections, "frame_number")
    _check_boxes(table[table["x0"].notna()], "detections")
    return table


def _check_boxes(table: pd.DataFrame, subject: str) -> None:
    boxes = table[list(BOX_COLUMNS)].to_numpy(np.float64, na_value=np.nan)
    wrong = ~((boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3]))  # NaN is wrong too
    if wrong.any():
        row_id = table["row_id"].iloc[int(wrong.argmax())]
        raise ExchangeError(subject, f"the box of {row_id} is empty, inverted or not whole", "correct it")


def _frames(frame: pd.DataFrame, column: str) -> Whole:
    """Return each row's image of its file; a file that says nothing of frames has one."""
    if column not in frame.columns:
        return np.full(len(frame), _FIRST_FRAME, np.int64)
    return pd.to_numeric(frame[column]).fillna(_FIRST_FRAME).to_numpy(np.int64)


def _outline(cell: object, row_id: str) -> Outline | None:
    """Return a lesion's outline from its cell: pairs, their JSON, or nothing."""
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return None
    try:
        corners = np.asarray(json.loads(cell) if isinstance(cell, str) else cell, dtype=np.float64)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
            raise ValueError(f"shape {corners.shape}")
    except (TypeError, ValueError, RecursionError) as error:
        raise ExchangeError(
            "truth", f"the outline of {row_id} is no list of at least three corners x, y", "correct it or leave it out"
        ) from error
    return [(float(x), float(y)) for x, y in corners]


def _unplaced_lesions(frame: pd.DataFrame, numbers: Whole, lesion: npt.NDArray[np.bool_]) -> Whole:
    """Return the images whose breast row tells of a lesion, by its type or outcome, that no finding there can be."""
    unplaced = set()
    marks: dict[str, dict[int, set[object]]] = {}
    for name in ("lesion_type", "pathology"):
        cells = frame[name].astype("object").to_numpy()
        marks[name] = {}
        for row in np.flatnonzero(lesion):
            marks[name].setdefault(int(numbers[row]), set()).add(None if pd.isna(cells[row]) else cells[row])
        for row in np.flatnonzero((frame["granularity"] == "breast") & frame[name].notna()):
            if name == "pathology" and cells[row] not in ("benign", "malignant"):
                continue
            own = marks[name].get(int(numbers[row]), set())
            # A mark of which this is unknown may be the one that is meant.
            if cells[row] not in own and None not in own:
                unplaced.add(int(numbers[row]))
    return np.array(sorted(unplaced), np.int64)
