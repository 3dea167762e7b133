"""Candidates of our own: places of a mammogram that look more like known lesions than like normal tissue.

Two looks at an image. The first is dense: at a few scales all places are embedded in one pass each
(`embedder.dense`), and ordered by a head and a vote fitted to the gallery's lesions and normal tissue as such a look
sees them (`exchange.knownplaces`). The second cuts a crop around each of the best peaks, as a query would, and its
vector, compared with the gallery as it is, gives the score. So a candidate's score is that of its box, wherever it was
proposed; what the first look passes over is not found.

It proposes places to look at. A detector that was trained on boxes is the better source where there is one.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from classifiers.cases import Source, complete_source
from classifiers.filling import Place, gallery_embedder
from embedder.checkpoint import code_version
from embedder.crops import RoiCrop
from embedder.dense import DenseEmbedder
from embedder.findings import Box
from embedder.heatmap import draw_overlay
from embedder.mammogram import Mammogram, read_mammogram
from embedder.preparation import prepare
from embedder.rois import crops_of_image
from embedder.tissue import tissue_mask
from errors import MammoseekError
from exchange import ExchangeError
from exchange.candidates import Peak, ScoredScale, find_peaks, heat_map, tissue_around
from exchange.detections import Detection, detections_frame
from exchange.knownplaces import known_places
from exchange.scales import Scale, lesion_scales
from exchange.suppression import SuppressionConfig, suppress
from exchange.tissuejudge import LESION, NORMAL, TissueJudge
from index.exclusion import Exclusion, exclude_image
from index.gallery import Gallery
from index.milvus.address import is_milvus_address
from index.vectors import Positions, Vectors

DETECTOR = "mammoseek detect"

DenseJudge = Callable[[Vectors], npt.NDArray[np.float64]]
"""Returns the log odds of a lesion of dense vectors."""

UNKNOWN = "unknown"
"""The data set of an image that neither the gallery nor the asker knows."""

_JUDGES_KEPT = 2
_FEWEST_KNOWN = 10  # lesions, and places of normal tissue, that a dense look is judged by
_PROPOSAL_OVERLAP = 0.5  # of two places that are looked at again: the second look chooses among sizes


@dataclass(frozen=True)
class DetectConfig:
    """How candidates are found.

    Args:
        most: Candidates on an image, at most.
        minimum: The least score.
        overlap: Of two boxes whose intersection over union is larger, the better one is kept.
        looks: Peaks of the dense map that are looked at again, crop by crop.
        ratio: Of the windows of neighbouring scales.
        scales: Scales at most.

    Raises:
        ExchangeError: An option is out of its range.
    """

    most: int = 5
    minimum: float = 0.1
    overlap: float = 0.1
    looks: int = 24
    ratio: float = 2**0.5
    scales: int = 8

    def __post_init__(self) -> None:
        checks = {
            "candidates on an image are 1 to 1000": 1 <= self.most <= 1000,
            "the minimum score is 0 to 1": 0 <= self.minimum <= 1,
            "overlap is 0 to less than 1": 0 <= self.overlap < 1,
            "second looks are as many as candidates or more, up to 10000": self.most <= self.looks <= 10_000,
            "ratio is 1.05 to 4": 1.05 <= self.ratio <= 4,
            "scales are 1 to 16": 1 <= self.scales <= 16,
        }
        for rule, holds in checks.items():
            if not holds:
                raise ExchangeError("detect", f"an option is out of range: {rule}")


@dataclass(frozen=True, eq=False)
class ImageCandidates:
    """What was found on one image.

    Attributes:
        source: The image as it was searched, with what file and gallery tell of it.
        detections: Best first.
        scales: Sizes at which it was searched.
        heat: float32 (rows, columns) in [0, 1] over the stored image, of at most 512 pixels a side: the dense look.
        excluded_patient: The woman whose rows did not count; None where she is unknown.
        notes: What a reader should know.
    """

    source: Source
    detections: tuple[Detection, ...]
    scales: tuple[Scale, ...]
    heat: npt.NDArray[np.float32]
    excluded_patient: str | None
    notes: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The image."""
        assert self.source.path is not None, "images are searched"
        return self.source.path

    @property
    def name(self) -> str:
        """What names the image, see `image_name`."""
        return image_name(self.source)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON, without the heat map."""
        return {
            "path": str(self.path),
            "candidates": [
                {"id": one.detection_id, "box": [one.x0, one.y0, one.x1, one.y1], "score": one.score}
                for one in self.detections
            ],
            "scales": [scale.to_dict() for scale in self.scales],
            "excluded_patient": self.excluded_patient,
            "notes": list(self.notes),
        }


class Detector:
    """A gallery of lesions and normal tissue, and its model, as a source of candidates.

    Args:
        gallery: Folder of a gallery of findings whose column `tissue` says lesion or normal.
        model: Folder of its model, where it is not the copy that it keeps.
        device: Where to compute.
        config: How candidates are found.
        progress: Called with images done and images in all, where known places are embedded anew.

    Raises:
        ExchangeError: The gallery is on Milvus, of whole breasts, or holds no lesions or no normal tissue.
        MammoseekError: The gallery or its model can't be read, or the model can't be run densely.
    """

    def __init__(
        self,
        gallery: Place,
        *,
        model: Path | None = None,
        device: str = "cpu",
        config: DetectConfig | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if is_milvus_address(str(gallery)):
            raise ExchangeError(
                gallery, "all of its vectors are needed, and Milvus gives them one by one",
                "copy it to a folder by `mammoseek index copy`",
            )  # fmt: skip
        self.config = config or DetectConfig()
        self.gallery = Gallery.open(Path(gallery))
        if self.gallery.identity.granularity != "finding":
            raise ExchangeError(
                gallery,
                "holds whole breasts, and candidates are places",
                "name a gallery of findings and normal tissue",
            )
        records = self.gallery.records
        said = records["tissue"] if "tissue" in records.columns else pd.Series(None, index=records.index, dtype=object)
        self._tissue = said.to_numpy(dtype=object)
        for kind, remedy in ((NORMAL, "`mammoseek dataset normal`"), (LESION, "`mammoseek dataset read`")):
            if not (self._tissue == kind).any():
                what = "normal tissue" if kind == NORMAL else "lesion"
                raise ExchangeError(
                    gallery, f"holds no {what} (column `tissue`), so places can't be told apart",
                    f"add it to the manifest by {remedy}, and build the gallery from that",
                )  # fmt: skip
        self.embedder = gallery_embedder(gallery, model=model, device=device)
        self.dense = DenseEmbedder(self.embedder.network, self.embedder.preparation)
        self._known = known_places(self.gallery, self.embedder, self.dense, self._tissue, progress=progress)
        self._judges: dict[bytes, tuple[DenseJudge, TissueJudge]] = {}

    @property
    def version(self) -> str:
        """The code's version and the model's digest."""
        return f"{code_version()}, model {self.embedder.digest[:12]}"

    def detect(self, source: Source, *, barred: Positions | None = None) -> ImageCandidates:
        """Propose places on one image.

        Rows of the image's own woman do not count, neither as lesions nor as normal tissue: who she is is known from
        the file, from `source`, or because the gallery holds the image.

        Args:
            source: The image, without a box.
            barred: Further rows of the gallery that shall not count.

        Raises:
            ExchangeError: A box or a row is named, or what is left of the gallery holds no lesion or no normal tissue.
            MammoseekError: The image can't be read.
        """
        if source.path is None or source.box is not None:
            raise ExchangeError("detect", "it searches whole images", "name an image, and neither a box nor a row")
        mammogram = read_mammogram(source.path, frame=source.frame, allow_for_processing=source.allow_for_processing)
        source = complete_source(source, self.gallery)
        spacing, view = source.spacing_mm or mammogram.spacing_mm, source.view or mammogram.view
        source = replace(source, spacing_mm=spacing, view=view)
        named = [name for name in (source.patient, mammogram.patient_id) if name is not None]
        own = exclude_image(
            self.gallery,
            path=mammogram.path,
            sop_uid=mammogram.sop_uid,
            patients=list(dict.fromkeys(named)),
            dataset=source.dataset,
        )
        left_out = own.positions if barred is None else np.union1d(own.positions, barred)
        dense_judge, judge = self._judges_without(left_out)
        scales = self._scales(left_out, spacing)
        notes = [*mammogram.notes, *own.notes]
        if spacing is None:
            notes.append("the spacing is not known: lesions were taken to be as large in pixels as the gallery's")
        if self._known.unread:
            notes.append(f"the images of {self._known.unread} known places are not at hand: less is found without them")
        where, _ = tissue_mask(mammogram, view)
        prepared = prepare(mammogram.pixels, self.embedder.preparation, spacing_mm=spacing, view=view)
        scored = []
        for scale in scales if where.any() else ():
            places = self.dense.places(prepared, scale.window, tissue_around(where, scale.box))
            scored.append(ScoredScale(scale, places, dense_judge(places.vectors)))
        if not any(len(one.log_odds) for one in scored):
            notes.append("no breast was found on the image, so nothing was searched")
        shape = (mammogram.rows, mammogram.columns)
        peaks = find_peaks(scored, shape, overlap=_PROPOSAL_OVERLAP, most=self.config.looks)
        scores = self._second_look(source, mammogram, peaks, judge)
        found = self._detections(source, mammogram, own, peaks, scores)
        return ImageCandidates(source, found, scales, heat_map(scored, shape), own.patient, tuple(dict.fromkeys(notes)))

    def detect_all(
        self, sources: Iterable[Source], *, progress: Callable[[int, int], None] | None = None
    ) -> tuple[list[ImageCandidates], list[tuple[str, str]]]:
        """Propose places on several images; one that fails costs only itself.

        Returns:
            What was found by image, and path and message of those that failed.
        """
        given = list(sources)
        found: list[ImageCandidates] = []
        failures: list[tuple[str, str]] = []
        for done, source in enumerate(given, start=1):
            try:
                found.append(self.detect(source))
            except MammoseekError as error:
                failures.append((str(source.path), f"{error.cause}; {error.remedy}" if error.remedy else error.cause))
            if progress is not None:
                progress(done, len(given))
        return found, failures

    def _judges_without(self, left_out: Positions) -> tuple[DenseJudge, TissueJudge]:
        """Return the judge of dense vectors and that of crops' vectors; images of one woman share them."""
        key = left_out.tobytes()
        if key not in self._judges:
            while len(self._judges) >= _JUDGES_KEPT:
                self._judges.pop(next(iter(self._judges)))
            rows = self._rows(left_out, (LESION, NORMAL))
            vectors = self.gallery.vectors.take(rows)
            self._judges[key] = self._dense_judge(left_out, rows, vectors), self._judge(rows, vectors)
        return self._judges[key]

    def _judge(self, rows: Positions, vectors: Vectors) -> TissueJudge:
        return TissueJudge(vectors, self._tissue[rows], self.gallery.patient_keys[rows])

    def _dense_judge(self, left_out: Positions, rows: Positions, vectors: Vectors) -> DenseJudge:
        """Return what orders the places of a dense look.

        Where the images of too few known places are at hand, it is judged by the vectors of their crops (`rows`), to
        which the places' are moved.
        """
        counts = ~np.isin(self._known.positions, left_out)
        known = self._known.positions[counts]
        kinds = self._tissue[known]
        if min(np.count_nonzero(kinds == kind) for kind in (LESION, NORMAL)) >= _FEWEST_KNOWN:
            return self._judge(known, self._known.vectors[counts]).log_odds
        first = vectors[:, : self.dense.dimension]
        first = first / np.maximum(np.linalg.norm(first, axis=1, keepdims=True), np.float32(1e-12))
        judge = self._judge(rows, first)
        return lambda places: judge.log_odds(judge.aligned(places))

    def _rows(self, left_out: Positions, kinds: Sequence[str]) -> Positions:
        counts = np.isin(self._tissue.astype(str), kinds)
        counts[left_out] = False
        return np.flatnonzero(counts)

    def _scales(self, left_out: Positions, spacing_mm: float | None) -> tuple[Scale, ...]:
        lesions = self.gallery.table.frame(self._rows(left_out, (LESION,)))
        config = self.config
        return lesion_scales(lesions, self.embedder.preparation, spacing_mm, ratio=config.ratio, most=config.scales)

    def _second_look(
        self,
        source: Source,
        mammogram: Mammogram,
        peaks: Sequence[Peak],
        judge: TissueJudge,
    ) -> npt.NDArray[np.float64]:
        """Return (peaks,) the score of the crop around each."""
        if not peaks:
            return np.empty(0)
        boxes: list[Box | None] = [peak.box for peak in peaks]
        cut, _ = crops_of_image(
            mammogram.path, mammogram, boxes, self.embedder.preparation, source.spacing_mm, source.view, 1.0
        )
        crops: list[RoiCrop] = []
        for crop in cut:
            if isinstance(crop, MammoseekError):
                raise crop
            crops.append(crop)
        return np.asarray(expit(judge.log_odds(self.embedder.embed_crops(crops))))

    def _detections(
        self,
        source: Source,
        mammogram: Mammogram,
        own: Exclusion,
        peaks: Sequence[Peak],
        scores: npt.NDArray[np.float64],
    ) -> tuple[Detection, ...]:
        path, name = os.path.realpath(mammogram.path), image_name(source)
        dataset, patient = source.dataset or own.dataset or UNKNOWN, own.patient or mammogram.path.stem
        order = [place for place in np.argsort(-scores, kind="stable") if scores[place] >= self.config.minimum]
        found = [
            Detection(
                detection_id=f"{name}-{rank:04d}",
                path=path,
                dataset=dataset,
                patient_id=patient,
                **dict(zip(("x0", "y0", "x1", "y1"), peaks[place].box, strict=True)),
                score=float(scores[place]),
                detector=DETECTOR,
                detector_version=self.version,
                sop_uid=mammogram.sop_uid,
                study_id=mammogram.study_uid,
                laterality=mammogram.laterality,
                view=source.view,
                spacing_mm=source.spacing_mm,
                image_rows=mammogram.rows,
                image_columns=mammogram.columns,
                frame_number=source.frame,
            )
            for rank, place in enumerate(order, start=1)
        ]
        if not found:
            return ()
        kept = suppress(detections_frame(found), SuppressionConfig(iou=self.config.overlap))["row_id"]
        chosen = set(kept.astype(str).head(self.config.most))
        return tuple(one for one in found if one.detection_id in chosen)


