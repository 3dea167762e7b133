"""A triage held against the truth: which of its detections mark a lesion, and what the gallery said of them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedder.findings import patient_key
from exchange import ExchangeError
from exchange.detections import Detection, detections_frame
from exchange.judging import judge, read_truth
from exchange.matching import MatchingRule
from exchange.rescoring import Rescorer, cross_fitted_scores, evidence_frame, fit_rescorer
from exchange.secondreader import EVIDENCE, Opinion
from exchange.triage import WORKLIST_FILE, read_opinions


@dataclass(frozen=True, eq=False)
class JudgedOpinions:
    """Detections of a triage whose truth is known.

    Attributes:
        detections: (n rows) as `exchange.detections.detections_frame` gives them.
        evidence: (n rows) the columns of EVIDENCE.
        hits: (n,) bool: it marks a lesion.
        women: (n,) "dataset/patient_id".
        model_digest: The model of the gallery that was asked.
        notes: What was left out.
    """

    detections: pd.DataFrame
    evidence: pd.DataFrame
    hits: npt.NDArray[np.bool_]
    women: npt.NDArray[np.object_]
    model_digest: str
    notes: tuple[str, ...]

    def fit(self, *, seed: int = 0) -> Rescorer:
        """Fit a rescoring to all of them, see `exchange.rescoring.fit_rescorer`."""
        return fit_rescorer(self.evidence, self.hits, self.women, model_digest=self.model_digest, seed=seed)

    def cross_fitted(self, *, folds: int = 5, seed: int = 0) -> pd.DataFrame:
        """Return the detections with new scores, each by a rescoring that does not know its woman."""
        scores = cross_fitted_scores(self.evidence, self.hits, self.women, folds=folds, seed=seed)
        return self.detections.assign(score=scores)


def judge_opinions(output: Path, truth: pd.DataFrame, rule: MatchingRule | None = None) -> JudgedOpinions:
    """Hold a triage against a manifest of lesions.

    A second mark on a lesion that another one hits marks a lesion too. Detections on images that the manifest does not
    know, and those without a score, are left out.

    Args:
        output: The triage's folder.
        truth: A manifest with the lesions' boxes, see `exchange.judging.read_truth`.
        rule: When a detection hits a lesion.

    Raises:
        ExchangeError: There is no triage, or nothing can be judged.
    """
    opinions = list(read_opinions(output))
    frame = opinion_detections(opinions)
    notes = []
    unscored = frame["score"].isna()
    if unscored.any():
        notes.append(f"{int(unscored.sum())} detections without a score were left out")
    judgement = judge(read_truth(truth), frame[~unscored].reset_index(drop=True), rule or MatchingRule())
    outcomes = judgement.outcomes.set_index("row_id")["outcome"]
    kept = frame["row_id"].isin(outcomes.index).to_numpy()
    detections = frame[kept].reset_index(drop=True)
    if detections.empty:
        raise ExchangeError(output, "has no detection on an image of the manifest", "name the manifest of its images")
    evidence = evidence_frame([one.evidence for one, wanted in zip(opinions, kept, strict=True) if wanted])
    return JudgedOpinions(
        detections,
        evidence.reindex(columns=list(EVIDENCE)),
        (outcomes.loc[detections["row_id"]] != "false positive").to_numpy(),
        patient_key(detections).to_numpy(dtype=object),
        _model_digest(output),
        (*notes, *judgement.notes),
    )


def opinion_detections(opinions: list[Opinion]) -> pd.DataFrame:
    """Return the detections that opinions are of, with the detector's scores."""
    return detections_frame(_detection(one) for one in opinions)


def _detection(one: Opinion) -> Detection:
    said = one.opinion
    dataset, _, patient = one.woman.partition("/")
    x0, y0, x1, y1 = said.box or (None,) * 4
    return Detection(
        detection_id=said.detection_id,
        path=said.path or "",
        dataset=dataset,
        patient_id=patient,
        x0=x0,
        y0=y0,
        x1=x1,
        y1=y1,
        outline=said.outline,
        score=said.score,
        lesion_type=said.lesion_type,
        detector=said.detector,
        detector_version=said.detector_version,
        lesion_id=said.lesion_id,
        sop_uid=said.sop_uid,
        study_id=one.study_id,
        laterality=said.laterality,
        view=one.view,
        frame_number=said.frame_number,
    )


def _model_digest(output: Path) -> str:
    with (Path(output) / WORKLIST_FILE).open("rb") as file:
        return str(json.loads(file.readline())["model_digest"])
