"""The second opinion on detections: similar findings of other women, votes, heads and risk, a batch at a time."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.classification import CaseClassifier, Classification
from classifiers.context import CONTEXT_COLUMNS
from classifiers.filling import gallery_embedder, index_device
from classifiers.leaks import trained_on
from classifiers.parts import PARTS, left_out, parts_of_women
from classifiers.targets import choose_targets
from classifiers.views import fuse_vectors
from embedder.checkpoint import ModelError
from embedder.findings import BOX_COLUMNS, patient_key
from exchange import ExchangeError
from exchange.detections import known_cell
from exchange.opinions import Risk, SecondOpinion, SimilarCase, Vote
from exchange.rescoring import DETECTOR, Rescorer, evidence_frame
from index import GalleryError
from index.answers import Answer, Neighbour
from index.asking import Asked, Search
from index.exclusion import Exclusion, exclude_image, join_exclusions
from index.gallery import Gallery
from index.questions import Question, View

MALIGNANCY = "pathology"
LESION = "tissue"
LESION_VOTE, LESION_HEAD, MALIGNANT = "lesion vote", "lesion head", "malignancy"
EVIDENCE = (DETECTOR, LESION_VOTE, LESION_HEAD, MALIGNANT)
"""What a rescoring may rest on: the detector's score, lesion against normal tissue by the kNN vote and by the linear
head (of a gallery that holds normal tissue), and the probability of malignancy."""

_LARGEST_BATCH = 32


@dataclass(frozen=True)
class OpinionConfig:
    """What an opinion holds.

    Args:
        neighbours: Similar findings, one of each woman.
        name_cases: Whether reports may name the similar cases and refer to their images; where not, they tell
            similarity, outcome and lesion type alone.
        least_percentile: Below this percentile of the gallery's own precedents none is close, see `index.precedents`.
    """

    neighbours: int = 10
    name_cases: bool = False
    least_percentile: float = 5.0


@dataclass(frozen=True, eq=False)
class Opinion:
    """The second opinion on one detection, and what it takes to put it in its place.

    Args:
        woman: "dataset/patient_id".
        study_id: The examination, where it is known.
        view: The view.
        opinion: What is said of it.
        evidence: Probabilities by the names of EVIDENCE; None where unknown.
    """

    woman: str
    study_id: str | None
    view: str | None
    opinion: SecondOpinion
    evidence: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def lesion(self) -> float | None:
        """Probability that it is a lesion and not normal tissue, the mean of vote and head; None where unknown."""
        known = [value for name in (LESION_VOTE, LESION_HEAD) if (value := self.evidence.get(name)) is not None]
        return sum(known) / len(known) if known else None

    @property
    def urgency(self) -> float:
        """What it is sorted by: the new score, else the risk, else the detector's score; 0 where nothing is known.

        The risk is of malignancy, of a place that is a lesion: it counts as often as the place is one.
        """
        risk = None
        if self.opinion.risk is not None:
            risk = self.opinion.risk.probability * (1.0 if self.lesion is None else self.lesion)
        return next((v for v in (self.opinion.rescored, risk, self.opinion.score) if v is not None), 0.0)


@dataclass(frozen=True, eq=False)
class OpinionBatch:
    """Opinions, and the detections of which there is none, each with the reason."""

    opinions: list[Opinion]
    failures: list[tuple[str, str]]


class SecondReader:
    """A gallery and its model, ready to say what became of places like those that a detector marked.

    Votes and heads are fitted without the part of the gallery's women that the woman who is asked about is of, see
    `classifiers.parts`. Similar findings come from all other women.

    Args:
        gallery: Folder of the gallery, of findings.
        model: Folder of its model, where it is not the copy that the gallery keeps.
        rescorer: What makes new scores; None makes none.
        config: What an opinion holds.
        device: Where to compute.

    Raises:
        MammoseekError: The gallery or its model can't be used, or the rescorer is of another model.
    """

    def __init__(
        self,
        gallery: Path,
        *,
        model: Path | None = None,
        rescorer: Rescorer | None = None,
        config: OpinionConfig | None = None,
        device: str = "auto",
    ) -> None:
        self.config, self.rescorer = config or OpinionConfig(), rescorer
        self.gallery = Gallery.open(Path(gallery), device=index_device(device))
        if not len(self.gallery):
            raise GalleryError(gallery, "is empty, so nothing is similar", "add rows by `mammoseek index add`")
        self.embedder = gallery_embedder(gallery, model=model, device=device)
        if self.embedder.granularity != "finding":
            raise ModelError(gallery, "compares whole breasts, not places", "name a gallery of findings")
        if rescorer is not None and rescorer.model_digest != self.embedder.digest:
            raise ExchangeError(
                "rescoring", "was fitted with the evidence of another model", "fit it anew by `mammoseek rescore fit`"
            )
        seen = trained_on(self.embedder.card, self.gallery.patient_keys)
        targets = choose_targets(self.gallery.records, None, "finding")
        self._classifiers = {
            name: CaseClassifier(self.gallery, name, seen=seen, kept=PARTS + 1)
            for name in (MALIGNANCY, LESION)
            if name in targets
        }
        self._parts = parts_of_women(self.gallery.patient_keys)
        self._question = Question(k=self.config.neighbours, least_percentile=self.config.least_percentile)
        self._search = Search(self.gallery, self._question)

    @property
    def plan(self) -> dict[str, Any]:
        """All that opinions depend on besides the detections, as plain JSON values."""
        return {
            "segments_digest": self.gallery.manifest.segments_digest,
            "gallery_generation": self.gallery.generation,
            "model_digest": self.embedder.digest,
            "preparation_digest": self.embedder.preparation_digest,
            "opinions": asdict(self.config),
            "parts": len(set(self._parts.values())),
            "rescoring": None if self.rescorer is None else self.rescorer.to_dict(),
        }

    def read(
        self, detections: pd.DataFrame, *, known: Collection[str] = (), workers: int | None = None
    ) -> Iterator[OpinionBatch]:
        """Form an opinion on each detection, while threads read the next images.

        The views of one lesion (`lesion_id`) are asked together and share their opinion. A detection never meets its
        own woman: whoever the table, or the gallery by the image, says she is. Memory does not grow with the number of
        images.

        Args:
            detections: As `exchange.detections.detections_frame` gives them.
            known: Ids of detections that have an opinion. Batches are cut as if they had none, since how rows are put
                together decides how sums round; those of which nothing is missing are left out.
            workers: Threads that read images.

        Yields:
            Some detections at a time, those of a woman after one another; with those that are known, where others of
            their batch are not.

        Raises:
            ClassificationError: The other women of the gallery have no labels to classify by.
        """
        placed = detections[list(BOX_COLUMNS)].notna().all(axis=1).to_numpy()
        unplaced = detections["row_id"][~placed]
        if len(unplaced):
            reason = "has no coordinates, so there is no place to compare"
            yield OpinionBatch([], [(str(name), reason) for name in unplaced])
        frame = detections[placed].reset_index(drop=True)
        lesions = lesion_codes(frame)
        missing = ~frame["row_id"].isin(set(known)).to_numpy()
        batches = [rows for rows in lesion_batches(frame, lesions, _LARGEST_BATCH) if missing[rows].any()]
        for rows in self.embedder.embed_batches(frame, batches, workers=workers):
            failures = [(str(frame["row_id"].iloc[place]), reason) for place, reason in rows.failures]
            yield OpinionBatch(self._opinions(frame, lesions, rows.positions, rows.vectors), failures)

    def _opinions(
        self,
        frame: pd.DataFrame,
        lesions: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
        vectors: npt.NDArray[np.float32],
    ) -> list[Opinion]:
        """Form the opinions on embedded rows; rows of one lesion are all among them."""
        groups: dict[int, list[int]] = {}
        for place, position in enumerate(positions.tolist()):
            groups.setdefault(int(lesions[position]), []).append(place)
        asked = []
        for places in groups.values():
            rows = [frame.iloc[positions[place]] for place in places]
            exclusion = join_exclusions([self._exclusion(row) for row in rows])
            views = tuple(View(str(row["path"]), tuple(int(row[name]) for name in BOX_COLUMNS)) for row in rows)
            about = replace(self._question, path=views[0].path, patient=exclusion.patient, further_views=views[1:])
            asked.append(Asked(about, vectors[places], exclusion))
        opinions = []
        for places, query, answer in zip(groups.values(), asked, self._search.run(asked), strict=True):
            vector = fuse_vectors(query.views, np.zeros(len(places), np.int64))[0]
            rows = [frame.iloc[positions[place]] for place in places]
            found, notes = self._classified(vector, query.exclusion, _context(rows))
            opinions += [self._opinion(row, answer, found, notes) for row in rows]
        return opinions

    def _exclusion(self, row: pd.Series) -> Exclusion:
        # Her id counts in every data set of the gallery, to be on the safe side: a detector names data sets otherwise.
        return exclude_image(
            self.gallery,
            path=Path(str(row["path"])),
            sop_uid=known_cell(row, "sop_uid"),
            patients=[str(row["patient_id"])],
            dataset=None,
        )

    def _classified(
        self, vector: npt.NDArray[np.float64], exclusion: Exclusion, context: Mapping[str, Any]
    ) -> tuple[dict[str, Classification], tuple[str, ...]]:
        hers = {self.gallery.patient_key(position) for position in exclusion.positions.tolist()}
        keys = left_out(self._parts, hers)
        found, notes = {}, []
        for name, classifier in self._classifiers.items():
            try:
                found[name] = classifier.classify(vector, keys, context)
            except ClassificationError as error:  # of other women there are too few labels
                notes.append(str(error))
        return found, tuple(notes)

    def _opinion(
        self, row: pd.Series, answer: Answer, found: Mapping[str, Classification], notes: tuple[str, ...]
    ) -> Opinion:
        score = known_cell(row, "score")
        evidence = _evidence(score, found)
        rescored = None
        if self.rescorer is not None:
            rescored = float(self.rescorer.rescore(evidence_frame([evidence]))[0])
        pathology = found.get(MALIGNANCY)
        near = answer.closeness
        outline = known_cell(row, "outline")
        told = [*([str(row["note"])] if known_cell(row, "note") else []), *answer.notes, *notes]
        opinion = SecondOpinion(
            detection_id=str(row["row_id"]),
            sop_uid=known_cell(row, "sop_uid"),
            path=str(row["path"]),
            frame_number=_whole(known_cell(row, "frame_number")),
            box=tuple(int(row[name]) for name in BOX_COLUMNS),  # type: ignore[arg-type]
            outline=None if outline is None else tuple((float(x), float(y)) for x, y in outline),
            lesion_id=known_cell(row, "lesion_id"),
            lesion_type=known_cell(row, "lesion_type"),
            laterality=known_cell(row, "laterality"),
            detector=known_cell(row, "detector"),
            detector_version=known_cell(row, "detector_version"),
            score=None if score is None else float(score),
            similar=tuple(self._case(neighbour) for neighbour in answer.neighbours),
            vote=None
            if pathology is None
            else Vote(pathology.knn.neighbours, pathology.knn.women, dict(pathology.knn.probabilities)),
            head_probabilities=None
            if pathology is None or pathology.head is None
            else dict(pathology.head.probabilities),
            risk=None
            if pathology is None or pathology.risk is None
            else Risk(pathology.risk.probability, pathology.risk.basis),
            no_close_precedent=None if near is None else near.no_close_precedent,
            rescored=rescored,
            notes=tuple(dict.fromkeys(told)),
        )
        woman = f"{row['dataset']}/{row['patient_id']}"
        return Opinion(woman, known_cell(row, "study_id"), known_cell(row, "view"), opinion, evidence)

    def _case(self, neighbour: Neighbour) -> SimilarCase:
        record = neighbour.record
        return SimilarCase(
            similarity=float(neighbour.similarity),
            row_id=neighbour.row_id,
            dataset=record.get("dataset"),
            patient_id=neighbour.patient_id,
            # Of a place of normal tissue nothing else is known, and what it is is its outcome.
            outcome=record.get("pathology") or ("normal" if record.get("tissue") == "normal" else None),
            lesion_type=record.get("lesion_type"),
            **{name: record.get(name) for name in ("sop_uid", "sop_class_uid", "series_uid", "study_uid")},
            may_be_shown=self.config.name_cases,
        )


def lesion_codes(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return (n,) numbers that are the same for views of one lesion: detections of a woman with one `lesion_id`."""
    alone = "row " + frame["row_id"].astype(str)
    together = "lesion " + patient_key(frame) + " " + frame["lesion_id"].astype(str)
    return np.asarray(pd.factorize(together.where(frame["lesion_id"].notna(), alone))[0], np.int64)


