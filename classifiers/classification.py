"""Classify a finding by a gallery of other women's: a kNN vote and a linear head, side by side."""

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.fitted import ClassifierConfig, FittedClassifiers, fit_classifiers
from classifiers.labels import Array
from classifiers.risk import RiskConfig, RiskModel
from classifiers.riskanswers import RiskAnswer, answer_risk, fit_gallery_risk
from embedder.findings import LABEL_COLUMNS

_UNIT_TOLERANCE = 1e-3  # of a vector's length
_KEPT_FITS = 8  # fits for as many sets of left out rows: most queries leave out nobody, or come woman by woman


class Identity(Protocol):
    """What a gallery is bound to."""

    @property
    def model_digest(self) -> str:
        """The checkpoint that made its vectors."""

    @property
    def preparation_digest(self) -> str:
        """The preparation that its pixels went through."""


class CaseGallery(Protocol):
    """What is asked of a gallery: `index.gallery.Gallery`, or anything like it.

    `matrix` (n, d) float32 of unit length; `records` (n rows) with `patient_id` and the label columns;
    `patient_keys` (n,) each row's woman as "dataset/patient_id".
    """

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """All vectors."""

    @property
    def records(self) -> pd.DataFrame:
        """All records."""

    @property
    def patient_keys(self) -> npt.NDArray[np.object_]:
        """Each row's woman."""

    @property
    def identity(self) -> Identity:
        """What the gallery is bound to."""

    @property
    def generation(self) -> int:
        """Counts the changes of its content."""


@dataclass(frozen=True)
class VoteAnswer:
    """What the kNN vote says.

    Args:
        probabilities: Calibrated probability of each class.
        raw_probabilities: The vote before calibration.
        neighbours: How many findings voted.
        women: How many women they belong to.
        counts: How many of them have each class.
        calibration: Method, parameters and basis of the calibration.
    """

    probabilities: dict[str, float]
    raw_probabilities: dict[str, float]
    neighbours: int
    women: int
    counts: dict[str, int]
    calibration: dict[str, Any]


@dataclass(frozen=True)
class HeadAnswer:
    """What the linear head says.

    Args:
        probabilities: Calibrated probability of each class.
        raw_probabilities: The head's own before calibration.
        findings: How many findings it was fitted on.
        women: How many women they belong to.
        strength: The C (inverse regularisation) that folds of women advised.
        calibration: Method, parameters and basis of the calibration.
    """

    probabilities: dict[str, float]
    raw_probabilities: dict[str, float]
    findings: int
    women: int
    strength: float
    calibration: dict[str, Any]