def image_name(source: Source) -> str:
    """Return the name of an image's file with a digest of its place, for two folders may hold files of one name."""
    assert source.path is not None, "images are searched"
    place = f"{os.path.realpath(source.path)} {source.frame}"
    return f"{source.path.stem}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def box_of(detection: Detection) -> Box:
    """Return the box of a candidate: it always has one."""
    corners = (detection.x0, detection.y0, detection.x1, detection.y1)
    return Box(*(corner for corner in corners if corner is not None))


def candidates_frame(answers: Iterable[ImageCandidates]) -> pd.DataFrame:
    """Return the candidates of all images as one table, see `exchange.detections.detections_frame`."""
    return detections_frame(one for answer in answers for one in answer.detections)


def draw_all(answers: Iterable[ImageCandidates], folder: Path) -> list[Path]:
    """Draw each image beside its heat map with the numbered candidates.

    Args:
        answers: What was found.
        folder: Where the pictures are written, named by the images; made where it is not there.

    Returns:
        The pictures.

    Raises:
        MammoseekError: An image can't be read any more, or a picture or the folder can't be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExchangeError(folder, f"is no folder that can be written ({error.strerror})", "name another") from error
    pictures = []
    for answer in answers:
        source = answer.source
        mammogram = read_mammogram(answer.path, frame=source.frame, allow_for_processing=source.allow_for_processing)
        boxes = [box_of(one) for one in answer.detections]
        pictures.append(folder / f"{answer.name}.png")
        heading = f"Places to look at: {len(boxes)}, by {DETECTOR}.  Not for diagnosis."
        draw_overlay(mammogram.pixels, answer.heat, boxes, pictures[-1], heading=heading)
    return pictures