def lesion_batches(frame: pd.DataFrame, lesions: npt.NDArray[np.int64], size: int) -> list[npt.NDArray[np.int64]]:
    """Cut detections into batches, in the order of woman, study and image, that keep the views of a lesion together.

    Args:
        frame: Detections.
        lesions: (n,) as `lesion_codes` gives them.
        size: Detections in a batch; a lesion of more has a batch of its own.

    Returns:
        Positions of the rows: int64 (rows,) each; every row in exactly one batch.
    """
    order = frame.assign(key=patient_key(frame), study=frame["study_id"].fillna("")).sort_values(
        ["key", "study", "path", "row_id"], kind="stable"
    )
    places = order.index.to_numpy(dtype=np.int64)
    units: dict[int, list[int]] = {}
    for place in places.tolist():
        units.setdefault(int(lesions[place]), []).append(place)
    batches: list[list[int]] = []
    for unit in units.values():
        if not batches or len(batches[-1]) + len(unit) > size:
            batches.append([])
        batches[-1] += unit
    return [np.array(batch, np.int64) for batch in batches]


def _evidence(score: Any, found: Mapping[str, Classification]) -> dict[str, float | None]:
    values: dict[str, float | None] = dict.fromkeys(EVIDENCE)
    values[DETECTOR] = None if score is None else float(score)
    tissue, pathology = found.get(LESION), found.get(MALIGNANCY)
    if tissue is not None:
        values[LESION_VOTE] = tissue.knn.probabilities.get("lesion")
        values[LESION_HEAD] = None if tissue.head is None else tissue.head.probabilities.get("lesion")
    if pathology is not None and pathology.risk is not None:
        values[MALIGNANT] = pathology.risk.probability
    return values


def _context(rows: Sequence[pd.Series]) -> dict[str, Any]:
    """Return what the table knows of the case besides its picture; of several views, the first that knows it."""
    known: dict[str, Any] = {}
    for row in reversed(rows):
        cells = {name: known_cell(row, name) for name in CONTEXT_COLUMNS}
        known |= {name: cell for name, cell in cells.items() if cell is not None}
    return known


def _whole(number: Any) -> int | None:
    return None if number is None else int(number)