@dataclass(frozen=True)
class Classification:
    """One finding's classification, with what stands behind it.

    Args:
        target: The label column.
        classes: Its classes among other women, in their order where they have one.
        knn: The kNN vote.
        head: The linear head; None where it could not be made.
        risk: The risk of the class to detect, from both and the context; None where it could not be made.
        reasons: Why a part could not be made, by its name.
        findings: Labelled findings of other women in the gallery.
        women: The women that these belong to.
        excluded_patient: The query's woman, None where nobody was left out.
        excluded_rows: How many rows of the gallery were hers.
        replay: Gallery generation, digests and settings: the same ones give the same answer.
    """

    target: str
    classes: tuple[str, ...]
    knn: VoteAnswer
    head: HeadAnswer | None
    risk: RiskAnswer | None
    reasons: dict[str, str]
    findings: int
    women: int
    excluded_patient: str | None
    excluded_rows: int
    replay: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the classification as plain JSON values.

        Each part has its `basis`, a sentence. A part that could not be made keeps its shape: its fields are None
        and its basis says why.
        """
        content: dict[str, Any] = {**asdict(self), "classes": list(self.classes)}
        knn, head = content["knn"], content["head"]
        knn["basis"] = f"{knn['neighbours']} neighbours of {knn['women']} women; {knn['calibration']['basis']}"
        if head is None:
            content["head"] = {
                **dict.fromkeys(field.name for field in fields(HeadAnswer)),
                "basis": self.reasons["head"],
            }
        else:
            fit = f"fitted on {head['findings']} findings of {head['women']} women"
            head["basis"] = f"{fit}; {head['calibration']['basis']}"
        if self.risk is None:
            content["risk"] = {
                **dict.fromkeys(field.name for field in fields(RiskAnswer)),
                "basis": self.reasons["risk"],
            }
        return content


def classify(
    gallery: CaseGallery,
    vector: npt.ArrayLike,
    *,
    target: str,
    patient_keys: str | Collection[str] | None = None,
    patient_id: str | None = None,
    context: Mapping[str, Any] | None = None,
    seen: npt.NDArray[np.bool_] | None = None,
    config: ClassifierConfig | None = None,
) -> Classification:
    """Classify one finding by the labelled findings of other women.

    The rows of the query's woman are dropped before anything is fitted, calibrations included.

    Args:
        gallery: The findings whose labels are known; the caller makes sure that it is of the query's model.
        vector: (d,) the query, unit length.
        target: The label column to classify by.
        patient_keys: The query's woman as "dataset/patient_id", or several keys of hers.
        patient_id: Her id where the data set is unknown: rows with it in any data set are left out.
        context: What is known of the query besides its picture, by column, see `classifiers.context`.
        seen: (n,) whether the embedder was trained on the woman of each row of the gallery; None where nobody knows.
        config: How the classifiers are fitted.

    Raises:
        ClassificationError: The gallery has no such column, other women have no labels or one class only,
            or the vector does not fit.
    """
    keys = frozenset([patient_keys] if isinstance(patient_keys, str) else patient_keys or ())
    if patient_id is not None:
        keys |= keys_of_patient(gallery, patient_id)
    named = sorted(keys) if patient_id is None else [patient_id]
    classifier = CaseClassifier(gallery, target, config=config, seen=seen)
    return classifier.classify(vector, keys, context or {}, ", ".join(named) or None)


def keys_of_patient(gallery: CaseGallery, patient_id: str) -> frozenset[str]:
    """Return the keys of a gallery's women who bear a patient id, in whatever data set."""
    here = gallery.records["patient_id"].to_numpy(dtype=object) == patient_id
    return frozenset(gallery.patient_keys[here].tolist())


def name_labels(frame: pd.DataFrame) -> str:
    """Return the advice that names a table's label columns, as far as they hold a label."""
    known = [name for name in LABEL_COLUMNS if name in frame.columns and frame[name].notna().any()]
    return f"its label columns are {', '.join(known)}" if known else "it has no labels at all"


class CaseClassifier:
    """Classifies findings by one label of a gallery; findings that leave out the same rows share one fit.

    Args:
        gallery: The findings whose labels are known; the caller makes sure that it is of the queries' model.
        target: The label column to classify by.
        config: How the classifiers are fitted.
        seen: (n,) whether the embedder was trained on the woman of each row of the gallery; None where nobody knows.
        kept: Fits that are kept, those used last.

    Raises:
        ClassificationError: The gallery has no such column.
    """

    def __init__(
        self,
        gallery: CaseGallery,
        target: str,
        *,
        config: ClassifierConfig | None = None,
        seen: npt.NDArray[np.bool_] | None = None,
        kept: int = _KEPT_FITS,
    ) -> None:
        self.gallery, self.target, self.seen, self.kept = gallery, target, seen, kept
        self.config = config or ClassifierConfig()
        self._risk_config = RiskConfig(seed=self.config.seed)
        if target not in gallery.records.columns:
            raise ClassificationError("target", f"the gallery has no column {target!r}", name_labels(gallery.records))
        self._labels = gallery.records[target].to_numpy(dtype=object)
        self._fits: OrderedDict[bytes, tuple[FittedClassifiers, RiskModel | str]] = OrderedDict()

    def classify(
        self,
        vector: npt.ArrayLike,
        keys: frozenset[str],
        context: Mapping[str, Any] = MappingProxyType({}),
        name: str | None = None,
    ) -> Classification:
        """Classify one finding.

        Args:
            vector: (d,) unit length.
            keys: The query's woman as "dataset/patient_id", all keys that are hers.
            context: What is known of the query besides its picture, by column.
            name: What the answer calls her; None where nobody was left out.

        Raises:
            ClassificationError: Other women have no labels or one class only, or the vector does not fit.
        """
        query = _checked(np.asarray(vector), self.gallery.matrix.shape[1])
        others = self._others(keys)
        fitted, risk = self._fit(others)
        replay = _replay(self.gallery, self.config, self._risk_config, query, context)
        return _answer(fitted, risk, query, self.target, name, int((~others).sum()), context, replay)

    def prepare(self, keys: frozenset[str]) -> None:
        """Fit now what `classify` would fit at its first finding of a woman.

        Args:
            keys: As in `classify`.

        Raises:
            ClassificationError: Other women have no labels or one class only.
        """
        self._fit(self._others(keys))

    def _others(self, keys: frozenset[str]) -> npt.NDArray[np.bool_]:
        return ~pd.Index(self.gallery.patient_keys).isin(keys)

    def _fit(self, others: npt.NDArray[np.bool_]) -> tuple[FittedClassifiers, RiskModel | str]:
        """Return what is fitted to some of the rows."""
        left = others.tobytes()
        if left not in self._fits:
            gallery, told = self.gallery, None if self.seen is None else self.seen[others]
            women = gallery.patient_keys[others]
            try:
                fitted = fit_classifiers(gallery.matrix[others], self._labels[others], women, self.config, seen=told)
            except ClassificationError as error:
                raise ClassificationError(f"{self.target} of other women", error.cause, error.remedy) from error
            records = gallery.records[others]
            risk = fit_gallery_risk(fitted, records, women, self.target, seen=told, config=self._risk_config)
            self._fits[left] = fitted, risk
            if len(self._fits) > self.kept:
                self._fits.popitem(last=False)
        self._fits.move_to_end(left)
        return self._fits[left]


def _answer(
    fitted: FittedClassifiers,
    risk: RiskModel | str,
    vector: Array,
    target: str,
    name: str | None,
    excluded_rows: int,
    context: Mapping[str, Any],
    replay: dict[str, Any],
) -> Classification:
    # One query at a time: products of matrices of other shapes may differ in their last bits.
    def named(values: Array) -> dict[str, float]:
        return dict(zip(fitted.classes, values[0].tolist(), strict=True))

    raw, calibrated = fitted.knn.predict(vector)
    before = {"knn": raw}
    voter = fitted.knn.estimator
    hood = voter.kneighbours(vector)
    knn = VoteAnswer(
        named(calibrated),
        named(raw),
        int(hood.neighbours[0]),
        int(hood.women[0]),
        {name: int((hood.codes[0] == voter.classes_.index(name)).sum()) for name in fitted.classes},
        fitted.knn.calibration.to_dict(),
    )
    head = None
    if fitted.head is not None:
        raw, calibrated = fitted.head.predict(vector)
        before["head"] = raw
        head = HeadAnswer(
            named(calibrated),
            named(raw),
            fitted.findings,
            fitted.women,
            fitted.head.estimator.strength_,
            fitted.head.calibration.to_dict(),
        )
    reasons = {"head": fitted.no_head} if fitted.no_head else {}
    if isinstance(risk, str):
        reasons["risk"] = risk
    return Classification(
        target=target,
        classes=fitted.classes,
        knn=knn,
        head=head,
        risk=None if isinstance(risk, str) else answer_risk(risk, before, context),
        reasons=reasons,
        findings=fitted.findings,
        women=fitted.women,
        excluded_patient=name,
        excluded_rows=excluded_rows,
        replay=replay,
    )


def _replay(
    gallery: CaseGallery, config: ClassifierConfig, risk: RiskConfig, vector: Array, context: Mapping[str, Any]
) -> dict[str, Any]:
    settings = asdict(config)
    settings["head"]["strengths"] = list(config.head.strengths)
    settings["risk"] = {**asdict(risk), "context": list(risk.context), "strengths": list(risk.strengths)}
    return {
        "gallery_generation": int(gallery.generation),
        "model_digest": gallery.identity.model_digest,
        "preparation_digest": gallery.identity.preparation_digest,
        "vector_sha256": hashlib.sha256(vector.astype(np.float32).tobytes()).hexdigest(),
        "context": {name: context.get(name) for name in risk.context},
        "settings": settings,
    }


def _checked(query: Array, dimension: int) -> Array:
    """Return a query as (1, d) float64, or refuse it."""
    try:
        vector = np.asarray(query, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ClassificationError("vector", f"is none ({error})", "embed the finding again") from error
    if vector.shape != (dimension,):
        raise ClassificationError(
            "vector", f"the shape is {vector.shape} where the gallery has {dimension} dimensions",
            "embed with the gallery's model",
        )  # fmt: skip
    length = float(np.linalg.norm(vector))
    if not abs(length - 1) <= _UNIT_TOLERANCE:  # NaN included
        raise ClassificationError("vector", f"the length is {length:.3g}, not 1", "embed the finding again")
    return vector[None]
